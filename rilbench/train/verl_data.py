"""What verl reads: the questions with their saved responses, the discriminator's first rows."""

from __future__ import annotations

from typing import Any

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


def prepare_data(
    run: Run, wanted: list[Wanted], questions: list[Question], dev: list[Question]
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
    for name, part in (("train", questions), ("dev", dev)):
        table = [_verl_row(i, q, saved.get(q.id, [])) for i, q in enumerate(part)]
        pq.write_table(pa.Table.from_pylist(table), data / f"{name}.parquet")


def _verl_row(index: int, question: Question, saved: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "data_source": question.source,
        "prompt": [{"role": "user", "content": question.marked}],
        "images": [{"bytes": image} for image in question.images],
        "ability": "vision",
        "reward_model": {"style": "judge", "ground_truth": question.answer},
        "extra_info": {
            "index": index,
            "question_id": question.id,
            "question": question.question,
            "saved": saved or [{"teacher": "", "response": ""}],  # Parquet wants the type
        },
    }
