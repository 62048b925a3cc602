"""A baseline from the evaluations of a ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.check.baseline import Baseline, Entry, Reason, merged, read_baseline, write_baseline
from rilbench.check.compare import chosen, unlike, with_runs
from rilbench.check.metrics import MEAN, TRAINING, Cell, Measured, story
from rilbench.check.thresholds import DROP, MIN_SEEDS, POWER, power
from rilbench.errors import UserError
from rilbench.ledger import Ledger, latest, utc_now

_DIGITS = 4


@dataclass(frozen=True)
class Update:
    """What an update did: the file's content, and what a user should know of it."""

    baseline: Baseline
    changed: tuple[str, ...]
    notes: tuple[str, ...]


def update_baseline(
    ledger: Ledger,
    path: Path,
    reason: str,
    commit: tuple[str | None, bool] = (None, False),
    only: Sequence[str] = (),
) -> Update:
    """Write entries for the models that the ledger has evaluated.

    Entries of models that it has not are kept; where no entry changes, the file stays as it is. The
    bounds of all entries are made anew, as they share one chance of a false alarm.

    Args:
        ledger: with the evaluations.
        path: of the baseline.
        reason: kept in the file.
        commit: of the code, and whether it was changed since.
        only: parts of labels; other models are left alone. None for all.

    Raises:
        UserError: no reason, no evaluation that could be a baseline, or a file that is none.
    """
    if not reason.strip():
        raise UserError('a baseline is not changed without a reason; give --reason "..."')
    old = read_baseline(path) if path.exists() else Baseline(())
    evaluations = ledger.evaluations()
    entries, notes = _entries(with_runs(latest(evaluations), ledger.runs()))
    entries = chosen(entries, only)
    if not entries:
        why = f": {notes[0]}" if notes else ""
        raise UserError(
            f"{ledger.path} has no evaluation that could be a baseline{why}; first: rilbench eval"
        )
    entries, few = _without_few(entries, old)
    notes += few
    before = {entry.key: entry for entry in old.entries}
    changed = tuple(entry.label for entry in entries if before.get(entry.key) != entry)
    if changed:
        said = Reason(utc_now()[:10], *commit, " ".join(reason.split()), changed)
        old = Baseline(merged(old.entries, entries), (*old.history, said))
        write_baseline(old, path)
    return Update(old, changed, (*notes, *_weak(old)))


def _without_few(entries: Sequence[Entry], old: Baseline) -> tuple[list[Entry], list[str]]:
    """Leave out single seeds of a family that the baseline knows by more of them."""
    families = {entry.key[:-1] for entry in old.entries if entry.is_family}
    few = [entry for entry in entries if not entry.is_family and entry.key[:-1] in families]
    notes = [
        f"{entry.label} is left out, the baseline has its family; {MIN_SEEDS} seeds change that"
        for entry in few
    ]
    return [entry for entry in entries if entry not in few], notes


def _weak(baseline: Baseline) -> Iterable[str]:
    """Where the bounds are too wide for what the gate promises."""
    for entry, alphas in zip(baseline.entries, baseline.levels(), strict=True):
        for name, count in entry.not_measured.items():
            yield f"{entry.label}: {name} has no bound, {count} of {len(entry.seeds)} runs have it"
        if MEAN in alphas and (found := power(entry.cells, alphas)) < POWER:
            yield (
                f"{entry.label}: a mean lower by {DROP:g} points is found in {found:.0%} of the "
                "cases; more seeds or questions find it in more"
            )


def _entries(measured: Iterable[Measured]) -> tuple[list[Entry], list[str]]:
    """Entries of all kinds of models, and what was left out; the newest evaluations come first."""
    groups: dict[tuple[object, ...], list[Measured]] = {}
    notes = []
    for each in measured:
        found = each.evaluation
        name = f"evaluation {found.id} ({found.student} {found.method} {found.teacher})"
        lacking = [s.benchmark for s in found.scores if s.value is None or s.partial]
        if lacking or not found.scores:
            notes.append(f"{name} is left out, it is partial: {', '.join(lacking) or 'no score'}")
            continue
        labels = (found.suite, found.kit, found.student, found.method, found.teacher)
        group = groups.setdefault((*labels, found.family), [])
        if group and (differs := _differs(group[0], each)):
            notes.append(f"{name} is left out, it is not comparable with a newer one: {differs}")
            continue
        group.append(each)
    return [entry for group in groups.values() for entry in _of_group(group)], notes


def _differs(first: Measured, other: Measured) -> str:
    """What keeps two evaluations from being seeds of one entry; empty for nothing."""
    if first.scores.keys() != other.scores.keys():
        return "other benchmarks"
    for name, score in first.scores.items():
        if parts := unlike(story(score), other.scores[name]):
            return f"{name} has another {', '.join(parts)}"
    return ""


def _of_group(group: Sequence[Measured]) -> Iterable[Entry]:
    """One entry for a family of seeds; else one for each seed, or for the newest of the labels."""
    by_seed: dict[int | None, Measured] = {}
    for each in group:
        seed = None if each.evaluation.family is None else each.evaluation.seed
        by_seed.setdefault(seed, each)
    if None not in by_seed and len(by_seed) >= MIN_SEEDS:
        yield _entry([by_seed[seed] for seed in sorted(by_seed, key=lambda seed: seed or 0)])
        return
    for seed in by_seed:
        yield _entry([by_seed[seed]])


def _entry(measured: Sequence[Measured]) -> Entry:
    first, family = measured[0].evaluation, len(measured) > 1
    columns = [score.benchmark for score in first.scores]

    def values(name: str) -> tuple[float, ...]:
        found = (each.value(name, columns) for each in measured)
        return tuple(round(value, _DIGITS) for value in found if value is not None)

    cells = [
        Cell(score.benchmark, values(score.benchmark), score.questions, story(score))
        for score in first.scores
    ]
    if len(columns) > 1:
        cells.append(Cell(MEAN, values(MEAN)))
    # What training came to has no bound without seeds.
    training = {name: values(name) for name in TRAINING} if family else {}
    cells += [Cell(name, found) for name, found in training.items() if len(found) >= MIN_SEEDS]
    return Entry(
        suite=first.suite,
        kit=first.kit,
        student=first.student,
        method=first.method,
        teacher=first.teacher,
        family=first.family,
        seed=None if family or first.family is None else first.seed,
        cells=tuple(cells),
        seeds=tuple(each.evaluation.seed or 0 for each in measured) if family else (),
        commits=tuple(sorted({each.evaluation.commit or "" for each in measured} - {""})),
        not_measured={n: len(found) for n, found in training.items() if len(found) < MIN_SEEDS},
    )
