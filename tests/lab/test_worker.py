"""Experiments with their processes and the real kit, by both engines."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rilbench.errors import UserError
from rilbench.lab.experiment import read_experiment
from rilbench.lab.fast.engine import FastRun
from rilbench.lab.fast.models import training_data
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.regimes import REGIMES
from rilbench.lab.run_result import read_result, write_result
from rilbench.lab.scheduler import run_experiment
from rilbench.lab.to_ledger import to_evaluation, to_run
from rilbench.ril.methods import METHODS

SMALL = """
name: small
regimes: [format]
seeds: [1, 2]
split: dev
benchmarks: [AI2D]
steps: 1
set: {schedule.prompts_per_step: 3, discriminator.pretrain_steps: 1}
runs:
  - {name: teacher-78b, model: 78b}
  - {name: ril, method: ril}
  - name: sft-accepted
    method: sft
    responses: accepted
    set: {sft.steps: 1, sft.batch_size: 4}
"""


class Silent:
    """Hears what the lab says, and calls back at a worker's first step of RIL."""

    def __init__(self, on_step=lambda: None):
        self.errors, self.said, self.on_step = [], [], on_step

    def start(self, *_):
        pass

    def worker(self, number, text):
        self.said.append(text)
        if "ril 1/" in text:
            self.on_step()

    def finished(self, *_):
        pass

    def failed(self, label, error):
        self.errors.append(error)

    def stopping(self):
        pass


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder whose regime is made, and the experiment's file."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "small.yaml").write_text(SMALL)
    return folder


@pytest.fixture
def paths(place, tmp_path):
    """Results of the test's own; the regime is made once."""
    return LabPaths(results=tmp_path / "results", work=place / "runs" / "lab")


@pytest.mark.timeout(900)
def test_an_experiment_is_run_once_and_says_what_made_it(place, paths):
    experiment, listener = read_experiment(place / "small.yaml"), Silent()
    counts = run_experiment(experiment, listener, paths, workers=2)
    assert (counts.done, counts.left) == (5, 0)
    assert any("ril 1/1" in text for text in listener.said)
    again = run_experiment(experiment, Silent(), paths, workers=1)
    assert (again.before, again.done) == (5, 0)
    results = {file.stem: read_result(file) for file in paths.runs.glob("*/*/*.json")}
    ril, sft, teacher = results["ril-1"], results["sft-accepted-1"], results["teacher-78b-0"]
    assert [each.engine for each in (ril, sft, teacher)] == ["fast", "fast", ""]
    assert {each.digest for each in results.values()} == {REGIMES["format"].digest}
    assert sft.responses == "accepted"
    assert ril.scores.keys() == {"AI2D"}
    assert ril.scores != results["ril-2"].scores or ril.curves != results["ril-2"].curves
    assert ril.cost.judge_calls == 3 * 8
    assert ril.cost.collected_tokens > sft.cost.collected_tokens > 0, "the student's count too"
    assert set(ril.cost.cpu_seconds) == {"collect", "discriminator", "ril"}
    rows = paths.work / "runs" / "small" / "format" / "ril-1" / "rollouts" / "step_1.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert all(line["image_tokens"] > 0 for line in lines)
    # In the ledger a regime's teacher is no other regime's.
    assert to_evaluation(teacher).student == "nano-format-78b"
    assert "regime: " in to_run(ril).recipe_yaml

    write_result(dataclasses.replace(ril, digest="0" * 8), paths.runs)
    with pytest.raises(UserError, match="was made from another format than the present one"):
        run_experiment(experiment, Silent(), paths)


