"""Replies that are no answers, that the kit's rules cannot read, or that never come: real kit."""

# ruff: noqa: RUF001  The full-width marks are what is tested.

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_judge import FakeJudge, fake_judge
from PIL import Image

from rilbench.cli.score_report import print_scores, refuse_unscored
from rilbench.errors import UserError
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.kit_session import Kit
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate_many
from rilbench.ledger import Evaluation, Ledger

Reply = str | dict[str, Any]

CHOICES = [
    "B", "B.", "(B)", "**B**", r"\boxed{B}", "答案是 B", "答案是B。", "B。",
    "<think>Option A is red, it may be C.</think>\n\nB",
    "<think>It may be A, or C.</think>\n<answer>B</answer>",
    "Let me look. The box is green.\n\nAnswer: B", "The answer is (B).", "B: green", "B) green",
    "green", "A or B", "I cannot answer.", "A box is shown, and it is green, so B",
    "Answer: B\n\nExplanation: A would be red.", "", "B B B B B", "**Answer:** B",
    r"$\boxed{\text{B}}$", "[B]", "（B）", "Ｂ", "B、green", "Option B",
    "The correct option is B because the box is green and not red, blue or pink, as one can see.",
    r"Final answer: \(\boxed{B}\)", "### Answer\nB", "'B'", "B/green", "答案：B",
    "<answer>B</answer>", "B - green", "A: red\nB: green\nC: blue\nD: pink\nAnswer: B", "Z", "E",
    "The answer is not A, it is B.",
]  # fmt: skip
"""One choice, B where it is one, in the forms that users report."""
NO_CHOICE = {"A or B", "I cannot answer.", "", "Z", "E"}

ODD: list[tuple[Reply, str]] = [
    ({"content": None, "reasoning_content": "The box is green, so B"}, "only reasoning"),
    ({"content": [{"type": "text", "text": "B"}]}, "B"),
    ({"content": None, "finish": "content_filter"}, "content_filter"),
    ({"content": "<think>it is green, but wait", "finish": "length"}, "only reasoning"),
    ({"content": "B", "finish": "length"}, "B"),
    ({"content": None, "refusal": "I cannot help with that."}, "refusal"),
    ({"content": None, "tool_calls": [{"id": "1"}], "finish": "tool_calls"}, "tool call"),
    ({"content": "", "finish": "length"}, "cut"),
    ("   ", "empty"),
    ("", "silent"),
    ("B", "B"),
]
"""A reply, and its answer or why it is none."""


def picture(number: int) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (56, 56), (40 * number % 255, 90, 200)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def choice_rows(mark: str, count: int, **fields: Any) -> list[dict[str, Any]]:
    colours = dict(zip("ABCD", ("red", "green", "blue", "pink"), strict=True))
    return [
        {"index": n, "image": picture(n), "question": f"#{mark}{n}# Which colour is it?"}
        | {**colours, "answer": "B", "category": "Colour", **fields}
        for n in range(count)
    ]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{name}.tsv", sep="\t", index=False)


def by_mark(replies: Mapping[str, Reply], default: Reply = "B") -> Callable[..., tuple[int, bytes]]:
    """A server that answers by the ``#mark#`` in the question."""

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        found = re.search(r"#(\w+)#", json.dumps(body["messages"][-1]))
        reply = replies.get(found[1] if found else "", default)
        reply = {"content": reply} if isinstance(reply, str) else dict(reply)
        if "status" in reply:
            return reply["status"], json.dumps({"error": {"message": reply["why"]}}).encode()
        choice = {"finish_reason": reply.pop("finish", "stop"), "message": reply}
        tokens = 1 if reply.get("content") == "" and choice["finish_reason"] == "stop" else 5
        usage = {"prompt_tokens": 9, "completion_tokens": tokens}
        return 200, json.dumps({"model": "fake", "choices": [choice], "usage": usage}).encode()

    return answer


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    with Kit(tmp_path_factory.mktemp("kit") / "kit.log") as it:
        yield it


def evaluated(
    url: str, folder: Path, names: str, kit: Kit | None = None, **more: Any
) -> Evaluation:
    plan = EvalOptions(
        suite="paper",
        data=folder / "data",
        work=folder / "work",
        db=folder / "scores.db",
        endpoint=f"fake@{url}",
        benchmarks=tuple(names.split(",")),
        **more,
    )
    (found,) = evaluate_many([], plan, kit=kit)
    return found


