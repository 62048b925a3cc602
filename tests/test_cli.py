"""The command line as a user meets it: real processes, their output and exit status."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import refused, run
from report_place import evaluation, outcomes

from rilbench.config import load_recipe
from rilbench.ledger import Ledger
from rilbench.paths import nano_folder
from rilbench.train.pipeline.stages import open_run


def test_help_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from rilbench.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'verl', 'ray', 'pandas', 'numpy', 'sqlite_utils'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr.strip() == "[]"
    for command in ("train", "eval", "table", "nano"):
        assert command in done.stdout


def test_training_checks_its_options_before_it_imports_torch(tmp_path):
    code = (
        "import sys; sys.argv = ['rilbench', 'train', '--recipe', 'both', '--student', 'nano', "
        "'--log', 'nothing']\n"
        "from rilbench.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'verl', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == "[]"


def test_dry_run_prints_the_resolved_recipe_and_leaves_nothing(tmp_path):
    result = run(
        *("train", "--recipe", "both", "--student", "nano", "--steps", "7", "--dry-run"),
        cwd=tmp_path,
    )
    assert result.returncode == 0
    document = yaml.safe_load(result.stdout)
    assert document["schedule"]["steps"] == 7
    assert document["teachers"]["names"] == ["72b", "78b"]
    assert "fingerprint" in result.stdout.splitlines()[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "7b"), ("72b, 78b, both",)),
        (("--recipe", "both", "--student", "tiny"), ("nano", "qwen2.5-vl-7b")),
        (("--recipe", "both", "--student", "nano", "--set", "policy.lrr=1"), ("policy.lr",)),
        (("--recipe", "both", "--student", "nano", "--log", "paper"), ("tensorboard", "wandb")),
        (("--recipe", "both", "--student", "nano", "--resume"), ("nothing to resume",)),
        (
            ("--recipe", "both", "--student", "nano", "--set", "student.model=missing"),
            ("missing", "--set student.model"),
        ),
        (
            ("--recipe", "both", "--student", "nano", "--set", "data.train=missing.parquet"),
            ("missing.parquet",),
        ),
        (
            ("--recipe", "both", "--student", "nano", "--set", "judge.model=some-model"),
            ("judge.url",),
        ),
        (
            ("--recipe", "both", "--student", "nano", "--set", "hardware.devices=7"),
            ("schedule.prompts_per_step",),
        ),
    ],
)
def test_bad_training_commands(tmp_path, arguments, words):
    refused(run("train", *arguments, cwd=tmp_path), *words)
    assert list(tmp_path.iterdir()) == [], "nothing is left to be in the way of the right command"


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_a_paper_size_student_without_a_gpu_is_told_so(tmp_path):
    result = run("train", "--recipe", "72b", cwd=tmp_path)
    refused(result, "8 GPUs", "--student nano")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_needs_resume_and_the_same_recipe(tmp_path):
    start = ("train", "--recipe", "both", "--student", "nano", "--run", "r")
    open_run(tmp_path / "runs" / "r", load_recipe("both", "nano"), resume=False)
    refused(run(*start, cwd=tmp_path), "--resume")
    refused(run(*start, "--resume", "--seed", "1", cwd=tmp_path), "another recipe")


def test_a_truncated_or_text_only_model_is_refused(tmp_path):
    student = tmp_path / "student"
    shutil.copytree(nano_folder() / "restyled", student)
    weights = student / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    result = run("eval", "--model", str(student), cwd=tmp_path)
    refused(result, "model.safetensors")
    config = json.loads((student / "config.json").read_text())
    del config["vision_config"]
    (student / "config.json").write_text(json.dumps(config))
    refused(run("eval", "--model", str(student), cwd=tmp_path), "vision")
    refused(run("eval", "--model", "nowhere", cwd=tmp_path), "nowhere")
    assert not (tmp_path / "rilbench.db").exists()


def test_a_read_only_ledger_is_refused_before_any_work(tmp_path):
    db = tmp_path / "r.db"
    db.touch()
    db.chmod(0o444)
    result = run("eval", "--model", "nano:restyled", "--db", str(db), cwd=tmp_path)
    refused(result, "r.db")


def test_the_table_without_measurements_is_the_papers(tmp_path):
    result = run("table", "--format", "json", cwd=tmp_path)
    rows = json.loads(result.stdout)
    assert len(rows) == 30
    assert all(row["source"] == "paper" for row in rows)
    assert list(tmp_path.iterdir()) == []
    refused(run("table", "--format", "pdf", cwd=tmp_path), "rich, markdown, latex, csv, html, json")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_a_terminal_of_few_letters_gets_the_table(tmp_path, encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "rilbench", "table", "--student", "Qwen2.5-VL-7B"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"83.9" in done.stdout


@pytest.mark.parametrize("command", ["table", "show", "compare 1 2", "report 1"])
def test_a_ledger_that_does_not_exist_is_not_an_empty_one(tmp_path, command):
    refused(run(*command.split(), "--db", "typo.db", cwd=tmp_path), "typo.db does not exist")
    done = run(*command.split(), cwd=tmp_path, RILBENCH_DB="typo.db")
    refused(done, "typo.db, which $RILBENCH_DB names, does not exist")


@pytest.mark.parametrize(
    "command",
    [
        "table --out {}",
        "export scores --out {}.csv --db l.db",
        "check --update --reason x --db l.db --baseline {}",
        "report 1 --db l.db -o {}.html",
    ],
)
def test_a_folder_in_the_place_of_a_file_is_one_line_and_leaves_nothing(tmp_path, command):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(evaluation(outcomes({})))
    for name in ("out", "out.csv", "out.html"):
        (tmp_path / name).mkdir()
    refused(run(*command.format("out").split(), cwd=tmp_path), "out")
    assert not [*tmp_path.glob("*.part")]


def test_the_ledger_can_come_from_the_environment(tmp_path):
    place = tmp_path / "elsewhere.db"
    place.write_text("not a database, and long enough to be read as one" * 40)
    refused(run("table", cwd=tmp_path, RILBENCH_DB=str(place)), "elsewhere.db")


def test_a_notice_is_one_line_and_the_command_goes_on(tmp_path, monkeypatch, capsys):
    import psutil

    from rilbench.cli import main

    class Mount:
        mountpoint, fstype = "/", "nfs4"

    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [Mount()])
    row = "results/nano/runs/headline/paper/untrained-0.json"
    shutil.copy(Path(__file__).parents[1] / row, tmp_path)
    monkeypatch.setattr("sys.argv", ["rilbench", "import", str(tmp_path), "--db", "l.db"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main()
    notice = capsys.readouterr().err.splitlines()[0]
    assert notice.startswith("rilbench: l.db is on a network file system (nfs4)")
