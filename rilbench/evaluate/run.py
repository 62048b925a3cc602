"""Evaluate models on a suite: the kit asks, the model responds, the kit scores.

One call of `evaluate_many` goes through these steps: prepare data and prompts, collect a response
to every question (`responses`), let the kit score them, record the evaluation in the ledger. Each
finished step is a file in the work folder, so a killed evaluation resumes where it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.data import DataFile, usable_files
from rilbench.evaluate.endpoint import find_endpoint
from rilbench.evaluate.events import Progress, Report, silent
from rilbench.evaluate.identity import ServedModel, serving_model
from rilbench.evaluate.judge_session import code_judge_name
from rilbench.evaluate.kit_session import Kit
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.kits.lmmseval_tasks import with_task_descriptions
from rilbench.evaluate.model_run import ModelResult, ModelRun, greedy
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.provenance import Provenance, to_evaluation
from rilbench.evaluate.suite import Suite
from rilbench.evaluate.suite_prompts import suite_prompts
from rilbench.extras import require
from rilbench.ledger import Evaluation, Ledger


def evaluate(
    model: Path, plan: EvalOptions, on_progress: Report = silent, kit: Kit | None = None
) -> Evaluation:
    """Evaluate one model; see `evaluate_many`."""
    return evaluate_many([model], plan, on_progress, kit)[0]


def evaluate_many(
    models: Sequence[Path], plan: EvalOptions, on_progress: Report = silent, kit: Kit | None = None
) -> list[Evaluation]:
    """Evaluate checkpoints on a suite and record them in the ledger; see `evaluate_each`."""
    return list(evaluate_each(models, plan, on_progress, kit))


def evaluate_each(
    models: Sequence[Path], plan: EvalOptions, on_progress: Report = silent, kit: Kit | None = None
) -> Iterator[Evaluation]:
    """Evaluate checkpoints on a suite, one after another, and record each in the ledger.

    Existing responses and scores in the ``work`` folder are reused; the kit starts only if there
    is something left for it to do, once for all models.

    Args:
        models: checkpoint folders; none where an endpoint serves the model.
        plan: what to evaluate on, and how.
        on_progress: called at each step.
        kit: a running kit that also serves the next call; by default one that ends with this call.

    Yields:
        One evaluation per model, in order, recorded before the next model is asked.

    Raises:
        UserError: a checkpoint, the data, the ledger, a server, the judge or the kit is not usable.
            Responses and scores that were complete by then are kept.
    """
    suite = plan.chosen()
    if kit is not None and (kit.chosen, kit.name) != (plan.judge, plan.kit):
        raise UserError("this kit was opened for another toolkit or judge; give both the same")
    if plan.engine == "batch" or (plan.endpoint is None and plan.vllm is None):
        require("train", "a model that is not behind --endpoint")
    if plan.endpoint is not None and len(models) > 1:
        raise UserError("an endpoint serves one model; evaluate one at a time with it")
    checkpoints = [inspect_checkpoint(model) for model in models]
    plan = plan.with_model_settings(checkpoints)
    served = _served(plan, suite, checkpoints)
    if served is not None:
        checkpoints = checkpoints or [served.endpoint.checkpoint]
    with ExitStack() as stack:
        # Opened first, so that a read-only ledger is noticed before the work, not after it.
        ledger = stack.enter_context(Ledger(plan.db)) if plan.db is not None else None
        log = plan.work.absolute() / "kit.log"
        own = Kit(log, plan.judge, plan.kit, fresh_verdicts=plan.fresh_verdicts)
        running = stack.enter_context(own) if kit is None else kit
        prepared = _prepare(plan, suite, checkpoints, served, running, on_progress)
        results: dict[str, ModelResult] = {}
        for checkpoint in checkpoints:
            # Models with the same content share one result.
            if checkpoint.content not in results:
                results[checkpoint.content] = prepared.run.one(checkpoint, running, prepared.python)
            evaluation = prepared.evaluation(checkpoint, results[checkpoint.content])
            if ledger is not None:
                evaluation = replace(evaluation, id=ledger.record(evaluation))
            yield evaluation
        on_progress(Progress("done"))


def _served(
    plan: EvalOptions, suite: Suite, checkpoints: Sequence[Checkpoint]
) -> ServedModel | None:
    """Find out what the endpoint serves; None without one. Raises as `evaluate_each`."""
    if plan.endpoint is None:
        return None
    endpoint = find_endpoint(plan.endpoint)
    sampling = greedy(plan, suite)
    return serving_model(endpoint, plan.work.absolute(), checkpoints, sampling, fresh=plan.fresh)


@dataclass(frozen=True)
class _Prepared:
    """What all models of an evaluation share: questions, data files and the kit's Python."""

    run: ModelRun
    python: Path
    files: Mapping[str, DataFile]

    def evaluation(self, checkpoint: Checkpoint, result: ModelResult) -> Evaluation:
        """Return a model's scores with their provenance, and what its user should know."""
        plan, suite, served = self.run.plan, self.run.suite, self.run.served
        provenance = Provenance(
            suite=suite,
            prompts=self.run.prompts,
            kit_version=result.kit,
            judge=result.judge,
            generation=self.run.generation,
            data={name: file.state for name, file in self.files.items()},
            judge_reads=not plan.judge.exact,
            data_reasons={name: file.reason for name, file in self.files.items() if file.reason},
        )
        evaluation = to_evaluation(checkpoint, provenance, result.answers, result.scores)
        notes: dict[str, Any] = dict(served.notes) if served is not None else {}
        if stored := self.run.stored_responses(result.answers):
            notes["stored_responses"] = stored
        if suite.published and (unlike := plan.unlike_kit(checkpoint)):
            notes["unlike_kit"] = unlike
        return replace(evaluation, settings={**evaluation.settings, **notes})


def _prepare(
    plan: EvalOptions,
    suite: Suite,
    checkpoints: Sequence[Checkpoint],
    served: ServedModel | None,
    kit: Kit,
    on_progress: Report,
) -> _Prepared:
    """Try the judge, make the kit's environment, and find data and prompts."""
    # A language model is probed with one request before the evaluation starts.
    judge = code_judge_name(plan.judge) if plan.judge.exact else kit.judge().identity
    plan.work.mkdir(parents=True, exist_ok=True)
    python = plan.python or ensure_environment(
        plan.kit, lambda line: on_progress(Progress("environment", note=line))
    )
    suite = with_task_descriptions(suite, python)
    prompts = suite_prompts(plan, suite, python, plan.style(checkpoints), on_progress)
    run = ModelRun(plan, suite, prompts, judge, served, on_progress)
    return _Prepared(run, python, usable_files(suite, plan.data))