def test_what_is_no_answer_and_what_the_rules_cannot_read_are_counted(
    kit: Kit, tmp_path: Path
) -> None:
    write(tmp_path / "data", "AI2D_TEST", choice_rows("c", len(CHOICES)))
    write(tmp_path / "data", "RealWorldQA", choice_rows("r", len(ODD)))
    words = choice_rows("s", 3, answer="A")
    words[0]["A"], words[1]["A"], words[2]["D"] = "None", "NA", "null"
    write(tmp_path / "data", "SEEDBench_IMG", words)
    replies: dict[str, Reply] = {f"c{n}": text for n, text in enumerate(CHOICES)}
    replies |= {f"r{n}": reply for n, (reply, _) in enumerate(ODD)}
    replies |= {f"s{n}": "A" for n in range(3)}
    with fake_judge(by_mark(replies)) as server:
        found = evaluated(server.url, tmp_path, "AI2D,SEED,RWQA", kit)
        prompts = [json.dumps(body["messages"]) for body in server.seen]
    assert ["A. None" in p for p in prompts].count(True) == 1
    assert ["A. NA" in p for p in prompts].count(True) == 1
    assert ["D. null" in p for p in prompts].count(True) == 1
    choices, seed, odd = found.scores
    assert seed.value == 100.0

    by_text = {CHOICES[int(s.question_id)]: s for s in found.samples if s.benchmark == "AI2D"}
    says_b = len(CHOICES) - len(NO_CHOICE)
    reading = found.reading("AI2D")
    assert (choices.missing, reading.silent, reading.reasoning) == (0, 1, 2)
    unread = {text for text, s in by_text.items() if s.extracted == "-" and text}
    assert reading.unread == len(unread) > 10
    kits = 100 * sum(s.score or 0 for s in by_text.values()) / len(CHOICES)
    assert choices.value == pytest.approx(kits)
    # The second reading has all of them, and what says no option is none to it either.
    assert reading.second == pytest.approx(100 * says_b / len(CHOICES))
    assert reading.second_unread == len(unread & NO_CHOICE)
    assert reading.second_name == "plain forms 1"

    causes = [s.finish_reason for s in found.samples if s.benchmark == "RWQA"]
    for (_, wanted), finish in zip(ODD, causes, strict=True):
        no_answer = wanted not in ("B", "silent")
        assert (finish == f"no answer: {wanted}") is no_answer, (wanted, finish)
    right = sum(wanted == "B" for _, wanted in ODD)
    assert odd.value == pytest.approx(100 * right / (right + 1)), "silence is a wrong answer"
    assert odd.missing == len(ODD) - right - 1
    assert found.reading("RWQA").no_answer == {
        "only reasoning": 2,
        "content_filter": 1,
        "refusal": 1,
        "tool call": 1,
        "cut": 1,
        "empty": 1,
    }
    assert found.reading("RWQA").if_wrong == pytest.approx(100 * right / len(ODD))
    assert odd.is_incomplete
    assert not choices.is_incomplete


def test_one_answer_of_twelve_is_no_score_for_the_mean(kit: Kit, tmp_path: Path) -> None:
    write(tmp_path / "data", "RealWorldQA", choice_rows("q", 12))
    refusal = {"status": 400, "why": "maximum context length is 4096 tokens"}
    with fake_judge(by_mark({"q0": "B", "": "B"}, refusal)) as server:
        (score,) = evaluated(server.url, tmp_path, "RWQA", kit).scores
    assert (score.value, score.answered, score.missing) == (100.0, 1, 11)
    assert score.is_incomplete
    assert score.counted is None


def test_a_model_that_fails_takes_nothing_from_the_one_before(
    kit: Kit, checkpoint: Path, tmp_path: Path
) -> None:
    write(tmp_path / "data", "RealWorldQA", choice_rows("q", 2))
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "no-such-type"}))
    plan = EvalOptions("paper", tmp_path / "data", tmp_path / "work", db=tmp_path / "scores.db")
    plan = replace(plan, benchmarks=("RWQA",), engine="batch", max_tokens=2)
    with pytest.raises(UserError, match="broken"):
        evaluate_many([checkpoint, broken], plan, kit=kit)
    with Ledger(tmp_path / "scores.db") as ledger:
        (kept,) = ledger.evaluations()
    assert (kept.path, len(kept.scores)) == (str(checkpoint), 1)


