"""Write a baseline from the evaluations of a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rilbench.check.baseline import Baseline, Change, Entry, merged, read_baseline, write_baseline
from rilbench.check.compare import (
    differing_parts,
    select_entries,
    with_outcomes,
    with_runs,
)
from rilbench.check.metrics import MEAN, TRAINING, Measured, Metric, provenance
from rilbench.check.thresholds import DROP, MIN_SEEDS, POWER, power
from rilbench.errors import UserError
from rilbench.ledger import Ledger, latest, utc_now
from rilbench.ledger.records import outcomes_hash

_DIGITS = 4


@dataclass(frozen=True)
class Update:
    """The file's content after an update, the labels that changed, and notes for the user."""

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

    Entries of other models are kept. If no entry changes, the file stays as it is. The bounds of
    all entries are computed again, because they share one chance of a false alarm.

    Args:
        ledger: the evaluations.
        path: the baseline file.
        reason: kept in the file.
        commit: the code's commit, and whether the code has changed since.
        only: parts of the labels to update; none for all.

    Raises:
        UserError: no reason, no evaluation that could be a baseline, or a damaged file or
            evaluation.
    """
    if not reason.strip():
        raise UserError('a baseline is not changed without a reason; give --reason "..."')
    old = read_baseline(path) if path.exists() else Baseline(())
    measured = with_runs(latest(ledger.evaluations(strict=True)), ledger.runs())
    entries, notes = _entries(measured, partial(with_outcomes, ledger=ledger))
    entries = select_entries(entries, only)
    if not entries:
        why = f": {notes[0]}" if notes else ""
        raise UserError(
            f"{ledger.path} has no evaluation that could be a baseline{why}; first: rilbench eval"
        )
    # A few seeds do not replace a family that was calibrated by more of them.
    families = {entry.key[:-1] for entry in old.entries if entry.is_family}
    few = [entry for entry in entries if not entry.is_family and entry.key[:-1] in families]
    entries = [entry for entry in entries if entry not in few]
    notes += [
        f"{entry.label} is left out, the baseline has its family; {MIN_SEEDS} seeds change that"
        for entry in few
    ]
    before = {entry.key: entry for entry in old.entries}
    changed = tuple(entry.label for entry in entries if before.get(entry.key) != entry)
    new = old
    if changed:
        change = Change(utc_now()[:10], *commit, " ".join(reason.split()), changed)
        new = Baseline(merged(old.entries, entries), (*old.history, change))
        write_baseline(new, path)
    return Update(new, changed, (*notes, *_weaknesses(new)))


def _weaknesses(baseline: Baseline) -> Iterator[str]:
    """Say where the bounds are missing, or wider than the gate promises."""
    levels = baseline.levels()
    for entry in baseline.entries:
        for name, count in entry.not_measured.items():
            yield f"{entry.label}: {name} has no bound, {count} of {len(entry.seeds)} runs have it"
        alphas = levels[entry.label]
        if MEAN in alphas and (chance := power(entry.metrics, alphas)) < POWER:
            yield (
                f"{entry.label}: a mean lower by {DROP:g} points is found in {chance:.0%} of the "
                "cases; more seeds or questions find it in more"
            )


def _entries(
    measured: Iterable[Measured], with_outcomes: Callable[[Measured], Measured]
) -> tuple[list[Entry], list[str]]:
    """Return the entries of all kinds of models, and notes on what was left out.

    Args:
        measured: the newest evaluations first.
        with_outcomes: reads the outcomes of a model without seeds.
    """
    groups: dict[tuple[object, ...], list[Measured]] = {}
    notes = []
    for model in measured:
        e = model.evaluation
        name = f"evaluation {e.id} ({e.student} {e.method} {e.teacher})"
        lacking = [s.benchmark for s in e.scores if s.value is None or s.partial]
        if lacking or not e.scores:
            notes.append(f"{name} is left out, it is partial: {', '.join(lacking) or 'no score'}")
            continue
        group = groups.setdefault((e.suite, e.kit, e.student, e.method, e.teacher, e.family), [])
        if group and (difference := _difference(group[0], model)):
            notes.append(f"{name} is left out, it is not comparable with a newer one: {difference}")
            continue
        group.append(model)
    entries = []
    for group in groups.values():
        by_seed: dict[int | None, Measured] = {}
        for model in group:
            seed = None if model.evaluation.family is None else model.evaluation.seed
            by_seed.setdefault(seed, model)
        if None not in by_seed and len(by_seed) >= MIN_SEEDS:
            seeds = sorted(by_seed, key=lambda seed: seed or 0)
            entries.append(_entry([by_seed[seed] for seed in seeds]))
        else:
            entries += [_entry([with_outcomes(model)]) for model in by_seed.values()]
    return entries, notes


def _difference(first: Measured, other: Measured) -> str:
    """Say why two evaluations cannot be seeds of one entry; empty if they can."""
    if first.scores.keys() != other.scores.keys():
        return "other benchmarks"
    for name, score in first.scores.items():
        if parts := differing_parts(provenance(score), other.scores[name]):
            return f"{name} has another {', '.join(parts)}"
    return ""


def _entry(measured: Sequence[Measured]) -> Entry:
    """Return the entry of a family's seeds, or of one model."""
    first, family = measured[0].evaluation, len(measured) > 1
    benchmarks = [score.benchmark for score in first.scores]

    def values(name: str) -> tuple[float, ...]:
        known = (model.value(name, benchmarks) for model in measured)
        return tuple(round(value, _DIGITS) for value in known if value is not None)

    metrics = [
        Metric(
            score.benchmark,
            values(score.benchmark),
            score.questions,
            provenance(score),
            outcomes,
            outcomes_hash(outcomes) if outcomes else "",
        )
        for score in first.scores
        for outcomes in [measured[0].outcomes.get(score.benchmark, {})]
    ]
    if len(benchmarks) > 1:
        metrics.append(Metric(MEAN, values(MEAN)))
    # Without seeds, the metrics of a training have no spread and so no bound.
    training = {name: values(name) for name in TRAINING} if family else {}
    metrics += [Metric(name, known) for name, known in training.items() if len(known) >= MIN_SEEDS]
    return Entry(
        suite=first.suite,
        kit=first.kit,
        student=first.student,
        method=first.method,
        teacher=first.teacher,
        family=first.family,
        seed=None if family or first.family is None else first.seed,
        metrics=tuple(metrics),
        seeds=tuple(model.evaluation.seed or 0 for model in measured) if family else (),
        commits=tuple(sorted({model.evaluation.commit or "" for model in measured} - {""})),
        not_measured={n: len(known) for n, known in training.items() if len(known) < MIN_SEEDS},
    )
