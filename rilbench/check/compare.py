"""A ledger against a baseline: one verdict for each cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from rilbench.check.baseline import Baseline, Entry
from rilbench.check.metrics import LOWER_IS_BETTER, MEAN, TRAINING, Cell, Measured, story
from rilbench.check.thresholds import Bound
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Run, Score, latest

State = Literal["passed", "failed", "not measured", "not comparable", "skipped"]
OPEN: frozenset[State] = frozenset({"passed", "skipped"})
"""All other states close the gate: what is not measured has not passed."""


@dataclass(frozen=True)
class Verdict:
    """What came of one cell.

    Attributes:
        entry: the entry's label.
        cell: its name.
        state: passed, failed, or why there is no comparison.
        value: what was measured.
        limit: the bound.
        usual: the calibration's mean.
        why: in words, for all but what passed.
    """

    entry: str
    cell: str
    state: State
    value: float | None
    limit: float
    usual: float
    why: str = ""

    @property
    def open(self) -> bool:
        """It does not close the gate."""
        return self.state in OPEN

    @property
    def lower_is_better(self) -> bool:
        """The limit is an upper one."""
        return self.cell in LOWER_IS_BETTER


class _Labelled(Protocol):
    @property
    def label(self) -> str: ...


_Any = TypeVar("_Any", bound=_Labelled)


def chosen(entries: Sequence[_Any], only: Sequence[str]) -> list[_Any]:
    """The entries whose labels have any of these parts; all where there are none.

    Raises:
        UserError: a part is in no label.
    """
    labels = [entry.label for entry in entries]
    for part in only:
        if not any(part in label for label in labels):
            raise UserError(f"no entry is called {part!r}; there is {', '.join(labels) or 'none'}")
    return [each for each in entries if not only or any(part in each.label for part in only)]


def check_ledger(ledger: Ledger, baseline: Baseline, only: Sequence[str] = ()) -> list[Verdict]:
    """Compare the newest evaluation of each entry's models; no answer of a question is read.

    Args:
        ledger: with evaluations and runs.
        baseline: what they are compared with.
        only: parts of labels of entries; none for all.

    Raises:
        UserError: the ledger has no evaluation, or none on any of the entries' suites.
    """
    entries = chosen(baseline.entries, only)
    evaluations = latest(ledger.evaluations())
    if not evaluations:
        raise UserError(f"{ledger.path} has no evaluation to check; first: rilbench eval")
    suites = {each.suite for each in evaluations}
    wanted = sorted({entry.suite for entry in entries})
    if not suites & set(wanted):
        raise UserError(
            f"the baseline is for the suite {', '.join(wanted)}, {ledger.path} has evaluations of "
            f"{', '.join(sorted(suites))} alone; give another --baseline or another --db"
        )
    bounds = dict(zip((e.label for e in baseline.entries), baseline.bounds(), strict=True))
    measured = with_runs(evaluations, ledger.runs())
    verdicts = []
    for entry in entries:
        newest = next((m for m in measured if entry.matches(m.evaluation)), None)
        verdicts += check_entry(entry, bounds[entry.label], newest)
    return verdicts


def with_runs(evaluations: Iterable[Evaluation], runs: Iterable[Run]) -> list[Measured]:
    """Each evaluation with the run that trained its model: of that name, by that recipe.

    Of several runs it is the one that was begun last.
    """
    by_name: dict[tuple[str, str | None], Run] = {}
    for run in sorted(runs, key=lambda run: run.created):
        by_name[run.name, run.recipe_fingerprint] = run
    return [
        Measured(each, by_name.get((each.run or "", each.recipe_fingerprint)))
        for each in evaluations
    ]


def check_entry(
    entry: Entry,
    bounds: Mapping[str, Bound],
    measured: Measured | None,
    *,
    scores_alone: bool = False,
) -> list[Verdict]:
    """Compare one evaluation with an entry.

    Args:
        entry: of its model.
        bounds: of the entry's cells.
        measured: None where the ledger has none.
        scores_alone: what a run that the ledger does not have came to is skipped, not missed.
    """
    unlike_cells = _unlike(entry, measured)
    verdicts = []
    for cell in entry.cells:
        limit, value = bounds[cell.name].value, None
        state: State = "not measured"
        why = "the ledger has no evaluation of this model"
        if measured is not None:
            value = measured.value(cell.name, entry.columns)
            if cell.name in unlike_cells:
                state, why = "not comparable", unlike_cells[cell.name]
            elif value is not None:
                state, why = _judge(cell, limit, value)
            elif scores_alone and cell.name in TRAINING and measured.run is None:
                state, why = "skipped", _lack(cell, entry, measured)
            else:
                why = _lack(cell, entry, measured)
        verdicts.append(Verdict(entry.label, cell.name, state, value, limit, cell.usual, why))
    return verdicts


def _judge(cell: Cell, limit: float, value: float) -> tuple[State, str]:
    if cell.lower_is_better and value > limit:
        return "failed", f"{value:.3f} is above {limit:.3f}, {value / cell.usual:.2f} of the usual"
    if not cell.lower_is_better and value < limit:
        return "failed", f"{value:.3f} is below {limit:.3f}, usual is {cell.usual:.3f}"
    return "passed", ""


def _lack(cell: Cell, entry: Entry, measured: Measured) -> str:
    if cell.name not in TRAINING:
        return measured.lacks(entry.columns if cell.name == MEAN else [cell.name])
    if measured.run is None:
        return "its training run is not in this ledger"
    return "its training run did not measure it"


def _unlike(entry: Entry, measured: Measured | None) -> dict[str, str]:
    """Cells whose scores were made otherwise than the baseline's, and what of it is other."""
    if measured is None:
        return {}
    found = {}
    for cell in entry.cells:
        score = measured.scores.get(cell.name)
        if score is not None and (parts := unlike(cell.story, score)):
            now = story(score)
            words = (f"{part} {now[part]!r}, not {cell.story.get(part)!r}" for part in parts)
            found[cell.name] = f"another {'; '.join(words)}"
    if found:
        found[MEAN] = f"as {', '.join(found)}"
    return found


def unlike(before: Mapping[str, str | None], score: Score) -> list[str]:
    """The parts of a score's story that differ from another's."""
    return [name for name, value in story(score).items() if before.get(name) != value]


def problems(verdicts: Iterable[Verdict]) -> list[str]:
    """In one line each, what closes the gate; many cells that were not measured are one."""
    found = []
    lost: dict[tuple[str, str], list[str]] = {}
    for each in verdicts:
        if each.state == "not measured":
            lost.setdefault((each.entry, each.why), []).append(each.cell)
        elif not each.open:
            found.append(f"{each.entry}: {each.cell} {each.state}: {each.why}")
    for (entry, why), cells in lost.items():
        names = ", ".join(cells) if len(cells) <= 4 else f"{len(cells)} cells"
        found.append(f"{entry}: {names} not measured: {why}")
    return found
