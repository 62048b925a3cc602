"""Questions with yes or no: the kits' totals are no means of questions."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, Image
from fake_judge import fake_judge, says

from rilbench.errors import UserError
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate_many
from rilbench.ledger import Evaluation, Ledger
from rilbench.ledger.housekeeping import verify
from rilbench.paths import nano_folder

IMAGE = pd.read_csv(nano_folder() / "benchmarks" / "MMStar.tsv", sep="\t")["image"][0]
POPE = ["Yes", "No", "Yes", "No", "Yes", "No", "Yes", "No"]
SAID = ["Yes.", "yes", "No, there is none", "No", "Yes", "No", "maybe", "No"]
"""Right but for the second, the third and the seventh, which says neither."""


def write(folder: Path, name: str, answers: Sequence[str], **columns: Sequence[Any]) -> None:
    table = {
        "index": range(len(answers)),
        "image": [IMAGE] * len(answers),
        "question": [f"Is it so, number {i}?" for i in range(len(answers))],
        "answer": answers,
    }
    pd.DataFrame(table | columns).to_csv(folder / f"{name}.tsv", sep="\t", index=False)


def run(
    folder: Path, name: str, said: Sequence[str | None], **changes: Any
) -> tuple[Evaluation, int]:
    """Evaluate a model that says this, or refuses; its evaluation, and the questions it got."""

    def answer(body: Mapping[str, Any]) -> tuple[int, bytes]:
        number = re.search(r"number (\d+)", str(body["messages"]))
        text = said[int(number[1])] if number else "hello"
        return (400, b"too long") if text is None else says(text)

    with fake_judge(answer) as server:
        plan = EvalOptions(
            "paper",
            folder,
            folder / "work",
            folder / "l.db",
            endpoint=f"m@{server.url}",
            benchmarks=(f"vlmevalkit:{name}",),
        )
        try:
            (found,) = evaluate_many([], replace(plan, **changes))
        finally:
            asked = len(server.questions)
    return found, asked


def test_pope_is_an_f1_with_an_outcome_for_each_question(tmp_path: Path) -> None:
    write(tmp_path, "POPE", POPE, category=["random,popular", "random"] * 4)
    evaluation, _ = run(tmp_path, "POPE", SAID)
    (score,) = evaluation.scores
    # Of the first category each counts twice in the kit: 4 of 8 found, and one of 5 is wrong.
    precision, recall = 4 / 5, 4 / 8
    assert score.value == pytest.approx(100 * 2 * precision * recall / (precision + recall))
    assert (score.benchmark, score.metric, score.missing) == ("POPE", "Overall", 0)
    outcomes = {s.question_id: s.score for s in evaluation.samples}
    assert outcomes == {str(i): float(i not in (1, 2, 6)) for i in range(8)}
    reading = evaluation.reading("POPE")
    assert (reading.is_total, reading.unread, reading.second) == (True, 1, None)
    with Ledger(tmp_path / "l.db") as ledger:
        assert verify(ledger).wrong == ()


def test_what_has_no_answer_is_not_in_the_total(tmp_path: Path) -> None:
    write(tmp_path, "POPE", POPE * 5, category=["random"] * 40)
    said = [None, *POPE[1:], *POPE * 4]
    evaluation, _ = run(tmp_path, "POPE", said)
    (score,) = evaluation.scores
    assert (score.value, score.questions, score.missing) == (100.0, 40, 1)


def test_a_judge_reads_what_the_rules_cannot(tmp_path: Path) -> None:
    write(tmp_path, "POPE", POPE, category=["random"] * 8)
    with fake_judge(lambda _: says("Yes")) as judge:
        evaluation, _ = run(tmp_path, "POPE", SAID, judge=Judge(judge.url, "j"))
        assert "maybe" in str(judge.questions)
    by_id = {s.question_id: s for s in evaluation.samples}
    assert (by_id["6"].score, by_id["6"].judge) == (1.0, "judge-2026-01")
    assert (by_id["0"].judge, evaluation.reading("POPE").unread) == (None, 0)
    with fake_judge(lambda body: says("Yes") if "hello" in str(body) else (500, b"down")) as judge:
        plan = {"judge": Judge(judge.url, "k"), "work": tmp_path / "other"}
        evaluation, _ = run(tmp_path, "POPE", SAID, **plan)
    (score,) = evaluation.scores
    assert (score.value, score.missing) == (None, 1), "no F1 without a verdict"


def test_hallusionbench_and_mme(tmp_path: Path) -> None:
    index = [f"VD_figure_x_{i // 4}_{i // 2 % 2}_{i % 2}" for i in range(8)]
    category = {"category": ["VD"] * 8, "l2-category": ["figure"] * 8}
    write(tmp_path, "HallusionBench", POPE, index=index, **category)
    evaluation, _ = run(tmp_path, "HallusionBench", SAID)
    (score,) = evaluation.scores
    assert (score.value, score.metric) == (62.5, "aAcc")
    assert not evaluation.reading("HallusionBench").is_total, "the share of right answers"

    images = [f"{i // 2}.png" for i in range(8)]
    kinds = ["OCR"] * 4 + ["code_reasoning"] * 4
    write(tmp_path, "MME", POPE, image_path=images, category=kinds)
    evaluation, asked = run(tmp_path, "MME", SAID)
    (score,) = evaluation.scores
    # OCR: 2 of 4 answers and no pair of 2; code: 3 of 4 and a pair; of 400.
    assert score.value == pytest.approx(100 * (50 + 0 + 75 + 50) / 400)
    assert (score.metric, evaluation.reading("MME").is_total) == ("perception+reasoning", True)
    assert asked == 8


def test_an_f1_of_lmmseval_is_known_before_it_is_asked(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": str(i),
            "question": f"Is it so, number {i}?",
            "answer": truth.lower(),
            "category": "random",
            "image": {"bytes": base64.b64decode(IMAGE), "path": None},
        }
        for i, truth in enumerate(POPE)
    ]
    folder = tmp_path / "lmms-lab-encoder" / "POPE"
    folder.mkdir(parents=True)
    table = Dataset.from_list(rows).cast_column("image", Image())
    table.to_parquet(folder / "test-00000-of-00001.parquet")
    file = tmp_path / "f1.toml"
    fields = 'metric = "pope_f1_score"\nhub = "lmms-lab-encoder/POPE"\njudging = "none"'
    file.write_text(f'name = "F1"\n[[lmms-eval]]\nname = "pope"\nquestions = 8\n{fields}')
    evaluation, _ = run(tmp_path, "", ["yes"] * 8, kit="lmms-eval", benchmarks=(str(file),))
    (score,) = evaluation.scores
    assert score.value == pytest.approx(100 * 2 / 3), "half are right, and every yes is found"
    assert evaluation.reading("F1").is_total
    assert sum(sample.score or 0 for sample in evaluation.samples) == 4


def test_a_sample_that_the_kit_cannot_score_is_refused_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    write(tmp_path, "MME", POPE, image_path=[f"{i // 2}.png" for i in range(8)], category="OCR")
    asked = []
    with (
        pytest.raises(UserError, match="MME: VLMEvalKit fails to score a sample of 3 questions"),
        fake_judge(lambda body: asked.append(body) or says("Yes")) as server,
    ):
        evaluate_many(
            [],
            EvalOptions(
                "paper",
                tmp_path,
                tmp_path / "work",
                endpoint=f"m@{server.url}",
                benchmarks=("vlmevalkit:MME",),
                limit=3,
            ),
        )
    assert not any("number" in str(body) for body in asked)
