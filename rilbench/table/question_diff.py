"""Why do two scores differ? The questions whose outcomes differ, by cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Sample
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
"""Why an outcome may differ. The first that applies is taken, as it explains the rest."""


@dataclass(frozen=True)
class Difference:
    """One question whose outcome differs; None on the side that did not ask it."""

    benchmark: str
    question_id: str
    cause: str
    first: Sample | None
    second: Sample | None

    @property
    def change(self) -> float | None:
        """The second score minus the first, None where either has no verdict."""
        if self.first is None or self.second is None:
            return None
        if self.first.score is None or self.second.score is None:
            return None
        return self.second.score - self.first.score


def differences(
    first: Iterable[Sample], second: Iterable[Sample], *, same_kit: bool = True
) -> list[Difference]:
    """Compare two evaluations question by question, in the first one's order.

    Two kits name their questions differently; those that ask the same are then matched, of several
    that ask the same (about other pictures) the first with the first.
    """
    left, right = _named(first, same_kit), _named(second, same_kit)
    found = []
    for key in dict.fromkeys((*left, *right)):
        a, b = left.get(key), right.get(key)
        if a is None or b is None or a.score != b.score:
            name = next(each.question_id for each in (a, b) if each is not None)
            found.append(Difference(key[0], name, _cause(a, b), a, b))
    return found


def matched(
    first: Iterable[Sample], second: Iterable[Sample], *, same_kit: bool = True
) -> list[Pair]:
    """Return the questions that both asked, matched as in `differences`."""
    left, right = _named(first, same_kit), _named(second, same_kit)
    return [
        Pair(a.benchmark, a.question_id, a.stratum, a.score, right[key].score)
        for key, a in left.items()
        if key in right
    ]


def _named(samples: Iterable[Sample], same_kit: bool) -> dict[tuple[str, ...], Sample]:
    if same_kit:
        return {(s.benchmark, s.question_id): s for s in samples}
    found: dict[tuple[str, ...], Sample] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        asked = (sample.benchmark, sample.stem or sample.question_id)
        found[asked[0], asked[1], str(seen[asked])] = sample
        seen[asked] += 1
    return found


def _cause(first: Sample | None, second: Sample | None) -> str:
    if first is None or second is None:
        return CAUSES[0]
    # Two kits never send the same prompt: it explains a response, not what is made of it.
    responds = first.response != second.response
    applies = (
        first.gold != second.gold,
        responds and first.prompt_hash != second.prompt_hash,
        responds,
        first.extracted != second.extracted,
    )
    causes = (cause for cause, it in zip(CAUSES[1:], applies, strict=False) if it)
    return next(causes, CAUSES[-1])


def find_evaluation(ledger: Ledger, name: str) -> Evaluation:
    """The evaluation of a number, else the newest of a model: its folder, run or fingerprint.

    Raises:
        UserError: there is none, or the name stands for several models.
    """
    every = ledger.evaluations()
    if name.isdecimal():
        matching = [each for each in every if each.id == int(name)]
    else:
        path = str(locate(name)) if name.startswith("nano:") else name.rstrip("/")
        matching = [
            each
            for each in every
            if path in (each.path, each.run)
            or each.path.endswith(f"/{path}")
            or (len(path) >= 6 and each.fingerprint.startswith(path))
        ]
    if not matching:
        known = ", ".join(f"{each.id} ({each.path})" for each in every[:5]) or "none yet"
        raise UserError(f"{ledger.path} has no evaluation {name!r}; the last are: {known}")
    if len({each.fingerprint for each in matching}) > 1:
        which = ", ".join(f"{each.id} ({each.path})" for each in matching[:5])
        raise UserError(f"{ledger.path} has several models called {name!r}: {which}; give a number")
    return matching[0]


def counts(found: Sequence[Difference]) -> dict[str, dict[str, int]]:
    """How many differ: {benchmark: {cause: number}}, in the order of the questions."""
    table: dict[str, dict[str, int]] = {}
    for each in found:
        row = table.setdefault(each.benchmark, dict.fromkeys(CAUSES, 0))
        row[each.cause] += 1
    return table
