"""Training on the real vLLM, on a CPU: ``make test-vllm``.

vLLM serves the teacher while its responses are collected, then samples in the loop, through verl's
own server of it, in an environment that has both.
"""

import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rilbench.data.question_files import Question, read_questions
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate
from rilbench.judge.client import JudgeClient
from rilbench.judge.rules import is_right
from rilbench.nano.model import load
from rilbench.paths import locate, nano_folder
from rilbench.serving import serve

ROOT = Path(__file__).parents[2]
VLLM = Path(os.environ.get("VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def settings() -> Iterator[None]:
    """vLLM takes the memory for its cache from a variable, and else binds threads to cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        yield


def train(folder: Path, *arguments: str, run: str = "r") -> str:
    """``rilbench train`` in the environment that has vLLM; what it says."""
    command = [VLLM, "-m", "rilbench", "train", "--recipe", "72b", "--student", "nano"]
    command += ["--run", run, "--steps", f"{STEPS}", "--eval-every", f"{STEPS}"]
    command += ["--set", "collection.folder=collection"]
    # A rate with which three steps change what the student says.
    command += ["--set", "hardware.rollout_engine=vllm", "--set", "policy.lr=0.002", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ
    )
    log = folder / "runs" / run / "logs" / "trainer.log"
    assert done.returncode == 0, (
        done.stdout,
        done.stderr,
        log.exists() and log.read_text()[-3000:],
    )
    return done.stdout


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with a run whose responses were collected; the run's settings."""
    folder = tmp_path_factory.mktemp("run")
    with serve(locate("nano:72b"), log=folder / "log", timeout=600, vllm=VLLM) as server:
        # The student's come from a server that the run starts: of two vLLMs on two cores one hung.
        said = ["--set", f"collection.endpoints.72b={server.model}@{server.base_url}"]
        said += ["--set", "collection.student_responses=1"]
        train(folder, "--collect-only", *said)
    return folder, said


@pytest.mark.timeout(1200)
def test_the_teachers_responses_are_collected(collected: tuple[Path, list[str]]) -> None:
    folder = collected[0] / "collection"
    (own,) = folder.glob("student-*.parquet")
    tables = {"72b": pq.read_table(folder / "72b.parquet"), "student": pq.read_table(own)}
    questions = {q.id: q for q in read_questions(nano_folder() / "prompts.parquet")}
    right = {}
    for name, table in tables.items():
        rows = table.to_pylist()
        assert {row["question_id"] for row in rows} == set(questions)
        assert not any(row["failure"] for row in rows)
        assert all(row["tokens"] > 0 for row in rows)
        verdicts = [is_right(questions[row["question_id"]].answer, row["response"]) for row in rows]
        right[name] = sum(verdicts) / len(rows)
    assert right["72b"] > 0.7 > right["student"]  # the models themselves, pictures and all


def greedy(checkpoint: Path, questions: list[Question]) -> float:
    """Share of right answers by transformers."""
    model, processor = load(checkpoint)
    right = 0
    for question in questions:
        text = processor.apply_chat_template(
            question.chat, add_generation_prompt=True, tokenize=False
        )
        images = [Image.open(io.BytesIO(image)).convert("RGB") for image in question.images]
        inputs = processor(text=[text], images=images, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        said = processor.tokenizer.decode(
            out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        right += is_right(question.answer, said)
    return right / len(questions)


@pytest.mark.timeout(1800)
def test_the_loop_samples_with_vllm_and_with_the_policys_new_weights(
    collected: tuple[Path, list[str]],
) -> None:
    folder, settings = collected
    train(folder, "--resume", *settings)
    run = folder / "runs" / "r"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    assert "vLLM" in (run / "logs" / "trainer.log").read_text()
    dev = read_questions(nano_folder() / "dev.parquet")
    # vLLM had the weights of each update: the student, which had answered in a few tokens, began to
    # write sentences; and after the last it is right as often as by transformers.
    assert steps[-1]["tokens_student"] > 2 * steps[0]["tokens_student"]
    assert steps[-1]["dev_accuracy"] == pytest.approx(greedy(run / "checkpoint", dev), abs=0.02)


def responses(checkpoint: Path, work: Path, **options: Any) -> dict[str, str]:
    """The checkpoint's responses to a benchmark's questions."""
    data = nano_folder() / "benchmarks"
    found = evaluate(checkpoint, EvalOptions("nano", data, work, benchmarks=("MMStar",), **options))
    return {sample.question_id: sample.response for sample in found.samples}


@pytest.mark.timeout(1800)
def test_an_adapter_is_sampled_and_its_export_is_served(
    collected: tuple[Path, list[str]],
) -> None:
    folder, settings = collected
    lora = ("--set", "policy.lora_rank=8", "--set", "discriminator.lora_rank=8")
    train(folder, *settings, *lora, run="lora")
    run = folder / "runs" / "lora"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == STEPS
    # The weights that vLLM samples from are those with the adapter of the last update.
    assert steps[-1]["tokens_student"] != steps[0]["tokens_student"]
    dev = read_questions(nano_folder() / "dev.parquet")
    assert steps[-1]["dev_accuracy"] == pytest.approx(greedy(run / "checkpoint", dev), abs=0.02)
    by_vllm = responses(run / "checkpoint", folder / "vllm", vllm=VLLM)
    by_transformers = responses(run / "checkpoint", folder / "batch", engine="batch")
    assert len(by_vllm) == 100
    assert by_vllm.keys() == by_transformers.keys()
    same = sum(by_vllm[question] == by_transformers[question] for question in by_vllm)
    assert same >= 98, "greedy, but for ties in the last digit"


async def _verdicts(url: str, model: str) -> list[float | None]:
    async with JudgeClient(url, model, "none", retries=1) as judge:
        return [(await judge.verdict("1 + 1?", "2", said)).value for said in ("2", "3")]


@pytest.mark.timeout(1200)
def test_a_judge_behind_vllm_is_asked_and_what_is_no_verdict_is_none(tmp_path: Path) -> None:
    """A student is no judge: its words reach us, and none of them is taken for a verdict."""
    import asyncio

    with serve(locate("nano:restyled"), log=tmp_path / "log", timeout=600, vllm=VLLM) as server:
        assert asyncio.run(_verdicts(server.base_url, server.model)) == [None, None]
