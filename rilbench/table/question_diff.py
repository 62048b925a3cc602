"""Why two scores differ: the questions whose outcomes differ, by cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Sample, newest_first
from rilbench.ledger.queries import Pair
from rilbench.paths import locate

CAUSES = (
    "other set of questions",
    "other gold",
    "other response to another prompt",
    "other response",
    "same response, other extraction",
    "same response, other verdict",
)
"""The possible causes; the first that applies is given, as it explains the rest."""


@dataclass(frozen=True)
class Difference:
    """One question whose outcome differs; a side is None if it did not ask the question."""

    benchmark: str
    question_id: str
    cause: str
    first: Sample | None
    second: Sample | None

    @property
    def change(self) -> float | None:
        """The second score minus the first, None if either has no verdict."""
        if self.first is None or self.second is None:
            return None
        if self.first.score is None or self.second.score is None:
            return None
        return self.second.score - self.first.score


def differences(
    first: Iterable[Sample], second: Iterable[Sample], *, same_kit: bool = True
) -> list[Difference]:
    """Compare two evaluations question by question, in the first one's order.

    Two kits name their questions differently, so they are matched by their text. Questions with
    the same text (about other images) are matched in their order.
    """
    left, right = _by_question(first, same_kit), _by_question(second, same_kit)
    result = []
    for key in dict.fromkeys((*left, *right)):
        a, b = left.get(key), right.get(key)
        if a is None or b is None or a.score != b.score:
            name = next(sample.question_id for sample in (a, b) if sample is not None)
            result.append(Difference(key[0], name, _cause(a, b), a, b))
    return result


def matched(
    first: Iterable[Sample], second: Iterable[Sample], *, same_kit: bool = True
) -> list[Pair]:
    """Return the questions that both asked, matched as in `differences`."""
    left, right = _by_question(first, same_kit), _by_question(second, same_kit)
    return [
        Pair(a.benchmark, a.question_id, a.stratum, a.score, right[key].score)
        for key, a in left.items()
        if key in right
    ]


def _by_question(samples: Iterable[Sample], same_kit: bool) -> dict[tuple[str, ...], Sample]:
    if same_kit:
        return {(s.benchmark, s.question_id): s for s in samples}
    result: dict[tuple[str, ...], Sample] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        key = (sample.benchmark, sample.stem or sample.question_id)
        result[key[0], key[1], str(seen[key])] = sample
        seen[key] += 1
    return result


def _cause(first: Sample | None, second: Sample | None) -> str:
    if first is None or second is None:
        return CAUSES[0]
    # Two kits never send the same prompt, so another prompt is no cause by itself: it explains
    # another response only.
    other_response = first.response != second.response
    applies = (
        first.gold != second.gold,
        other_response and first.prompt_hash != second.prompt_hash,
        other_response,
        first.extracted != second.extracted,
        True,
    )
    return next(cause for cause, it in zip(CAUSES[1:], applies, strict=True) if it)


def find_evaluation(ledger: Ledger, name: str) -> Evaluation:
    """Return the evaluation of a number, else the newest whole one of a model.

    Args:
        ledger: where to look.
        name: the evaluation's number or tag; or the model's folder, run or fingerprint.

    Raises:
        UserError: there is none, or several models have this name.
    """
    evaluations = ledger.evaluations()
    if name.isdecimal():
        matching = [e for e in evaluations if str(e.id) == name.lstrip("0")]
    else:
        path = str(locate(name)) if name.startswith("nano:") else name.rstrip("/")
        matching = [
            e
            for e in evaluations
            if path in (e.path, e.run, *e.tags)
            or e.path.endswith(f"/{path}")
            or (len(path) >= 6 and e.fingerprint.startswith(path))
        ]
    if not matching:
        known = ", ".join(f"{e.id} ({e.path})" for e in evaluations[:5]) or "none yet"
        raise UserError(f"{ledger.path} has no evaluation {name!r}; the last are: {known}")
    if len({e.fingerprint for e in matching}) > 1:
        which = ", ".join(f"{e.id} ({e.path})" for e in matching[:5])
        raise UserError(f"{ledger.path} has several models called {name!r}: {which}; give a number")
    return newest_first(matching)[0]


def counts(questions: Sequence[Difference]) -> dict[str, dict[str, int]]:
    """Return how many differ, ``{benchmark: {cause: number}}``, in the order of the questions."""
    table: dict[str, dict[str, int]] = {}
    for question in questions:
        row = table.setdefault(question.benchmark, dict.fromkeys(CAUSES, 0))
        row[question.cause] += 1
    return table
