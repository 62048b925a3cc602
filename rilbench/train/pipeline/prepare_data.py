"""The files that the trainer reads: questions with saved responses, and the pretraining set.

``data/pictures.arrow`` has every picture of the run once and ``data/responses.arrow`` every saved
response; the rows that verl reads name them by their numbers (`rilbench.data.row_files`).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rilbench.checkpoint import PROCESSOR_FILES, Checkpoint
from rilbench.config import Recipe
from rilbench.data.question import StoredQuestion
from rilbench.data.response_store import read_responses
from rilbench.data.row_files import row_file, write_column
from rilbench.errors import UserError
from rilbench.train.pipeline.collect_stage import STUDENT
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.pipeline.teacher_servers import ModelCollection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedResponses:
    """Where the saved responses that the run may use are in ``data/responses.arrow``."""

    teachers: Mapping[str, list[list[int]]]
    """Of each teacher, for each question in order."""
    student: Sequence[Sequence[int]]
    """The student's, for each question in order; empty where none were collected."""

    def of_question(self, place: int, teachers: Collection[str]) -> dict[str, list[int]]:
        """Each of these teachers' to the question at this place."""
        return {name: self.teachers[name][place] for name in self.teachers if name in teachers}


def store_responses(
    run: Run, collections: list[ModelCollection], questions: Sequence[StoredQuestion]
) -> SavedResponses:
    """Write ``data/responses.arrow``, reading each collection once.

    A teacher's are the first ``max_saved_responses`` to each question; the student's are all.
    Where another run adds to a shared collection meanwhile, rows move: it is read again.

    Raises:
        UserError: as `read_responses`.
    """

    def files() -> list[tuple[int, int]]:
        found = [each.file.stat() for each in collections if each.file.exists()]
        return [(file.st_ino, file.st_mtime_ns) for file in found]

    while True:
        before = files()
        try:
            saved = _store_responses(run, collections, questions)
        except UserError:
            if before == files():
                raise
        else:
            if before == files():
                return saved


def _store_responses(
    run: Run, collections: list[ModelCollection], questions: Sequence[StoredQuestion]
) -> SavedResponses:
    first = 0
    student: list[list[int]] = []
    teachers: dict[str, list[list[int]]] = {}
    used = []
    for collection in collections:
        is_student = collection.plan.model == STUDENT
        most = collection.plan.responses if is_student else run.recipe.max_saved_responses
        by_question = collection.index(questions).rows_by_question(most)
        rows = np.sort(np.concatenate(by_question))
        if len(rows):
            used.append((collection.file, rows))
        numbers = [(first + np.searchsorted(rows, some)).tolist() for some in by_question]
        if is_student:
            student = numbers
        else:
            teachers[collection.plan.model] = numbers
        first += len(rows)
    texts = (some for path, rows in used for some in read_responses(path, rows))
    write_column(run.folder / "data" / "responses.arrow", texts, "string")
    return SavedResponses(teachers, student)


def notes_on_recipe(recipe: Recipe) -> list[str]:
    """What a user may not have meant, though it can be done."""
    schedule, notes = recipe.schedule, []
    if recipe.data.train == recipe.data.dev and schedule.eval_every:
        notes.append("data.dev is data.train: its accuracy is on what is trained")
    if schedule.export == "best" and (
        math.lcm(schedule.save_every, schedule.eval_every) >= schedule.steps
    ):
        notes.append(
            "schedule.export=best has only the last step to choose from, as no other is both saved "
            "and scored: lower schedule.save_every and schedule.eval_every"
        )
    saved = recipe.max_saved_responses
    if recipe.method_spec.uses_saved_responses and saved < recipe.teacher_share:
        notes.append(
            f"a group may take {recipe.teacher_share} responses of one teacher and {saved} are "
            "saved: some occur twice in it; raise collection.teacher_responses (or "
            "teachers.max_responses), or leave it so"
        )
    return notes


def notes_on_responses(
    recipe: Recipe, saved: SavedResponses, questions: Sequence[StoredQuestion]
) -> list[str]:
    """Notes on questions with fewer saved responses than a group takes.

    Args:
        recipe: one whose method uses saved responses.
        saved: as `store_responses` returns them.
        questions: the run's.
    """
    share, notes = min(recipe.teacher_share, recipe.max_saved_responses), []
    for name in recipe.teachers.names:
        counts = [
            len(numbers)
            for question, numbers in zip(questions, saved.teachers[name], strict=True)
            if name in recipe.teachers_of(question.source)
        ]
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


def verl_images(question: StoredQuestion, limits: Mapping[str, int]) -> list[dict[str, int]]:
    """A question's pictures as our data sets read them, with the limits of `pixel_limits`."""
    return [{"row": row, **limits} for row in question.rows]


