"""What verl reads: the questions with their saved responses, the discriminator's first rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rilbench.checkpoint import PROCESSOR_FILES, Checkpoint
from rilbench.config import Recipe
from rilbench.data.question_files import Question
from rilbench.errors import UserError
from rilbench.train.pipeline.collect_stage import STUDENT, Wanted
from rilbench.train.pipeline.run_folder import Run


def saved_rows(
    run: Run, wanted: list[Wanted], questions: list[Question]
) -> dict[str, list[dict[str, str]]]:
    """Each question's saved responses that the run may use (the first so many), with teachers."""
    saved: dict[str, list[dict[str, str]]] = {q.id: [] for q in questions}
    for one in wanted:
        if one.plan.model == STUDENT:
            continue
        taken: Counter[str] = Counter()
        for row in one.read(questions):
            taken[row.question_id] += 1
            if taken[row.question_id] <= run.recipe.max_saved_responses:
                entry = {"teacher": one.plan.model, "response": row.response}
                saved[row.question_id].append(entry)
    return saved


def teacher_share(recipe: Recipe) -> int:
    """The most rows of a group that one teacher gives."""
    rows, teachers = recipe.num_teacher_responses, len(recipe.teachers.names)
    return -(-rows // teachers)


def few_saved(recipe: Recipe) -> str:
    """Whether the recipe itself collects less than a group takes, in a line; else nothing."""
    if not recipe.method_spec.uses_teachers or recipe.max_saved_responses >= teacher_share(recipe):
        return ""
    return (
        f"a group may take {teacher_share(recipe)} responses of one teacher and "
        f"{recipe.max_saved_responses} are saved: some come twice in it; raise "
        "collection.teacher_responses (or teachers.max_responses), or leave it so"
    )


def repeats(recipe: Recipe, saved: Mapping[str, Sequence[Mapping[str, str]]]) -> list[str]:
    """What a user should know of questions with fewer saved responses than a group takes.

    Args:
        recipe: one that mixes saved rows into its groups.
        saved: of `saved_rows`.
    """
    share, said = min(teacher_share(recipe), recipe.max_saved_responses), []
    for name in recipe.teachers.names:
        counts = [sum(row["teacher"] == name for row in rows) for rows in saved.values()]
        few, none = sum(0 < n < share for n in counts), counts.count(0)
        if few:
            said.append(
                f"{few} of {len(counts)} questions have fewer responses of {name} than the {share} "
                "that a group may take: some come twice in it"
            )
        if none:
            said.append(
                f"{none} of {len(counts)} questions have no response of {name}: they are left out"
            )
    return said


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
) -> list[str]:
    """Questions with their saved responses in verl's format; the discriminator's first rows.

    Returns:
        What the user should know of them before training.

    Raises:
        UserError: too few questions are left.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = run.folder / "data"
    data.mkdir(exist_ok=True)
    saved = saved_rows(run, wanted, questions)
    said = repeats(run.recipe, saved) if run.recipe.method_spec.uses_teachers else []
    asked = questions
    if run.recipe.method_spec.uses_teachers:
        questions = [q for q in asked if _all_answered(run.recipe, saved[q.id])]
    if len(questions) < run.recipe.schedule.prompts_per_step:
        raise UserError(
            f"{'; '.join(said)}; the {len(questions)} that remain are fewer than one step's "
            f"{run.recipe.schedule.prompts_per_step}: set schedule.prompts_per_step, or "
            "collect again"
        )
    own = [one for one in wanted if one.plan.model == STUDENT]
    if own:
        first_rows = [{"is_student": True, "response": r.response} for r in own[0].read(asked)]
        for rows in saved.values():
            first_rows += [{"is_student": False, "response": row["response"]} for row in rows]
        pq.write_table(pa.Table.from_pylist(first_rows), data / "discriminator.parquet")
    limits = pixel_limits(student.path)
    for name, part in (("train", questions), ("dev", dev)):
        table = [
            _verl_row(i, q, pictures(q, limits), saved.get(q.id, [])) for i, q in enumerate(part)
        ]
        pq.write_table(pa.Table.from_pylist(table), data / f"{name}.parquet")
    return said


def _all_answered(recipe: Recipe, rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether each of the teachers has a response that a group could take."""
    return {row["teacher"] for row in rows} >= set(recipe.teachers.names)


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
