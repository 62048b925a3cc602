"""What verl reads: the questions with their saved responses, the discriminator's first rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rilbench.checkpoint import PROCESSOR_FILES, Checkpoint
from rilbench.teachers.questions import Question
from rilbench.train.collecting import STUDENT, Wanted
from rilbench.train.run_folder import Run


def saved_rows(
    run: Run, wanted: list[Wanted], questions: list[Question]
) -> dict[str, list[dict[str, str]]]:
    """Each question's saved responses that the run may use, with their teachers."""
    saved: dict[str, list[dict[str, str]]] = {q.id: [] for q in questions}
    for one in wanted:
        if one.plan.model == STUDENT:
            continue
        for row in one.read(questions):
            if row.sample < run.recipe.saved_responses:
                entry = {"teacher": one.plan.model, "response": row.response}
                saved[row.question_id].append(entry)
    return saved


def pixel_limits(student: Path) -> dict[str, int]:
    """The least and the most pixels of a picture that a student's own processor allows.

    verl resizes pictures before the processor sees them, by limits of its own unless it is told.
    """
    limits: dict[str, int] = {}
    for name in PROCESSOR_FILES:
        path = student / name
        if path.exists():
            values = json.loads(path.read_text(encoding="utf-8"))
            values = values.get("image_processor", values)
            size = values.get("size") or {}
            least = values.get("min_pixels") or size.get("shortest_edge")
            most = values.get("max_pixels") or size.get("longest_edge")
            limits |= {"min_pixels": least} if least else {}
            limits |= {"max_pixels": most} if most else {}
    return limits


def pictures(question: Question, limits: Mapping[str, int]) -> list[dict[str, Any]]:
    """A question's pictures as verl reads them, with the limits of `pixel_limits`."""
    return [{"bytes": image, **limits} for image in question.images]


def prepare_data(
    run: Run,
    student: Checkpoint,
    wanted: list[Wanted],
    questions: list[Question],
    dev: list[Question],
) -> None:
    """Questions with their saved responses in verl's format; the discriminator's first rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = run.folder / "data"
    data.mkdir(exist_ok=True)
    saved = saved_rows(run, wanted, questions)
    own = [one for one in wanted if one.plan.model == STUDENT]
    if own:
        first_rows = [{"own": True, "response": r.response} for r in own[0].read(questions)]
        for rows in saved.values():
            first_rows += [{"own": False, "response": row["response"]} for row in rows]
        pq.write_table(pa.Table.from_pylist(first_rows), data / "discriminator.parquet")
    limits = pixel_limits(student.path)
    for name, part in (("train", questions), ("dev", dev)):
        table = [
            _verl_row(i, q, pictures(q, limits), saved.get(q.id, [])) for i, q in enumerate(part)
        ]
        pq.write_table(pa.Table.from_pylist(table), data / f"{name}.parquet")


def _verl_row(
    index: int, question: Question, images: list[dict[str, Any]], saved: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "data_source": question.source,
        "prompt": [{"role": "user", "content": question.marked}],
        "images": images,
        "ability": "vision",
        "reward_model": {"style": "judge", "ground_truth": question.answer},
        "extra_info": {
            "index": index,
            "question_id": question.id,
            "question": question.question,
            "saved": saved or [{"teacher": "", "response": ""}],  # Parquet wants the type
        },
    }