def verl_images_type(limits: Mapping[str, int]) -> Any:
    """The Arrow type of `verl_images`."""
    import pyarrow as pa

    return pa.list_(pa.struct(dict.fromkeys(("row", *limits), pa.int64())))


def prepare_data(
    run: Run,
    student: Checkpoint,
    collections: list[ModelCollection],
    questions: list[StoredQuestion],
    dev: list[StoredQuestion],
) -> list[str]:
    """Write ``data/``: the questions in verl's format, and the discriminator's pretraining set.

    Questions without a response of each teacher are left out.

    Returns:
        Notes for the user.

    Raises:
        UserError: too few questions are left.
    """
    recipe, data = run.recipe, run.folder / "data"
    saved, notes = store_responses(run, collections, questions), []
    train = [
        (question, saved.of_question(place, recipe.teachers_of(question.source)))
        for place, question in enumerate(questions)
    ]
    if recipe.method_spec.uses_saved_responses:
        notes = notes_on_responses(recipe, saved, questions)
        train = [(question, numbers) for question, numbers in train if all(numbers.values())]
    if recipe.method_spec.uses_teacher_log_probs:  # no saved responses, but the names
        train = [
            (question, {name: [] for name in recipe.teachers_of(question.source)})
            for question in questions
        ]
    if len(train) < recipe.schedule.prompts_per_step:
        raise UserError(
            f"{'; '.join(notes)}; the {len(train)} that remain are fewer than one step's "
            f"{recipe.schedule.prompts_per_step}; start another --run with collection.folder="
            f"{run.collection} and a lower schedule.prompts_per_step, or more questions"
        )
    if saved.student:
        _write_pretraining(data / "discriminator.parquet", saved, questions, recipe)
    limits = pixel_limits(student.path)
    _write_rows(data / "train.parquet", train, limits)
    _write_rows(data / "dev.parquet", [(question, {}) for question in dev], limits)
    log.info("%d questions to train on, %d of dev", len(train), len(dev))
    return notes


def _write_pretraining(
    path: Path, saved: SavedResponses, questions: Sequence[StoredQuestion], recipe: Recipe
) -> None:
    """Write which responses the discriminator is pretrained on.

    With the question's place among the run's, and its text, where the discriminator compares two
    responses to one question.
    """
    import pyarrow as pa

    student = [(place, number) for place, own in enumerate(saved.student) for number in own]
    teachers = [
        (place, number)
        for place, question in enumerate(questions)
        for numbers in saved.of_question(place, recipe.teachers_of(question.source)).values()
        for number in numbers
    ]
    rows = np.array([*student, *teachers], dtype=np.int64)
    columns: dict[str, Any] = {
        "is_student": np.repeat([True, False], [len(student), len(teachers)]),
        "number": rows[:, 1],
    }
    if recipe.method_spec.pairs_with_teachers:
        texts = pa.array([question.question for question in questions])
        places = pa.array(rows[:, 0].astype(np.int32))
        columns |= {"place": places, "question": pa.DictionaryArray.from_arrays(places, texts)}
    batch = pa.RecordBatch.from_pydict(columns)
    with row_file(path, batch.schema) as writer:
        writer.write_batch(batch)
    log.info("%d responses to pretrain the discriminator on", batch.num_rows)


def _write_rows(
    path: Path,
    questions: Sequence[tuple[StoredQuestion, Mapping[str, list[int]]]],
    limits: Mapping[str, int],
) -> None:
    """Write questions, each with its saved responses, in the format of verl's data set."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    saved = pa.list_(pa.struct({"teacher": text, "numbers": pa.list_(number)}))
    info = {"index": number, "question_id": text, "question": text, "saved": saved}
    schema = pa.schema(
        {
            "data_source": text,
            "prompt": pa.list_(pa.struct({"role": text, "content": text})),
            "images": verl_images_type(limits),
            "ability": text,
            "reward_model": pa.struct({"style": text, "ground_truth": text}),
            "extra_info": pa.struct(info),
        }
    )

    def rows() -> Iterator[dict[str, Any]]:
        for index, (question, responses) in enumerate(questions):
            yield {
                "data_source": question.source,
                "prompt": [{"role": "user", "content": question.marked}],
                "images": verl_images(question, limits),
                "ability": "vision",
                "reward_model": {"style": "judge", "ground_truth": question.answer},
                "extra_info": {
                    "index": index,
                    "question_id": question.id,
                    "question": question.question,
                    "saved": [
                        {"teacher": name, "numbers": numbers} for name, numbers in responses.items()
                    ],
                },
            }

    with row_file(path, schema) as writer:
        for row in rows():
            writer.write(row)
