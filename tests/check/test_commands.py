"""`rilbench check` as a user and a CI job meet it: real processes, exit status, files."""

import json
import re
import shutil
import xml.etree.ElementTree as ET

import pytest
import yaml
from command import refused, run
from measured import BENCHMARKS, evaluation, seeds, training_run

from rilbench.checkpoint import LABELS_FILE
from rilbench.paths import locate

VALUES = dict.fromkeys(BENCHMARKS, 70.0)


@pytest.fixture
def checked(tmp_path, fill):
    """A folder with a baseline of nine seeds, and ``new.db`` with one more run."""
    fill(tmp_path / "rilbench.db", seeds())
    done = run("check", "--update", "--reason", "nine seeds", "--baseline", "b.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "new bounds: nano/ms-vlmeval/nano/ril/both@ffffffff" in done.stdout

    def with_run(values=VALUES, **figures):
        fill(tmp_path / "new.db", [(evaluation(values, seed=40), training_run(40, **figures))])
        return tmp_path

    return with_run


CHECK = ("check", "--baseline", "b.json", "--db", "new.db")


def test_a_clean_run_exits_with_0(checked):
    folder = checked()
    done = run(*CHECK, "--junit", "check.xml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "passed: 8 metrics are within" in done.stdout
    assert ET.parse(folder / "check.xml").getroot().get("failures") == "0"


def test_a_regression_exits_with_1_and_is_named_in_every_output(checked):
    folder = checked({**VALUES, "MMStar": 40.0}, step=9.0)
    done = run(*CHECK, "--junit", "check.xml", cwd=folder)
    refused(done, "MMStar failed: 40.000 is below", "step_time failed", "of the usual")
    assert done.returncode == 1
    failed = {
        case.get("name")
        for case in ET.parse(folder / "check.xml").getroot().iter("testcase")
        if case.find("failure") is not None
    }
    assert {"MMStar", "step_time"} <= failed <= {"MMStar", "step_time", "mean"}
    metrics = json.loads(run(*CHECK, "--format", "json", cwd=folder).stdout)
    assert {each["metric"] for each in metrics if not each["open"]} == failed


def test_an_entry_that_was_never_evaluated_can_be_left_out(checked, fill):
    folder = checked()
    fill(folder / "other.db", [(evaluation(VALUES, seed=40, student="other"), None)])
    done = run("check", "--baseline", "b.json", "--db", "other.db", cwd=folder)
    refused(done, "not measured", "evaluate it, or choose other entries with --only")


def test_github_actions_gets_a_job_summary_and_annotations(checked):
    folder = checked({**VALUES, "MMStar": 40.0})
    plain = run(*CHECK, cwd=folder)
    summary = folder / "summary.md"
    summary.write_text("of an earlier step\n")
    done = run(*CHECK, cwd=folder, GITHUB_STEP_SUMMARY=str(summary))
    assert (done.returncode, done.stdout) == (1, plain.stdout)
    text = summary.read_text()
    assert text.startswith("of an earlier step\n### rilbench check: failed\n")
    rows = [line for line in text.splitlines() if line.startswith(("| ✅", "| ❌"))]
    assert len(rows) == 8
    assert any(re.match(r"\| ❌ \| MMStar \| 40\.000 \| ≥ [\d.]+ \|", row) for row in rows)
    annotated = [line for line in done.stderr.splitlines() if line.startswith("::error ")]
    assert len(annotated) == len([row for row in rows if "❌" in row])
    assert "::error title=rilbench check%3A MMStar failed::nano/ms-vlmeval/nano/ril" in annotated[0]
    assert "::error" not in plain.stdout + plain.stderr

    as_json = run(*CHECK, "--format", "json", cwd=folder, GITHUB_STEP_SUMMARY=str(folder))
    assert len(json.loads(as_json.stdout)) == 8
    assert "note: no job summary" in as_json.stderr


def test_errors_are_one_line(checked, tmp_path):
    folder = checked()
    refused(run("check", "--baseline", "none.json", cwd=folder), "--update --reason")
    refused(run(*CHECK[:3], "--db", "none.db", cwd=folder), "does not exist")
    refused(run(*CHECK, "--only", "grpo", cwd=folder), "no entry is called 'grpo'")
    refused(run(*CHECK, "--format", "xml", cwd=folder), "rich or json")
    refused(run(*CHECK, "--update", cwd=folder), "--reason")
    refused(run(*CHECK, "--reason", "because", cwd=folder), "--update")
    (folder / "new.db").write_bytes(b"no database")
    refused(run(*CHECK, cwd=folder), "not an SQLite database")
    text = (folder / "b.json").read_text()
    (folder / "b.json").write_text(text[: len(text) // 2])
    refused(run(*CHECK, cwd=folder), "cannot be read")
    refused(run("check", "--update", "--reason", "x", "--baseline", "b.json", cwd=folder), "b.json")


# ---- a checkpoint


@pytest.mark.timeout(600)
def test_a_checkpoint_is_evaluated_and_compared(tmp_path):
    """With the kit: the same weights pass, without their last layer's they fail."""
    good = locate("nano:restyled")
    one = ("--benchmarks", "MMStar", "--engine", "batch", "--db", "first.db")
    made = run("eval", "--model", "nano:restyled", *one, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    update = ("check", "--update", "--reason", "first", "--baseline", "b.json", "--db", "first.db")
    assert run(*update, cwd=tmp_path).returncode == 0
    model = ("check", "--baseline", "b.json", "--db", "new.db", "--model")
    same = run(*model, "nano:restyled", cwd=tmp_path)
    assert same.returncode == 0, same.stderr
    assert "passed: 1 metrics are within" in same.stdout

    bad = tmp_path / "bad"
    shutil.copytree(good, bad)
    bad.joinpath("model.safetensors").chmod(0o644)
    _silence(bad / "model.safetensors")
    worse = run(*model, str(bad), cwd=tmp_path)
    assert worse.returncode == 1
    last = worse.stderr.splitlines()[-1]  # after the evaluation's progress
    assert "1 of 1 metrics did not pass" in last
    assert "MMStar failed: " in last
    assert "answers are worse than the baseline's" in last
    (bad / LABELS_FILE).unlink()
    refused(run(*model, str(bad), cwd=tmp_path), "no entry for bad base none", "--update")


def _silence(weights):
    """Set the language model's last norm to zero: every next token is as likely."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    name = "model.norm.weight"
    save_file({**tensors, name: tensors[name] * 0}, weights, metadata={"format": "pt"})


# ---- the workflow


def test_the_workflow_is_whole_and_its_commands_parse():
    import shlex
    from pathlib import Path

    import typer

    from rilbench.cli import app

    root = Path(__file__).parents[2]
    found = yaml.safe_load((root / ".github/workflows/check.yml").read_text())
    assert set(found[True]) >= {"push", "pull_request"}  # YAML 1.1 reads "on" as a truth value
    (job,) = found["jobs"].values()
    assert job["timeout-minutes"] <= 60
    steps = job["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", s["uses"]) for s in steps if "uses" in s)
    upload = steps[-1]
    assert upload["uses"].startswith("actions/upload-artifact@")
    assert upload["if"] == "always()"
    lines = [line for s in steps for line in s.get("run", "").splitlines() if line.strip()]
    commands = [shlex.split(line) for line in lines if "rilbench " in line]
    assert commands
    for words in commands:
        assert words[0] == ".venv/bin/rilbench"
        command, rest = typer.main.get_command(app), words[1:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context("rilbench", list(rest))
        assert run(*[w for w in words[1:3] if w.isalpha()], "--help", cwd=root).returncode == 0
    written = [w[w.index("--junit") + 1] for w in commands if "--junit" in w]
    assert written
    assert all(name in upload["with"]["path"] for name in written)
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M)
    assert {line.split()[1] for line in lines if line.startswith("make ")} <= set(targets)