VERL = """
name: through-verl
regimes: [format]
engine: verl
seeds: [1]
split: dev
benchmarks: [AI2D]
steps: 1
set: {schedule.prompts_per_step: 3, discriminator.pretrain_steps: 1}
runs:
  - {name: METHOD, method: METHOD}
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["ril", "gad", "opd"])
def test_verls_step_is_the_fast_engines(place, paths, method):
    """The product's path gives the responses, rewards and metrics that the engine has."""
    file = place / f"{method}.yaml"
    file.write_text(VERL.replace("METHOD", method))
    experiment = read_experiment(file)
    run_experiment(experiment, Silent(), paths, workers=1)
    result = read_result(paths.runs / "through-verl" / "format" / f"{method}-1.json")
    assert result.engine == "verl"
    run = paths.work / "runs" / "through-verl" / "format" / f"{method}-1"
    rows = [
        json.loads(line) for line in (run / "rollouts" / "step_1.jsonl").read_text().splitlines()
    ]
    (job,), regime = experiment.jobs(), REGIMES["format"]
    folder = regime.folder(paths.regimes)
    recipe = job.recipe({}, folder)
    data, costs = training_data(regime, folder, recipe, lambda _: None)
    asked = {row["question_id"] for row in rows}
    questions = [question for question in data.questions if question.id in asked]
    fast = place / f"fast-{method}"
    engine = FastRun(recipe, folder / "student", data, fast, lambda *_: None)
    batch, _ = engine.groups.sample(1, questions, engine.policy.read(questions))
    ours = zip(batch.question_id, batch.source, batch.response, batch.answer_reward, strict=True)
    expected = sorted((q, s, text, float(reward)) for q, s, text, reward in ours)
    keys = ("question_id", "source", "response", "answer_reward")
    assert sorted(tuple(row[key] for key in keys) for row in rows) == expected
    assert result.cost.sampled_tokens == sum(
        n for n, source in zip(batch.tokens, batch.source, strict=True) if source == "student"
    )
    needed = costs if METHODS[method].uses_saved_responses else {}
    assert result.cost.collected_tokens == sum(int(each["tokens"]) for each in needed.values())

    # The engine's own first step on these questions, the discriminator's pre-training included.
    engine.groups.questions = lambda _: questions
    engine.run()
    (line,), (verls,) = (
        [json.loads(line) for line in (place_of / "metrics.jsonl").read_text().splitlines()]
        for place_of in (fast, run)
    )
    for name in line.keys() & verls.keys():
        assert verls[name] == pytest.approx(line[name], rel=1e-3, abs=1e-4), name
    assert {"gad": "discriminator_score_student", "opd": "teacher_kl"}.get(method, "kl") in line


def workers_of(pid):
    """The processes of the workers below a process."""
    children = psutil.Process(pid).children()
    return [each for each in children if "spawn_main" in " ".join(each.cmdline())]


@pytest.mark.timeout(600)
def test_a_worker_that_is_killed_is_one_line(place, paths):
    def kill():
        for process in workers_of(os.getpid()):
            process.kill()

    listener = Silent(kill)
    with pytest.raises(UserError, match=r"the process of worker 1 has ended; .* call again"):
        run_experiment(read_experiment(place / "small.yaml"), listener, paths, workers=1)
    assert [file.stem for file in paths.runs.glob("*/*/*.json")] == ["teacher-78b-0"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_lets_the_run_finish_and_a_kill_leaves_no_process(place, tmp_path, kind):
    (tmp_path / "runs").symlink_to(place / "runs")
    command = [sys.executable, "-m", "rilbench", "lab", "run", str(place / "small.yaml")]
    log = tmp_path / "log"
    with log.open("w") as sink:
        lab = subprocess.Popen(
            [*command, "--workers", "1"],
            cwd=tmp_path,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    runs = tmp_path / "results" / "nano" / "runs" / "small" / "format"
    while "worker 1: format/ril-1" not in log.read_text():  # the next run has begun
        assert lab.poll() is None, log.read_text()
        time.sleep(0.02)
    (worker,) = workers_of(lab.pid)
    if kind == signal.SIGINT:
        os.killpg(lab.pid, kind)  # as a terminal does: every process of the group hears it
    else:
        lab.kill()
    lab.wait(timeout=300)
    worker.wait(timeout=120)
    found = sorted(file.stem for file in runs.glob("*.json"))
    if kind == signal.SIGINT:
        assert len(found) == 2, log.read_text()
        assert "stopping after the running jobs" in log.read_text()
    else:
        assert found == ["teacher-78b-0"]
