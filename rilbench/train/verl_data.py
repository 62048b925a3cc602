"""What verl reads: the questions with their saved responses, the discriminator's first rows."""

from __future__ import annotations

from typing import Any

from rilbench.teachers.collection import Plan, read_collection
from rilbench.teachers.questions import Question
from rilbench.train.collecting import STUDENT
from rilbench.train.run_folder import Run


def prepare_data(
    run: Run, plans: list[Plan], questions: list[Question], dev: list[Question]
) -> None:
    """Questions with their saved responses in verl's format; the discriminator's first rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = run.folder / "data"
    data.mkdir(exist_ok=True)
    saved: dict[str, list[dict[str, str]]] = {q.id: [] for q in questions}
    first_rows = []
    for plan in plans:
        for row in read_collection(plan, questions, run.collection):
            first_rows.append({"own": plan.model == STUDENT, "response": row.response})
            if plan.model != STUDENT:
                entry = {"teacher": plan.model, "response": row.response}
                saved[row.question_id].append(entry)
    if first_rows:
        pq.write_table(pa.Table.from_pylist(first_rows), data / "discriminator.parquet")
    for name, part in (("train", questions), ("dev", dev)):
        rows = [_verl_row(i, q, saved.get(q.id, [])) for i, q in enumerate(part)]
        pq.write_table(pa.Table.from_pylist(rows), data / f"{name}.parquet")


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
