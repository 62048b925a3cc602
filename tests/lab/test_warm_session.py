"""Runs in a warm session against runs in processes of their own, through the real verl."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from fake_judge import fake_judge, says
from safetensors.torch import load_file

from rilbench.config import load_recipe
from rilbench.data.question_files import read_questions, write_questions
from rilbench.errors import UserError
from rilbench.lab.warm_session import WarmSession
from rilbench.paths import locate
from rilbench.train.pipeline import stages as stages

FIGURES = (
    "policy_loss",
    "kl",
    "answer_reward_student",
    "similarity_reward_student",
    "tokens_student",
)
DISCRIMINATOR = ("discriminator_accuracy", "discriminator_loss", "discriminator_weights_scoring")


class NoView:
    def __init__(self):
        self.lines = []

    def stage(self, name, state):
        pass

    def answers(self, model, done, total):
        pass

    def note(self, text):
        pass

    def line(self, kind, values):
        self.lines.append((kind, values))


class MoodyJudge:
    """Decides by the text's hash, mumbles now and then; refuses as soon as a file exists."""

    def __init__(self):
        self.dies_with = None

    def __call__(self, body):
        if self.dies_with is not None and self.dies_with.exists():
            return 401, b"dead"
        content = str(body["messages"]).encode()
        if b"What is 1 + 1?" in content:
            return says("<answer>1</answer>")
        drawn = hashlib.sha256(content).digest()[0]
        return says("Hm." if drawn % 8 == 0 else f"<answer>{drawn % 2}</answer>")