def test_an_evaluation_in_which_nothing_was_scored_fails(
    kit: Kit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "data", "RealWorldQA", choice_rows("r", 3))
    nothing: Reply = {"content": None, "reasoning_content": "Green, so the answer is B."}
    with fake_judge(by_mark({}, nothing)) as server:
        found = evaluated(server.url, tmp_path, "RWQA", kit)
    print_scores(found)
    said = capsys.readouterr()
    assert said.out == "fake base none: RWQA -\n"
    assert "no answer: RWQA 3 of 3 (only reasoning 3)" in said.err
    with pytest.raises(UserError, match="nothing of fake was scored"):
        refuse_unscored([found])


MATHVISTA = {
    "mv0": ("7", 1.0),
    "mv1": ("<think>seven</think>\n7", 1.0),
    "mv2": ("Extracted answer: 7", None),
    "mv3": ("**7**", None),
    "mv4": ("7\n\nThe model says so.", None),
    "mv5": ("None", 0.0),
    "mv6": ("8", 0.0),
    "mv7": ("1,000", 0.0),
}
"""The judge's reply, where the answer is 7, and the outcome."""


def mathvista_rows() -> list[dict[str, Any]]:
    fields = {"question_type": "free_form", "answer_type": "integer", "choices": None}
    fields |= {"answer_option": None, "task": "figure question answering"}
    fields |= {"skills": "['statistical reasoning']", "answer": "7"}
    return [
        {"index": n, "image": picture(n), "question": f"#mv{n}# How many?", **fields}
        for n in range(len(MATHVISTA))
    ]


def test_a_judge_that_thinks_judges_and_is_not_asked_about_no_answer(tmp_path: Path) -> None:
    write(tmp_path / "data", "MathVista_MINI", mathvista_rows())
    write(tmp_path / "data", "RealWorldQA", choice_rows("r", 4))
    vet = {"question": "#vt0# What is there?", "answer": "a cat", "category": "rec"}
    write(tmp_path / "data", "MMVet", [{"index": "v1_0", "image": picture(0), **vet}])
    nothing: Reply = {"content": None, "reasoning_content": "Green, so the answer is B."}
    model = by_mark(
        {"r0": nothing, "r1": nothing, "r2": "B。", "r3": "B", "vt0": "A cat is there."},
        "It is seven.",
    )
    verdicts = by_mark({name: text for name, (text, _) in MATHVISTA.items()} | {"vt0": "1.0"}, "B")

    def thinks(body: dict[str, Any]) -> tuple[int, bytes]:
        status, content = verdicts(body)
        reply = json.loads(content)
        thought, choice = "<think>\nOkay, is it 0.0? ", reply["choices"][0]
        said = choice["message"]["content"]
        if body.get("max_tokens", 9999) < 200:
            choice |= {"finish_reason": "length", "message": {"content": thought}}
        else:
            choice["message"]["content"] = f"{thought}No.\n</think>\n\n{said}"
        return status, json.dumps(reply).encode()

    def asked_of(judge: FakeJudge) -> list[str]:
        return [m for body in judge.seen if "#" in (m := json.dumps(body["messages"]))]

    with fake_judge(model) as server, fake_judge(thinks) as judge:
        more: dict[str, Any] = {"judge": Judge(judge.url, "judge")}
        with Kit(tmp_path / "work" / "kit.log", more["judge"]) as kit:
            found = evaluated(server.url, tmp_path, "MathVista,MM-Vet,RWQA", kit, **more)
            asked = asked_of(judge)
            assert evaluated(server.url, tmp_path, "MathVista,MM-Vet,RWQA", kit, **more).scores == (
                found.scores
            )
            assert len(asked_of(judge)) == len(asked), "its replies are kept"
    assert not any("#r0#" in text or "#r1#" in text for text in asked)
    assert any("#r2#" in text for text in asked)
    scores = {score.benchmark: score for score in found.scores}
    assert (scores["RWQA"].value, scores["RWQA"].missing) == (100.0, 2)
    assert found.reading("RWQA").no_answer == {"only reasoning": 2}
    assert (scores["MM-Vet"].value, scores["MM-Vet"].missing) == (100.0, 0)
    outcomes = [s.score for s in found.samples if s.benchmark == "MathVista"]
    assert outcomes == [outcome for _, outcome in MATHVISTA.values()]
    assert scores["MathVista"].value == pytest.approx(100 * 2 / 5)

    with fake_judge(model) as server, fake_judge(verdicts) as judge:
        more = {"judge": Judge(judge.url, "judge"), "fresh_verdicts": True}
        evaluated(server.url, tmp_path, "RWQA", **more)
        assert len(asked_of(judge)) == 1, "--fresh-verdicts asks again"
