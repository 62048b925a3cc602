"""The files that the trainer reads: questions with saved responses, and the pretraining set."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rilbench.checkpoint import PROCESSOR_FILES, Checkpoint
from rilbench.config import Recipe
from rilbench.data.question_files import Question
from rilbench.errors import UserError
from rilbench.train.pipeline.collect_stage import STUDENT, ModelCollection
from rilbench.train.pipeline.run_folder import Run

log = logging.getLogger(__name__)


def saved_responses(
    run: Run, collections: list[ModelCollection], questions: list[Question]
) -> dict[str, list[dict[str, str]]]:
    """Each question's teacher responses that the run may use: the first ``max_saved_responses``.

    Returns:
        By question id a list of ``{"teacher": name, "response": text}``.
    """
    saved: dict[str, list[dict[str, str]]] = {q.id: [] for q in questions}
    for collection in collections:
        if collection.plan.model == STUDENT:
            continue
        taken: Counter[str] = Counter()
        for row in collection.read(questions):
            taken[row.question_id] += 1
            if taken[row.question_id] <= run.recipe.max_saved_responses:
                entry = {"teacher": collection.plan.model, "response": row.response}
                saved[row.question_id].append(entry)
    return saved


def teacher_share(recipe: Recipe) -> int:
    """The most responses of one teacher in a group."""
    return -(-recipe.num_teacher_responses // len(recipe.teachers.names))


def note_on_recipe(recipe: Recipe) -> str:
    """A note if the recipe saves fewer responses of a teacher than a group takes, or nothing."""
    if not recipe.method_spec.uses_teachers or recipe.max_saved_responses >= teacher_share(recipe):
        return ""
    return (
        f"a group may take {teacher_share(recipe)} responses of one teacher and "
        f"{recipe.max_saved_responses} are saved: some occur twice in it; raise "
        "collection.teacher_responses (or teachers.max_responses), or leave it so"
    )


def notes_on_responses(
    recipe: Recipe, saved: Mapping[str, Sequence[Mapping[str, str]]]
) -> list[str]:
    """Notes on questions with fewer saved responses than a group takes.

    Args:
        recipe: one whose method uses teachers.
        saved: as `saved_responses` returns them.
    """
    share, notes = min(teacher_share(recipe), recipe.max_saved_responses), []
    for name in recipe.teachers.names:
        counts = [sum(row["teacher"] == name for row in rows) for rows in saved.values()]
        few, none = sum(0 < n < share for n in counts), counts.count(0)
        if few:
            notes.append(
                f"{few} of {len(counts)} questions have fewer responses of {name} than the {share} "
                "that a group may take: some occur twice in it"
            )
        if none:
            notes.append(
                f"{none} of {len(counts)} questions have no response of {name}: they are left out"
            )
    return notes


def pixel_limits(student: Path) -> dict[str, int]:
    """``min_pixels`` and ``max_pixels`` of a student's processor, as far as it has them.

    verl resizes pictures before the processor sees them, by its own limits unless it is told these.
    """
    limits: dict[str, int] = {}
    for name in PROCESSOR_FILES:
        if not (student / name).exists():
            continue
        values = json.loads((student / name).read_text(encoding="utf-8"))
        values = values.get("image_processor", values)
        size = values.get("size") or {}
        for limit, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            if value := values.get(limit) or size.get(edge):
                limits[limit] = value
    return limits


def verl_images(question: Question, limits: Mapping[str, int]) -> list[dict[str, Any]]:
    """A question's pictures as verl reads them, with the limits of `pixel_limits`."""
    return [{"bytes": image, **limits} for image in question.images]


def prepare_data(
    run: Run,
    student: Checkpoint,
    collections: list[ModelCollection],
    questions: list[Question],
    dev: list[Question],
) -> list[str]:
    """Write ``data/``: the questions in verl's format, and the discriminator's pretraining set.

    Questions without a response of each teacher are left out.

    Returns:
        Notes for the user.

    Raises:
        UserError: too few questions are left.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    recipe, data = run.recipe, run.folder / "data"
    data.mkdir(exist_ok=True)
    saved, notes, train = saved_responses(run, collections, questions), [], questions
    if recipe.method_spec.uses_teachers:
        notes = notes_on_responses(recipe, saved)
        teachers = set(recipe.teachers.names)
        train = [q for q in questions if {row["teacher"] for row in saved[q.id]} >= teachers]
    if len(train) < recipe.schedule.prompts_per_step:
        raise UserError(
            f"{'; '.join(notes)}; the {len(train)} that remain are fewer than one step's "
            f"{recipe.schedule.prompts_per_step}; start another --run with collection.folder="
            f"{run.collection} and a lower schedule.prompts_per_step, or more questions"
        )
    for collection in collections:
        if collection.plan.model != STUDENT:
            continue
        pretraining = [
            {"is_student": True, "response": row.response} for row in collection.read(questions)
        ]
        for rows in saved.values():
            pretraining += [{"is_student": False, "response": row["response"]} for row in rows]
        pq.write_table(pa.Table.from_pylist(pretraining), data / "discriminator.parquet")
        log.info("%d responses to pretrain the discriminator on", len(pretraining))
    limits = pixel_limits(student.path)
    for name, part in (("train", train), ("dev", dev)):
        table = [
            {
                "data_source": question.source,
                "prompt": [{"role": "user", "content": question.marked}],
                "images": verl_images(question, limits),
                "ability": "vision",
                "reward_model": {"style": "judge", "ground_truth": question.answer},
                "extra_info": {
                    "index": index,
                    "question_id": question.id,
                    "question": question.question,
                    # Parquet infers the type from the values, so an empty list needs one.
                    "saved": saved.get(question.id) or [{"teacher": "", "response": ""}],
                },
            }
            for index, question in enumerate(part)
        ]
        pq.write_table(pa.Table.from_pylist(table), data / f"{name}.parquet")
    log.info("%d questions to train on, %d of dev", len(train), len(dev))
    return notes
