"""The queries for Datasette in Datasette itself, in an environment of its own."""

import json
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml

from rilbench.lab.run_result import read_result
from rilbench.lab.to_ledger import record_results
from rilbench.ledger import Ledger

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
METADATA = ROOT / "docs" / "datasette.yaml"


@pytest.fixture(scope="module")
def datasette(tmp_path_factory):
    """Asks Datasette for a page of a real ledger, as JSON."""
    folder = tmp_path_factory.mktemp("datasette")
    uv, environment = ROOT / ".tools" / "bin" / "uv", folder / "env"
    subprocess.run([uv, "venv", "--quiet", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, "datasette==0.65.5"], check=True
    )
    with Ledger(folder / "rilbench.db") as ledger:
        runs = ROOT / "results" / "nano" / "runs"
        record_results(
            [read_result(p) for p in sorted(runs.glob("headline/paper/*-201.json"))], ledger
        )

    def get(path, **values):
        page = f"{path}?{urlencode({'_shape': 'objects', **values})}"
        command = [environment / "bin" / "datasette", "rilbench.db", "--metadata", METADATA]
        done = subprocess.run(
            [*command, "--get", page], cwd=folder, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stdout + done.stderr
        return json.loads(done.stdout)

    return get


def test_datasette_knows_every_query_and_view(datasette):
    found = datasette("/rilbench.json")
    queries = yaml.safe_load(METADATA.read_text())["databases"]["rilbench"]["queries"]
    assert {query["name"] for query in found["queries"]} == set(queries)
    assert {"answers", "changes"} <= {view["name"] for view in found["views"]}


def test_queries_end_within_datasettes_second(datasette):
    assert datasette("/rilbench/fixed.json", suite="nano")["rows"] == [], "no start is in it"
    assert datasette("/rilbench/hardest.json")["rows"]
    scores = datasette("/rilbench/scores.json")["rows"]
    assert {row["method"] for row in scores} > {"ril", "sft"}
