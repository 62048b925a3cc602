"""What lies under ``results/`` is named, comes from a command, and is not stale."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
INDEX = (RESULTS / "README.md").read_text(encoding="utf-8")
NAMED = dict(re.findall(r"^\| (`[^|]*`) \|[^|]*\| ([^|]*) \|$", INDEX, re.M))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SCRIPTS = {"results/README.md", "results/demo.py", "results/tables.py"}


def test_every_file_is_named_in_the_index():
    names = [name for cell in NAMED for name in re.findall(r"`([^`]*)`", cell)]
    files = [path.relative_to(RESULTS) for path in sorted(RESULTS.rglob("*")) if path.is_file()]
    unnamed = [
        str(file)
        for file in files
        if f"results/{file}" not in SCRIPTS
        and "__pycache__" not in file.parts
        and not any(str(file) == name or str(file).startswith(name) for name in names)
    ]
    assert unnamed == []


def test_every_command_that_writes_one_exists():
    from typer.testing import CliRunner

    from rilbench.cli import app

    for command in re.findall(r"`([^`]*)`", " ".join(NAMED.values())):
        words = command.split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", MAKEFILE, re.M), command
        else:
            verbs = [word for word in words[1:] if not word.startswith("-")]
            assert CliRunner().invoke(app, [*verbs, "--help"]).exit_code == 0, command


MEASURED = [
    path
    for path in sorted(RESULTS.rglob("*.json"))
    if "rows" not in path.parts and path.name != "tuned.json"  # The laboratory's own formats.
]


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.name)
def test_a_measured_file_names_its_command(file):
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["command"].startswith(("make ", "rilbench "))


def test_the_tables_are_not_stale(tmp_path):
    """Those of the report, of the baseline and of the laboratory have tests of their own."""
    spec = importlib.util.spec_from_file_location("tables", RESULTS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    tables.write(tmp_path)
    for name in ("paper/tables.md", "nano/table.md"):
        now, then = (folder / name for folder in (tmp_path, RESULTS))
        assert now.read_text(encoding="utf-8") == then.read_text(encoding="utf-8"), (
            f"{name} is stale; run: make results-tables"
        )
