"""Every file in ``results/`` is in the index, is written by a command, and is not stale."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.lab.grid_choice import read_tuned
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.run_result import read_result

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
INDEX = (RESULTS / "README.md").read_text(encoding="utf-8")
NAMED = dict(re.findall(r"^\| (`[^|]*`) \|[^|]*\| ([^|]*) \|$", INDEX, re.M))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SCRIPTS = {f"results/{name}" for name in ("README.md", "demo.py", "tables.py", "refingerprint.py")}


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, RESULTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


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
            names = [word for word in words[1:] if not word.startswith("-")]
            assert CliRunner().invoke(app, [*names, "--help"]).exit_code == 0, command


MEASURED = [
    path
    for path in sorted(RESULTS.rglob("*.json"))
    if "runs" not in path.parts and path.name != "tuned.json"  # The lab's own formats.
]


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.name)
def test_a_measured_file_names_its_command(file):
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["command"].startswith(("make ", "rilbench "))


@pytest.mark.integration
def test_the_tables_are_not_stale(tmp_path):
    """The report, the baseline and the plots have their own tests."""
    load_script("tables").write(tmp_path)
    for name in ("paper/tables.md", "nano/table.md"):
        now, then = (folder / name for folder in (tmp_path, RESULTS))
        assert now.read_text(encoding="utf-8") == then.read_text(encoding="utf-8"), (
            f"{name} is stale; run: make results-tables"
        )


# ---- fingerprints of the recorded runs


@pytest.fixture(scope="module")
def refingerprint():
    return load_script("refingerprint")


@pytest.fixture
def one_run(tmp_path):
    """A results folder with one recorded run and the grid's choice."""
    name = "gate/format/ril-31.json"
    file = tmp_path / "nano" / "runs" / name
    file.parent.mkdir(parents=True)
    shutil.copy(RESULTS / "nano" / "runs" / name, file)
    shutil.copy(RESULTS / "nano" / "tuned.json", tmp_path / "nano")
    (tmp_path / "baseline.json").write_text('{"entries": []}')
    return file, LabPaths(results=tmp_path / "nano", baseline=tmp_path / "baseline.json")


def test_fingerprints_of_recorded_runs_are_those_of_todays_recipes(refingerprint):
    """Fails after a change of settings; then run: python results/refingerprint.py."""
    paths = LabPaths(results=RESULTS / "nano")
    jobs, tuned = refingerprint.read_jobs(), read_tuned(paths.tuned)
    for file in sorted(paths.runs.glob("*/*/*.json")):
        result = read_result(file)
        assert refingerprint.refingerprinted(result, jobs, tuned, paths) == result, file


def test_an_old_fingerprint_is_rewritten_and_nothing_else(refingerprint, one_run):
    file, paths = one_run
    good = file.read_text(encoding="utf-8")
    file.write_text(good.replace(read_result(file).recipe_fingerprint, "0" * 16))
    refingerprint.main(paths)
    assert file.read_text(encoding="utf-8") == good


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"policy.lr": 0.0003', '"policy.lr": 0.0004', "other settings than its experiment"),
        ('"policy.lr": 0.0003', '"policy.speed": 0.0003', "other settings than its experiment"),
        ('"seed": 31', '"seed": 99', "a run of 0 experiments"),
    ],
)
def test_a_run_without_its_recipe_is_refused(refingerprint, one_run, old, new, message):
    file, paths = one_run
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new))
    changed = file.read_text(encoding="utf-8")
    with pytest.raises(UserError, match=message):
        refingerprint.main(paths)
    assert file.read_text(encoding="utf-8") == changed
