"""`rilbench check` on files and options that cannot be: one line, and nothing is lost."""

import json
import shlex

import pytest
from command import refused, run
from measured import BENCHMARKS, evaluation, score, seeds, training_run

from rilbench.check.baseline import read_baseline
from rilbench.check.evaluate_model import check_model
from rilbench.check.update import update_baseline
from rilbench.errors import UserError
from rilbench.ledger import Ledger
from rilbench.paths import locate

CHECK = ("check", "--baseline", "baseline.json", "--db", "new.db")


@pytest.fixture
def folder(tmp_path, baseline, fill):
    """A baseline of nine seeds, its ledger, and ``new.db`` with one more seed that is as good."""
    assert baseline == tmp_path / "baseline.json"
    fill(tmp_path / "rilbench.db", seeds())
    fill(tmp_path / "new.db", [(evaluation(dict.fromkeys(BENCHMARKS, 70.0), seed=40), None)])
    return tmp_path


def test_verdicts_are_printed_where_the_junit_file_cannot_be_written(folder, fill):
    values = dict.fromkeys(BENCHMARKS, 70.0)
    fill(folder / "new.db", [(evaluation(values, seed=40, minute=1), training_run(40))])
    (folder / "reports").mkdir()
    for junit in ("reports", "x" * 300, "baseline.json/check.xml"):
        done = run(*CHECK, "--junit", junit, cwd=folder)
        refused(done, f"no JUnit file, {junit}: ", "give another --junit")
        assert "MMStar" in done.stdout
        assert "passed: 8 metrics" in done.stdout
    assert not [file for file in folder.iterdir() if file.suffix == ".part"]


def test_a_closed_gate_says_both(folder, fill):
    values = {**dict.fromkeys(BENCHMARKS, 70.0), "MMStar": 40.0}
    fill(folder / "new.db", [(evaluation(values, seed=40, minute=1), training_run(40))])
    done = run(*CHECK, "--junit", ".", cwd=folder)
    assert done.returncode == 1
    note, last = done.stderr.splitlines()
    assert note.startswith("note: no JUnit file, .: ")
    assert "MMStar failed" in last


@pytest.mark.parametrize("option", ["--fresh", "--work=w", "--data=d"])
def test_options_of_an_evaluation_need_a_model(folder, option):
    refused(run(*CHECK, option, cwd=folder), option.partition("=")[0], "--model")


def test_the_remedy_for_a_damaged_baseline_works(folder):
    file = folder / "baseline.json"
    file.write_text(file.read_text()[:700])
    for command in (CHECK, ("check", "--update", "--reason", "x", "--baseline", "baseline.json")):
        done = run(*command, cwd=folder)
        refused(done, "restore it, or remove it and write a new one: ")
    remedy = shlex.split(done.stderr.strip().rpartition("write a new one: ")[2])
    assert remedy[0] == "rilbench"
    file.unlink()
    assert run(*remedy[1:], cwd=folder).returncode == 0
    assert read_baseline(file).entries


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("provenance", value) for value in (None, [], {"kit": 1})),
        *(("name", value) for value in (None, 1, [])),
        *(("values", value) for value in (None, [None], [float("nan")], [10**400], [])),
        *(("outcomes", value) for value in (None, {"1": None}, {"x": "a"})),
        *(("questions", value) for value in (None, "many")),
        ("outcomes_hash", None),
    ],
)
def test_a_metric_of_another_form_is_refused(baseline, key, value):
    document = json.loads(baseline.read_text())
    document["entries"][0]["metrics"][0][key] = value
    baseline.write_text(json.dumps(document))
    with pytest.raises(UserError, match="is no baseline") as found:
        read_baseline(baseline)
    assert "\n" not in str(found.value)


def test_a_baseline_of_the_paper_suite_says_how_to_check_a_model(tmp_path, fill):
    from rilbench.checkpoint import inspect_checkpoint

    model = locate("nano:restyled")
    labels = inspect_checkpoint(model).labels
    made = evaluation({"MMVet": 50.0}, suite="paper", student=labels.student)
    made = made.__class__(**{**vars(made), "scores": (score("MM-Vet", 50.0),)})
    with Ledger(fill(tmp_path / "l.db", [(made, None)])) as ledger:
        update_baseline(ledger, tmp_path / "b.json", "one")
    known = read_baseline(tmp_path / "b.json")
    with pytest.raises(UserError, match="MM-Vet need a language model as judge") as found:
        check_model(model, known, [], print, work=tmp_path / "w", db=tmp_path / "n.db")
    assert "first: rilbench eval --model" in str(found.value)
    assert "--suite paper --kit vlmevalkit --judge MODEL@URL" in str(found.value)


def test_a_baseline_that_is_a_folder_is_one_line(folder):
    (folder / "baseline.json").unlink()
    (folder / "baseline.json").mkdir()
    refused(run(*CHECK, cwd=folder), "baseline.json cannot be read")
