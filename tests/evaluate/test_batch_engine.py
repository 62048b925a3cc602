"""Batched answers against the same model asked one question at a time."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from one_file import one_file
from PIL import Image

from rilbench.checkpoint import inspect_checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.batch_engine import OfflineModel, answer_in_batches, batches
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.prompts import BenchmarkQuestion, PromptSet
from rilbench.evaluate.responses import open_answers
from rilbench.evaluate.run import evaluate
from rilbench.evaluate.suite import find_suite
from rilbench.paths import locate, nano_folder
from rilbench.serving import Sampling

SAMPLING = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def prompts(data: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptSet:
    """Eleven prompts: without a picture, with one, with two between words, of several lengths."""
    found = PromptSet(find_suite("nano").datasets, data, tmp_path_factory.mktemp("c"), "kit", None)
    found.folder.mkdir(parents=True)
    table = pd.read_csv(data / "MMStar.tsv", sep="\t")
    for i in range(4):
        (found.folder / f"{i}.png").write_bytes(base64.b64decode(table["image"][i]))
    layouts = [
        ["Which digits are in the top row, {}?"],
        ["0", "Describe the picture: which digits does it show?"],
        ["0", "What number do the digits in the top row form? {} " * 4],
        ["Which digit of ", "1", " is larger than {} of ", "2"],
    ]
    with (found.folder / "questions.jsonl").open("w") as file:
        for i in range(11):
            parts = [
                {"type": "image", "path": f"{(int(part) + i) % 4}.png"}
                if part.isdecimal()
                else {"type": "text", "text": part.replace("{}", f"digit {i}")}
                for part in layouts[i % 4]
            ]
            row = {"dataset": "MMStar", "question_id": str(i), "group": str(i), "truth": "A"}
            file.write(json.dumps({**row, "category": None, "parts": parts}) + "\n")
    return found


@pytest.fixture(scope="module")
def model() -> OfflineModel:
    return OfflineModel(inspect_checkpoint(locate("nano:72b")))


def one_by_one(
    model: OfflineModel, prompts: PromptSet, question: BenchmarkQuestion
) -> tuple[str, int]:
    """The answer as ``transformers serve`` computes it: text, and length in tokens."""
    content: list[dict[str, Any]] = [
        {"type": "image", "url": str(prompts.folder / part["path"])}
        if part["type"] == "image"
        else part
        for part in question.parts
    ]
    inputs = model.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    tokens = model.model.generate(**inputs, do_sample=False, max_new_tokens=SAMPLING.max_tokens)
    new = tokens[0, inputs["input_ids"].shape[1] :]
    return model.processor.decode(new, skip_special_tokens=True), len(new)


def test_a_batch_answers_as_each_question_alone(model: OfflineModel, prompts: PromptSet) -> None:
    expected = [one_by_one(model, prompts, question) for question in prompts.questions]
    found = model.answer(prompts, prompts.questions, SAMPLING)
    assert [(each.text, each.completion_tokens) for each in found] == expected
    assert len({text for text, _ in expected}) > 3
    cut = {each.completion_tokens for each in found if each.finish_reason == "length"}
    assert cut <= {SAMPLING.max_tokens}
    assert all(each.seconds > 0 for each in found)


def test_an_answer_ends_at_its_end_token(model: OfflineModel, prompts: PromptSet) -> None:
    longest = Sampling(max_tokens=200)
    found = model.answer(prompts, prompts.questions, longest)
    lengths = [each.completion_tokens for each in found if each.finish_reason == "stop"]
    # Answers of several lengths in one batch, none of them with its padding.
    assert len(set(lengths)) > 2
    for question, each in zip(prompts.questions, found, strict=True):
        (alone,) = model.answer(prompts, [question], longest)
        assert (alone.text, alone.completion_tokens) == (each.text, each.completion_tokens)


def broken(
    prompts: PromptSet, data: Path, folder: Path, bad: dict[str, list[dict[str, Any]]]
) -> PromptSet:
    """The same prompts, some with other parts."""
    found = PromptSet(find_suite("nano").datasets, data, folder, "kit", None)
    shutil.copytree(prompts.folder, found.folder)
    Image.new("RGB", (8000, 1)).save(found.folder / "line.png")
    rows = [json.loads(line) for line in (found.folder / "questions.jsonl").open()]
    changed = [{**row, "parts": bad.get(row["question_id"], row["parts"])} for row in rows]
    (found.folder / "questions.jsonl").write_text("\n".join(map(json.dumps, changed)) + "\n")
    return found


def test_what_the_processor_refuses_is_that_questions_failure(
    model: OfflineModel, prompts: PromptSet, data: Path, tmp_path: Path
) -> None:
    line = [{"type": "image", "path": "line.png"}, {"type": "text", "text": "What is it?"}]
    mark = [{"type": "image", "path": "0.png"}, {"type": "text", "text": "<|image_pad|>?"}]
    bad = {"1": line, "6": mark}
    found = broken(prompts, data, tmp_path / "c", bad)
    whole = answer_all(model, prompts, tmp_path / "whole.jsonl", lambda _: None)
    for _ in range(2):  # A resume ends, too.
        path = tmp_path / "part.jsonl"
        with open_answers(one_file(path)) as answers:
            answer_in_batches(model, found, answers, lambda _: SAMPLING, 4, lambda _: None)
            assert {q.question_id for q in answers.missing(found.questions)} == set(bad)
            reason = answers.found["MMStar", "1"].finish_reason
            assert "processor refuses it: absolute aspect ratio" in reason
            texts = {key: each.text for key, each in answers.found.items() if key[1] not in bad}
            assert texts == {key: text for key, text in whole.items() if key[1] not in bad}
    every = [question for question in found.questions if question.question_id in bad]
    assert all(each.failed for each in model.answer(found, every, SAMPLING))


def test_batches_go_by_length_and_hold_everything_once(prompts: PromptSet) -> None:
    found = batches(prompts.questions, 4)
    assert [len(batch) for batch in found] == [4, 4, 3]
    keys = [question.key for batch in found for question in batch]
    assert sorted(keys) == sorted(question.key for question in prompts.questions)
    pictures = [
        sum(part["type"] == "image" for part in question.parts)
        for batch in found
        for question in batch
    ]
    assert pictures == sorted(pictures)
    assert batches(list(reversed(prompts.questions)), 4) == found


def answer_all(
    model: OfflineModel, prompts: PromptSet, path: Path, report: Callable[[int], None]
) -> dict[Any, str]:
    with open_answers(one_file(path)) as answers:
        answer_in_batches(model, prompts, answers, lambda _: SAMPLING, 4, report)
        return {key: completion.text for key, completion in answers.found.items()}


def test_a_stopped_evaluation_loses_one_batch_and_ends_the_same(
    model: OfflineModel, prompts: PromptSet, tmp_path: Path
) -> None:
    seen: list[int] = []
    whole = answer_all(model, prompts, tmp_path / "whole.jsonl", seen.append)
    assert seen == [4, 8, 11]

    class StopError(Exception):
        pass

    def stop(done: int) -> None:
        if done == 8:
            raise StopError

    with pytest.raises(StopError):
        answer_all(model, prompts, tmp_path / "part.jsonl", stop)
    # A kill within the write of the second batch, too: seven answers are whole.
    content = (tmp_path / "part.jsonl").read_bytes().splitlines(keepends=True)
    assert len(content) == 8
    (tmp_path / "part.jsonl").write_bytes(b"".join(content[:7]) + content[7][:9])
    seen.clear()
    assert answer_all(model, prompts, tmp_path / "part.jsonl", seen.append) == whole
    assert seen == [8, 11]


def test_a_model_that_cannot_be_loaded_is_named(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in checkpoint.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    config = json.loads((broken / "config.json").read_text())
    found = inspect_checkpoint(broken)
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}))
    with pytest.raises(UserError, match=r"transformers cannot load .*broken"):
        OfflineModel(found)


@pytest.mark.slow
def test_batches_and_server_agree_on_what_ships(tmp_path: Path) -> None:
    student, data = locate("nano:72b"), nano_folder() / "benchmarks"
    texts = []
    for engine in ("server", "batch"):
        plan = EvalOptions("nano", data, tmp_path / engine, limit=40, engine=engine)  # type: ignore[arg-type]
        texts.append([sample.response for sample in evaluate(student, plan).samples])
    same = sum(a == b for a, b in zip(*texts, strict=True))
    assert same >= 0.99 * len(texts[0])


def test_two_threads_may_be_the_first_to_load_a_model(checkpoint: Path) -> None:
    """Two workers of the lab may be; transformers' lazy modules do not support it."""
    code = (
        "import sys, threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from pathlib import Path\n"
        "from rilbench.checkpoint import inspect_checkpoint\n"
        "from rilbench.evaluate.batch_engine import OfflineModel\n"
        "model = inspect_checkpoint(Path(sys.argv[1]))\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    print(len([*pool.map(OfflineModel, [model] * 4)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "4\n", done.stderr


def test_a_batch_that_the_memory_does_not_hold_is_halved(
    model: OfflineModel, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that holds three questions at a time; and one that holds none."""
    import torch

    whole = model.answer(prompts, prompts.questions, SAMPLING)
    generate, sizes, room = model.model.generate, [], 3

    def small(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**inputs)

    monkeypatch.setattr(model.model, "generate", small)
    found = model.answer(prompts, prompts.questions, SAMPLING)
    assert [each.text for each in found] == [each.text for each in whole]
    assert sizes == [11, 5, 2, 3, 6, 3, 3]
    room = 0
    with pytest.raises(UserError, match="too small for one question; use --engine server"):
        model.answer(prompts, prompts.questions, SAMPLING)
