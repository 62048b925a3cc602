"""Evaluate one checkpoint and compare it with the entries of its labels."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rilbench.check.baseline import Baseline, Entry
from rilbench.check.compare import (
    Verdict,
    check_entry,
    select_entries,
    with_outcomes,
    with_runs,
)
from rilbench.checkpoint import inspect_checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.cli_tables import PACKAGES
from rilbench.evaluate.data import data_folder
from rilbench.evaluate.events import Report
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate
from rilbench.evaluate.suite import SUITES, find_suite
from rilbench.ledger import Ledger


def check_model(
    model: Path,
    baseline: Baseline,
    only: Sequence[str],
    on_progress: Report,
    *,
    work: Path,
    db: Path,
    data: Path | None = None,
    fresh: bool = False,
) -> list[Verdict]:
    """Evaluate a checkpoint in this process on the suites of its entries, record and compare it.

    The training metrics are compared if the ledger has the run.

    Args:
        model: the checkpoint's folder.
        baseline: the bounds.
        only: parts of the labels of the entries to compare; none for all.
        on_progress: called with the evaluation's progress.
        work: folder for the responses.
        db: the ledger.
        data: folder with the benchmarks' data; None for the suite's own.
        fresh: ask every question again.

    Raises:
        UserError: no entry is about such a model, or the evaluation failed.
    """
    bounds = baseline.bounds()
    verdicts = []
    for entry in _entries(model, baseline, only):
        kits = {package: name for name, package in PACKAGES.items()}
        kit = kits.get(entry.kit, entry.kit)
        suite = find_suite(entry.suite).by(kit)
        # The suite's order; then those that the suite does not have, which eval knows or refuses.
        names = [name for name in suite.columns if name in entry.benchmarks]
        names += [name for name in entry.benchmarks if name not in names]
        options = EvalOptions(
            suite=entry.suite,
            data=data_folder(suite, data),
            work=work,
            db=db,
            kit=kit,
            benchmarks=() if names == list(suite.columns) else tuple(names),
            fresh=fresh,
            engine="batch",
        )
        if needed := [benchmark.column for benchmark in options.judged()]:
            raise UserError(
                f"{', '.join(needed)} need a language model as judge, which --model has none of; "
                f"first: rilbench eval --model {shlex.quote(str(model))} --suite {entry.suite} "
                f"--kit {kit} --judge MODEL@URL; then, without --model: rilbench check, which "
                "compares the ledger's newest evaluation"
            )
        evaluation = evaluate(model, options, on_progress)
        with Ledger.open_read(db) as ledger:
            (measured,) = with_runs([evaluation], ledger.runs())
            measured = with_outcomes(measured, ledger) if entry.single else measured
        verdicts += check_entry(entry, bounds[entry.label], measured, scores_alone=True)
    return verdicts


def _entries(model: Path, baseline: Baseline, only: Sequence[str]) -> list[Entry]:
    """Return the entries about a checkpoint, by its labels."""
    labels = inspect_checkpoint(model).labels
    entries = [
        entry
        for entry in select_entries(baseline.entries, only)
        if (entry.student, entry.method, entry.teacher, entry.family)
        == (labels.student, labels.method, labels.teacher, labels.family)
        and entry.seed in (None, labels.seed)
        and entry.suite in SUITES
    ]
    if not entries:
        name = f"{labels.student} {labels.method} {labels.teacher}"
        recipe = "" if labels.family is None else f", recipe {labels.family[:8]}"
        raise UserError(
            f"the baseline has no entry for {name}{recipe}; add one: rilbench eval --model {model} "
            '--engine batch, then rilbench check --update --reason "..."'
        )
    return entries
