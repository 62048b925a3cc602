"""The evaluation's judge: training's, asked at its address, or started on the node's devices."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from collected import Notes
from stand_in_vllm import install
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.config import load_recipe
from rilbench.config.run_file import RunFile, read_run_file
from rilbench.errors import UserError
from rilbench.evaluate.judge_session import Judge
from rilbench.paths import locate, nano_folder
from rilbench.train.pipeline.run_folder import Run, open_run
from rilbench.whole_run.evaluation_judge import judge_for, judge_needs
from rilbench.whole_run.execute import train_and_evaluate
from rilbench.whole_run.plan import evaluation_options, plan_whole_run

JUDGE = "Qwen/Qwen2.5-32B-Instruct"
HOLD = """
import sys, time
from pathlib import Path
from collected import Notes
from rilbench.config import read_recipe
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.options import read_options
from rilbench.train.pipeline.run_folder import Run
from rilbench.whole_run.evaluation_judge import judge_for
folder = Path(sys.argv[1])
run = Run(folder, read_recipe(folder / "recipe.yaml"))
options = read_options()
options.__dict__["judge"] = Judge((), run.recipe.judge.model)
with judge_for(run, options, Notes()):
    print("up", flush=True)
    time.sleep(60)
"""


def paper(tmp_path, *settings, **names):
    file = read_run_file("paper", names, settings)
    return file, evaluation_options(file, tmp_path / "r.db")


@pytest.mark.parametrize(
    ("settings", "judge"),
    [
        ([], Judge((), JUDGE)),
        (["judge.url=http://j:1/v1"], Judge("http://j:1/v1", JUDGE)),
        (
            ["judge.url=[http://j:1/v1, http://k:1/v1]"],
            Judge(("http://j:1/v1", "http://k:1/v1"), JUDGE),
        ),
        (["eval.judge=other@http://o:1/v1"], Judge("http://o:1/v1", "other")),
        (["eval.judge=exact"], Judge()),
        (["eval.benchmarks=MMStar"], Judge()),
        (["eval.suite=nano"], Judge()),
        (["judge.model=rule"], Judge()),
    ],
)
def test_trainings_judge_decides_where_none_is_named_and_one_is_needed(tmp_path, settings, judge):
    _, options = paper(tmp_path, *settings)
    assert options.judge == judge


@pytest.mark.parametrize(
    ("hardware", "judge_devices", "words"),
    [
        ("1x8-80gb-judge", 4, "--tensor-parallel-size 2 --data-parallel-size 2"),
        ("1x8-80gb", 4, "--tensor-parallel-size 2 --data-parallel-size 2"),
        ("4x8-80gb", 4, f"--served-model-name {JUDGE}"),
    ],
)
def test_the_dry_run_has_its_command_line(hardware, judge_devices, words):
    command = ["run", "paper", "--hardware", hardware, "--dry-run"]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "500"})
    assert done.exit_code == 0, done.output
    (line,) = [x for x in done.output.splitlines() if "judge: started before it" in x]
    assert f"on {judge_devices} of the node's 8 devices" in line
    assert words in line
    assert "missing: eval.judge" not in done.output


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["hardware.devices=1"], "has one device for it and the student; serve it and set eval."),
        (["hardware.devices=2", "hardware.memory_gib=40"], "is 61 GiB in bf16"),
    ],
)
def test_what_it_lacks_is_missing_in_the_plan(tmp_path, settings, words):
    file, options = paper(tmp_path, *settings)
    needs = judge_needs(file.recipe)
    assert words in needs
    assert f"eval.judge={JUDGE}@URL" in needs
    assert needs in plan_whole_run(file, options).missing


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run that had 4 GPUs and a judge on 4 further ones."""
    install(tmp_path / "installed")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "8,9,10,11,12,13,14,15")
    settings = [f"judge.model={nano_folder() / '78b'}", "judge.serve=--max-model-len 99"]
    settings += ["schedule.prompts_per_step=6"]
    recipe = load_recipe("both", "nano", "dr-grpo", settings, "1x8-80gb-judge")
    made = open_run(tmp_path / "run", recipe, resume=False)
    shutil.copytree(locate(recipe.student.model), made.checkpoint)
    labels = {"student": "nano", "method": "dr-grpo", "teacher": "both"}
    (made.checkpoint / "rilbench.json").write_text(json.dumps(labels))
    return made


def options_of(run, folder):
    """Of an evaluation on the nano suite, with a judge to start."""
    file = RunFile(run.recipe, "run", {"suite": "nano", "benchmarks": "MMStar", "limit": 2}, {})
    options = evaluation_options(file, folder / "r.db")
    judge = Judge((), run.recipe.judge.model)
    return file, replace(options, work=folder / "eval", judge=judge)


def told(folder):
    log = folder / "logs" / "serve-eval-judge.log"
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.slow  # a kit and a student's server
def test_a_finished_run_is_evaluated_with_a_judge_that_it_starts_and_stops(run, tmp_path):
    file, options = options_of(run, tmp_path)
    notes = Notes()
    evaluations = train_and_evaluate(file, run.folder, options, notes, lambda _: None)
    assert len(evaluations) == 2
    assert {x.settings["judge"]["name"] for x in evaluations} == {run.recipe.judge.model}
    first, *_ = told(run.folder)
    assert first["gpus"] == "12,13,14,15"
    assert first["arguments"]["data_parallel_size"] == 4
    assert first["arguments"]["max_model_len"] == "99"
    assert not psutil.pid_exists(first["pid"])
    assert any(note.startswith("eval-judge: vLLM loads") for note in notes.said)


def test_students_have_the_other_devices(run, tmp_path):
    with judge_for(run, options_of(run, tmp_path)[1], Notes()) as options:
        assert options.gpus == 4
        assert options.judge.url.startswith("http://127.0.0.1:")
        assert options.judge.model == run.recipe.judge.model


@pytest.mark.parametrize("error", [UserError("stopped"), KeyboardInterrupt()])
def test_it_ends_when_the_evaluation_fails(run, tmp_path, error):
    servers = []

    def fail():
        with judge_for(run, options_of(run, tmp_path)[1], Notes()):
            servers.append(psutil.Process(told(run.folder)[0]["pid"]))
            raise error

    with pytest.raises(type(error)):
        fail()
    assert not servers[0].is_running()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_when_the_run_is_killed(run, number):
    support = str(Path(__file__).parents[1] / "support")
    code = f"import sys; sys.path.insert(0, {support!r})\n{HOLD}"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "up\n"
    server = psutil.Process(told(run.folder)[0]["pid"])
    holder.send_signal(number)
    holder.wait()
    deadline = time.monotonic() + 30
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    holder.stdout.close()


def test_a_judge_that_cannot_be_started_stops_the_run_before_it_begins(run, tmp_path):
    file, options = options_of(run, tmp_path)
    recipe = load_recipe("both", "nano", "dr-grpo", ["judge.model=missing/judge"], "1x8-80gb-judge")
    fresh = tmp_path / "fresh"
    with pytest.raises(UserError, match=r"judge\.model"):
        train_and_evaluate(replace(file, recipe=recipe), fresh, options, Notes(), lambda _: None)
    assert not fresh.exists()
    assert Run(fresh, recipe).finished is False
