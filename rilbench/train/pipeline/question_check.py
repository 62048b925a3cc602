"""Every question of a run, read once as verl will read it, before anything is spent.

In the loop a question that verl cannot read costs a group, or stops the run hours after its start.
So it is left out here, by name and with the reason, or refused with ``--strict``. What was found is
kept in the run's ``questions.json``; a later start checks again only if the questions changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from rilbench.data.question_files import Question
from rilbench.errors import UserError
from rilbench.paths import whole_file

FILE = "questions.json"
_AT_A_TIME = 256
"""Questions in memory at a time, of a source that reads them as they are needed."""


@dataclass(frozen=True)
class QuestionCheck:
    """What was found in one list of questions, for one student and limit of tokens."""

    digest: str
    """Hash of the questions with their pictures, of the student and of the limit."""
    total: int
    refused: dict[str, str] = field(default_factory=dict)
    """By question id: ``kind: reason``."""

    def summary(self, name: str) -> str:
        """One line on what is left out of ``name``; "" if nothing is."""
        if not self.refused:
            return ""
        kinds = Counter(reason.split(":")[0] for reason in self.refused.values())
        counts = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        first, reason = next(iter(self.refused.items()))
        return (
            f"{len(self.refused)} of {self.total} questions of {name} cannot be trained on and are "
            f"left out ({counts}; first {first}: {reason})"
        )


def check_questions(
    student: Path, questions: Iterable[Question], max_prompt_tokens: int
) -> dict[str, str]:
    """Why questions cannot be trained on, by id: ``kind: reason``; empty if all can.

    Args:
        student: folder of the student, whose processor reads them.
        questions: read one after another.
        max_prompt_tokens: most tokens of a prompt, pictures included.
    """
    from rilbench.train.pipeline.prepare_data import pixel_limits

    root = logging.getLogger()
    handlers = list(root.handlers)
    from rilbench.train.verl.question_reader import QuestionReader

    root.handlers[:] = handlers  # verl adds one, which would print our log to the terminal
    logging.getLogger("verl").setLevel(logging.ERROR)  # InternVL: "falling back to vldefault"

    reader = QuestionReader(student, pixel_limits(student), max_prompt_tokens)
    refused: dict[str, str] = {}
    rest = iter(questions)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while some := list(islice(rest, _AT_A_TIME)):
            for question, reason in zip(some, pool.map(reader.refusal, some), strict=True):
                if reason:
                    refused[question.id] = reason
    return refused


def digest(questions: Iterable[Question], *parts: str | int) -> str:
    """16 hex digits over the questions, in order, and what else they are checked against."""
    total = hashlib.blake2b(repr(parts).encode(), digest_size=8)
    for question in questions:
        values = (question.id, question.sha256, question.answer, question.source)
        total.update("\x1f".join(values).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def read_checks(folder: Path) -> dict[str, QuestionCheck]:
    """What a run's last start found, by the setting that names the questions; empty before one."""
    path = folder / FILE
    if not path.exists():
        return {}
    saved = json.loads(path.read_text(encoding="utf-8"))
    return {name: QuestionCheck(**check) for name, check in saved.items()}


def write_checks(folder: Path, checks: Mapping[str, QuestionCheck]) -> None:
    """Keep what was found in the run's folder, whole or not at all."""
    values = {name: asdict(check) for name, check in checks.items()}
    with whole_file(folder / FILE) as part:
        part.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def changed_questions(
    before: Mapping[str, QuestionCheck], now: Mapping[str, QuestionCheck]
) -> list[str]:
    """A line for each list of questions that is not what the run's last start read."""
    return [
        f"{name} is not what this run read before ({now[name].total} questions, before "
        f"{check.total}): from here it trains on other data"
        for name, check in before.items()
        if name in now and now[name].digest != check.digest
    ]


def refuse_strictly(checks: Mapping[str, QuestionCheck]) -> None:
    """Refuse every list with a question that cannot be trained on.

    Raises:
        UserError: names up to five of them with the reasons.
    """
    refused = {key: reason for check in checks.values() for key, reason in check.refused.items()}
    if refused:
        shown = "; ".join(f"{key}: {reason}" for key, reason in islice(refused.items(), 5))
        more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise UserError(
            f"{len(refused)} questions cannot be trained on ({shown}{more}); fix or drop them, or "
            "leave out --strict to go on without them"
        )
