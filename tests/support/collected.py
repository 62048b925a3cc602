"""What a collection's file has, and files as a run would have written them."""

import numpy as np
import pyarrow.parquet as pq

from rilbench.data.question import StoredQuestion
from rilbench.data.response_store import SavedResponse, add_responses, index_responses
from rilbench.data.row_files import write_column


def rows_of(plan, folder):
    """All rows of the file, failures too."""
    return pq.read_table(plan.file(folder)).to_pylist()


def asked(plan, questions, folder):
    """The rows that a run of these questions would use: question by question, without failures."""
    rows = rows_of(plan, folder)
    index = index_responses(plan, questions, folder)
    return [rows[i] for i in np.concatenate(index.rows_by_question(plan.responses)).astype(int)]


def response(plan, question, sample, text, failure=""):
    """A saved response, or a failure."""
    return SavedResponse(
        question.id,
        question.sha256,
        plan.model,
        sample,
        0,
        "" if failure else text,
        0 if failure else 2,
        "failed" if failure else "stop",
        failure=failure,
    )


def save(plan, questions, folder, failing=()):
    """Write a collection in which the k-th response to q1 is "MODEL q1 k"."""
    rows = [
        response(plan, q, i, f"{plan.model} {q.id} {i}", "empty" if (q.id, i) in failing else "")
        for q in questions
        for i in range(plan.responses)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    return add_responses(plan, folder, rows, set())


def stored(questions, file):
    """Questions as a run has them, their pictures written."""
    write_column(file, [q.images for q in questions], "binary")
    firsts = np.cumsum([0, *(q.num_images for q in questions)])
    return [StoredQuestion(q, file, int(i)) for q, i in zip(questions, firsts, strict=False)]


class Notes:
    """Progress that remembers what the user was told."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)

    def stage(self, name, state):
        pass

    def answers(self, model, done, total):
        pass

    def line(self, kind, values):
        pass
