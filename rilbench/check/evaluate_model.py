"""Evaluate one checkpoint and compare it with the entries of its labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rilbench.check.baseline import Baseline, Entry
from rilbench.check.compare import Verdict, check_entry, chosen, with_runs
from rilbench.checkpoint import inspect_checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.cli_tables import PACKAGES
from rilbench.evaluate.data import data_folder
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import Report, evaluate
from rilbench.evaluate.suite import SUITES, find_suite
from rilbench.ledger import Ledger


@dataclasses.dataclass(frozen=True)
class How:
    """How the checkpoint is evaluated; see `EvalOptions`; ``data``: None for the suite's folder."""

    work: Path
    db: Path
    data: Path | None = None
    fresh: bool = False


def check_model(
    model: Path, baseline: Baseline, how: How, only: tuple[str, ...], report: Report
) -> list[Verdict]:
    """Evaluate a checkpoint in this process on the suites of its entries, record it, compare it.

    What its training came to is compared where the ledger has the run.

    Raises:
        UserError: no entry is about such a model, or the evaluation failed.
    """
    entries = _entries(model, baseline, only)
    bounds = dict(zip((e.label for e in baseline.entries), baseline.bounds(), strict=True))
    verdicts = []
    for entry in entries:
        plan = _plan(entry, how)
        evaluation = evaluate(model, plan, report)
        with Ledger.open_read(how.db) as ledger:
            (measured,) = with_runs([evaluation], ledger.runs())
        verdicts += check_entry(entry, bounds[entry.label], measured, scores_alone=True)
    return verdicts


def _entries(model: Path, baseline: Baseline, only: tuple[str, ...]) -> list[Entry]:
    labels = inspect_checkpoint(model).labels
    found = [
        entry
        for entry in chosen(baseline.entries, only)
        if (entry.student, entry.method, entry.teacher, entry.family)
        == (labels.student, labels.method, labels.teacher, labels.family)
        and entry.seed in (None, labels.seed)
        and entry.suite in SUITES
    ]
    if not found:
        name = f"{labels.student} {labels.method} {labels.teacher}"
        recipe = "" if labels.family is None else f", recipe {labels.family[:8]}"
        raise UserError(
            f"the baseline has no entry for {name}{recipe}; add one: rilbench eval --model {model} "
            '--engine batch, then rilbench check --update --reason "..."'
        )
    return found


def _plan(entry: Entry, how: How) -> EvalOptions:
    kits = {package: name for name, package in PACKAGES.items()}
    kit = kits.get(entry.kit, entry.kit)
    suite = find_suite(entry.suite).by(kit)
    columns = tuple(name for name in suite.columns if name in entry.columns)
    return EvalOptions(
        suite=entry.suite,
        data=data_folder(suite, how.data),
        work=how.work,
        db=how.db,
        kit=kit,
        benchmarks=columns if len(columns) < len(suite.columns) else (),
        fresh=how.fresh,
        engine="batch",
    )
