"""``rilbench import`` as a user meets it."""

import shutil
from pathlib import Path

import pytest
from command import refused, run
from small_results import write_realworldqa

from rilbench.ledger import Ledger

ROWS = Path(__file__).parents[2] / "results" / "nano" / "runs" / "headline" / "paper"


@pytest.fixture
def rows(tmp_path):
    """Some run results of the nano sandbox, one of them of dev, and two that cannot be read."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("untrained-0", "ril-201", "ril-202"):
        shutil.copy(ROWS / f"{name}.json", folder)
    dev = ROWS.parents[1] / "grid" / "paper" / "untrained-0.json"
    shutil.copy(dev, folder / "dev.json")
    whole = (ROWS / "sft-201.json").read_text()
    (folder / "cut.json").write_text(whole[:3000])
    (folder / "method.json").write_text(whole.replace('"method": "sft"', '"method": "magic"'))
    return folder


def evaluations(db):
    with Ledger.open_read(db) as ledger:
        return ledger.evaluations(), ledger.runs()


def test_run_results_of_the_nano_sandbox(tmp_path, rows):
    first = run("import", "rows", "--db", "l.db", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    cut, method = first.stderr.splitlines()
    assert cut.startswith("skipped cut.json: ")
    assert "is not a run result" in cut
    assert method == "skipped method.json: its split or method is not known"
    assert "1 dev results are left out; use --split dev" in first.stdout
    assert "3 test results of the nano sandbox: 3 evaluations are new" in first.stdout
    found, runs = evaluations(tmp_path / "l.db")
    assert len({each.family for each in found if each.seed is not None}) == 1
    assert len(found) == 3
    assert len(runs) == 2
    again = run("import", "rows", "--db", "l.db", cwd=tmp_path)
    assert "0 evaluations are new" in again.stdout
    assert evaluations(tmp_path / "l.db") == (found, runs)
    dev = run("import", "rows", "--split", "dev", "--db", "l.db", cwd=tmp_path)
    assert "1 dev results of the nano sandbox: 1 evaluations are new" in dev.stdout
    table = run("table", "--db", "l.db", cwd=tmp_path)
    assert "nano-dev" in table.stdout
    assert "ril both" in table.stdout


def test_a_kits_folder(tmp_path, vlmevalkit):
    arguments = ("import", str(vlmevalkit.parent), "--suite", "nano", "--db", "l.db")
    named = ("--student", "my model", "--method", "ril", "--teacher", "both")
    tried = run(*arguments, *named, "--dry-run", cwd=tmp_path)
    assert tried.returncode == 0, tried.stderr
    assert "nothing was written" in tried.stdout
    assert not (tmp_path / "l.db").exists()
    done = run(*arguments, *named, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "my model: MMStar: 2 verdicts that nobody gave are left out" in done.stdout
    assert "my model: MM-Vet-v2" not in done.stdout
    assert "can run code when it is read" in done.stderr
    (found,), _ = evaluations(tmp_path / "l.db")
    assert (found.student, found.method, found.teacher) == ("my model", "ril", "both")
    assert len(found.scores) == 13
    again = run(*arguments, *named, cwd=tmp_path)
    assert "known" in again.stdout
    assert len(evaluations(tmp_path / "l.db")[0]) == 1
    assert "my model" in run("table", "--db", "l.db", cwd=tmp_path).stdout
    compared = run("compare", "1", "1", "--db", "l.db", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr


def test_a_kits_result_of_an_own_benchmark(tmp_path, vlmevalkit):
    for file in vlmevalkit.glob("*MMStar*"):
        if file.is_file():
            copy = tmp_path / "out" / file.name.replace("MMStar", "MyChoices")
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(file, copy)
    (tmp_path / "mine.toml").write_text(
        'name = "Mine"\n[[vlmevalkit]]\nname = "MyChoices"\nquestions = 14\n'
    )
    unknown = run("import", "out", "--db", "l.db", cwd=tmp_path)
    assert unknown.returncode == 1
    assert "out has no result that can be imported" in unknown.stderr
    done = run("import", "out", "--benchmarks", "mine.toml", "--db", "l.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,), _ = evaluations(tmp_path / "l.db")
    assert [score.benchmark for score in found.scores] == ["Mine"]


def test_nothing_to_import(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(run("import", "empty", cwd=tmp_path), "has no result that can be imported", "outputs/")
    refused(run("import", "nowhere", cwd=tmp_path), "nowhere does not exist; give the folder")
    (tmp_path / "file").write_text("x")
    refused(run("import", "file", cwd=tmp_path), "file is not a folder; give the folder")
    assert not (tmp_path / "rilbench.db").exists()
    for option, words in (
        (("--split", "train"), "--split train is not known; use test or dev"),
        (("--suite", "x"), "unknown suite 'x'; choose from paper, nano"),
        (("--student", "a\nb"), "control characters; give a plain name"),
    ):
        refused(run("import", "empty", *option, cwd=tmp_path), words)


def test_options_that_would_be_ignored_are_refused(tmp_path, rows):
    labels = ("--student", "mine", "--method", "mymethod", "--benchmarks", "AI2D")
    leave_out = "leave out --student, --method, --suite, --benchmarks, or give a kit's folder"
    refused(run("import", "rows", *labels, "--suite", "paper", cwd=tmp_path), leave_out)
    refused(run("import", "rows", "--teacher", "none", cwd=tmp_path), "leave out --teacher,")
    assert not (tmp_path / "rilbench.db").exists()
    done = run("import", "rows", "--suite", "nano", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    write_realworldqa(tmp_path / "kit")
    assert run("import", "kit", cwd=tmp_path).returncode == 0
    refused(run("import", "kit", "--split", "test", cwd=tmp_path), "leave it out")


def test_foreign_files_are_named_on_one_line_each(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "a\nb\x1b[0m.csv").write_text("x")
    (folder / "m_MMStar_acc.csv").write_text("x")
    done = run("import", "x", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("skipped a b [0m.csv: is no kit's result")
    assert lines[1].startswith("skipped m_MMStar_acc.csv: ")
    assert lines[2].startswith("rilbench: x has no result that can be imported")