class KillAfterAStep(NoView):
    def __init__(self, session):
        super().__init__()
        self.session = session

    def line(self, kind, values):
        if kind == "ril" and values["step"] == 1:
            os.killpg(trainer_of(self.session).pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Eight questions, and a folder for the collection that all runs share."""
    folder = tmp_path_factory.mktemp("session")
    questions = folder / "questions.parquet"
    write_questions(questions, read_questions(locate("nano:prompts.parquet"))[:8])
    return folder


def new_run(shared, name, *more, method="ril"):
    settings = [
        f"data.train={shared / 'questions.parquet'}",
        f"data.dev={shared / 'questions.parquet'}",
        f"collection.folder={shared / 'collection'}",
        "collection.student_responses=1",
        "discriminator.pretrain_steps=2",
        "discriminator.pretrain_batch_size=16",
        "schedule.prompts_per_step=4",
        "schedule.steps=2",
        "schedule.save_every=1",
    ]
    recipe = load_recipe("both", "nano", method, [*settings, *more])
    return stages.open_run(shared / "runs" / name, recipe, resume=False)


def records(run):
    """Everything that a run learned from and arrived at, without times."""
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    names = FIGURES + (DISCRIMINATOR if run.recipe.method_spec.uses_discriminator else ())
    figures = [[json.loads(line)[name] for name in names] for line in lines]
    rows = [path.read_text() for path in sorted((run.folder / "rollouts").iterdir())]
    weights = (run.checkpoint / "model.safetensors").read_bytes()
    return figures, rows, weights


def trainer_of(session):
    return psutil.Process(session._process._guard.pid)


@pytest.mark.timeout(1500)
@pytest.mark.slow
def test_a_run_in_a_warm_session_is_the_run_in_a_process_of_its_own(shared):
    alone = [new_run(shared, "alone-ril"), new_run(shared, "alone-dr-grpo", method="dr-grpo")]
    for run in alone:
        stages.train(run, NoView())
    with WarmSession(shared / "session.log") as session:
        first = new_run(shared, "first", "seed=7", "group_size=2", "policy.kl_coef=0")
        stages.train(first, NoView(), session=session)
        process = trainer_of(session)
        warm = [new_run(shared, "warm-dr-grpo", method="dr-grpo"), new_run(shared, "warm-ril")]
        for run in warm:
            started, used = time.monotonic(), session.cpu_seconds()
            stages.train(run, NoView(), session=session)
            assert 0 < session.cpu_seconds() - used < 4 * (time.monotonic() - started)
        assert trainer_of(session) == process, "all runs were trained in one process"
    assert not process.is_running()
    assert records(warm[1]) == records(alone[0])
    assert records(warm[0]) == records(alone[1])
    assert records(first) != records(alone[0])


@pytest.mark.timeout(1500)
@pytest.mark.slow
def test_a_failure_ends_neither_the_session_nor_what_comes_after(shared):
    with WarmSession(shared / "session.log", threads=1) as session:
        # The session's first run has no discriminator; a later one has.
        stages.train(new_run(shared, "a", method="dr-grpo"), NoView(), session=session)
        process = trainer_of(session)

        # A judge that dies in the middle stops the run; when it is back, the run goes on.
        with fake_judge(moody := MoodyJudge(), ["judge"]) as judge:
            settings = (f"judge.url={judge.url}", "judge.model=judge", "judge.max_missing=0.4")
            bad = new_run(shared, "bad", *settings)
            moody.dies_with = bad.folder / "metrics.jsonl"  # With the end of step 1.
            with pytest.raises(UserError, match="step 2: the judge gave no verdict on"):
                stages.train(bad, NoView(), session=session)
            assert trainer_of(session) == process
            assert [path.name for path in (bad.folder / "steps").iterdir()] == ["global_step_1"]
            kept = len((bad.folder / "judge.jsonl").read_text().splitlines())
            moody.dies_with = None
            stages.train(bad, NoView(), session=session)
        lines = [json.loads(x) for x in (bad.folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2]
        assert lines[0]["missing_verdicts"] > 0, "that alone stops nothing"
        assert lines[0]["advantage_group_sum_max"] < 1e-5
        decided = [json.loads(x)["key"] for x in (bad.folder / "judge.jsonl").open()]
        assert len(decided) > kept > 0
        assert len(set(decided)) == len(decided), "each was decided once"
        good = new_run(shared, "good")
        stages.train(good, NoView(), session=session)
        assert trainer_of(session) == process

        # Killed in the middle of a run: the next run gets a new process, and resumes.
        for method in ("ril", "dr-grpo"):
            killed = new_run(shared, f"killed-{method}", "schedule.steps=3", method=method)
            with pytest.raises(UserError, match="stopped"):
                stages.train(killed, KillAfterAStep(session), session=session)
            before = session.cpu_seconds()
            stages.train(killed, NoView(), session=session)
            assert session.cpu_seconds() > before > 0
            steps = (killed.folder / "metrics.jsonl").read_text().splitlines()
            assert [json.loads(line)["step"] for line in steps] == [1, 2, 3]
        again = new_run(shared, "again")
        stages.train(again, NoView(), session=session)
        assert records(again) == records(good)


def test_a_process_that_cannot_start_says_so(tmp_path):
    """The real process, which a broken job stops before it starts verl."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("- not a recipe\n")
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"run_dir": str(folder), "resume_from": "", "model": ""}))
    with WarmSession(tmp_path / "session.log") as session:
        with pytest.raises(UserError, match="not a resolved recipe"):
            session.train(job, "cpu", lambda kind, values: None)
        assert trainer_of(session).is_running(), "it can take another job"
        assert session.cpu_seconds() > 0
        Path(job).write_text(json.dumps({"run_dir": str(folder)}))
        trainer_of(session).children()[0].kill()
        with pytest.raises(UserError, match="status"):
            session.train(job, "cpu", lambda kind, values: None)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_frozen_part_keeps_its_weights_and_the_others_move(shared):
    start = load_file(locate("nano:restyled") / "model.safetensors")
    names = {"attention": ".self_attn.", "embedding": ".embed_tokens."}
    with WarmSession(shared / "session.log") as session:
        for part, name in names.items():
            run = new_run(shared, part, f"policy.freeze={part}", method="dr-grpo")
            stages.train(run, NoView(), session=session)
            end = load_file(run.checkpoint / "model.safetensors")
            kept = {n for n in start if torch.equal(start[n], end[n])}
            assert kept == {n for n in start if name in n}
            assert 0 < len(kept) < len(start)
