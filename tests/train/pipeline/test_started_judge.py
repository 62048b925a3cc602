"""On GPUs a run starts a language model as its judge; a stand-in has vLLM's command."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from collected import Notes
from stand_in_vllm import install

from rilbench.config import load_recipe
from rilbench.data.question_files import read_questions, write_questions
from rilbench.errors import UserError
from rilbench.paths import locate, nano_folder
from rilbench.train.pipeline import rl_stage
from rilbench.train.pipeline.cost import RunCost
from rilbench.train.pipeline.preflight import check_judge, read_inputs
from rilbench.train.pipeline.run_folder import open_run

HOLD = """
import sys, time
from pathlib import Path
from collected import Notes
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.pipeline.started_servers import judge_addresses
from rilbench.config import read_recipe
folder = Path(sys.argv[1])
with judge_addresses(Run(folder, read_recipe(folder / "recipe.yaml")), Notes()):
    print("up", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run for 6 GPUs, with a judge on 2 further ones."""
    install(tmp_path / "installed")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "8,9,10,11,12,13,14,15")
    write_questions(tmp_path / "q.parquet", read_questions(locate("nano:prompts.parquet"))[:8])
    settings = [f"judge.model={nano_folder() / '78b'}", "judge.serve=--max-model-len 99"]
    settings += [f"data.{name}={tmp_path / 'q.parquet'}" for name in ("train", "dev")]
    settings += ["schedule.prompts_per_step=6"]
    recipe = load_recipe("both", "nano", "dr-grpo", settings, "1x8-80gb-judge")
    check_judge(recipe)
    return open_run(tmp_path / "run", recipe, resume=False)


class Trainer:
    """In verl's place: looks at the judge while the run would train."""

    def __init__(self, folder, error=None):
        self.folder, self.error = folder, error

    def train(self, job, device, on_line):
        (loop,) = yaml.safe_load((self.folder / "data" / "agent_loop.yaml").read_text())
        self.asked = loop["ril"]
        self.told = told(self.folder)
        assert psutil.pid_exists(self.told[0]["pid"])
        if self.error:
            raise self.error

    def cpu_seconds(self):
        return 0.0


def told(folder):
    log = folder / "logs" / "serve-judge.log"
    return [json.loads(line) for line in log.read_text().splitlines()]


def train(run, trainer):
    inputs, notes = read_inputs(run), Notes()
    inputs.store_pictures(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rl_stage, "TrainerProcess", lambda *_: trainer)
        rl_stage.train_policy(run, inputs, RunCost(run.folder), notes)
    return notes.said


def test_the_judge_has_its_own_devices_and_ends_with_the_loop(run):
    trainer = Trainer(run.folder)
    notes = train(run, trainer)
    first, *verdicts = trainer.told
    assert first["gpus"] == "12,13,14,15"
    arguments = first["arguments"]
    assert arguments["served_model_name"] == run.recipe.judge.model
    assert (arguments["tensor_parallel_size"], arguments["data_parallel_size"]) == (1, 4)
    assert arguments["max_model_len"] == "99"
    assert trainer.asked["judge_model"] == run.recipe.judge.model
    assert trainer.asked["judge_urls"][0].startswith("http://127.0.0.1:")
    assert trainer.asked["judge_cache"] == str(run.folder.resolve() / "judge.jsonl")
    assert len(verdicts) == 1 + 8, "who it is, and its verdict on each question's gold answer"
    assert notes[0].startswith("judge: vLLM loads")
    assert any("and the rules agree on" in note for note in notes)
    assert not psutil.pid_exists(first["pid"])


@pytest.mark.parametrize("error", [UserError("stopped"), KeyboardInterrupt()])
def test_it_ends_when_the_training_fails(run, error):
    trainer = Trainer(run.folder, error)
    with pytest.raises(type(error)):
        train(run, trainer)
    assert not psutil.pid_exists(trainer.told[0]["pid"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_when_the_run_is_killed(run, number):
    support = str(Path(__file__).parents[2] / "support")
    code = f"import sys; sys.path.insert(0, {support!r})\n{HOLD}"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "up\n"
    server = psutil.Process(told(run.folder)[0]["pid"])
    holder.send_signal(number)
    holder.wait()
    deadline = time.monotonic() + 20
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    holder.stdout.close()
