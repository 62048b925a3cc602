"""Evaluate models on a suite: prompts by the kit, answers by the model, scores by the kit."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rilbench.api_keys import endpoint_key
from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.batch_engine import OfflineModel, answer_in_batches
from rilbench.evaluate.data import data_states, ensure_data
from rilbench.evaluate.endpoint import Endpoint, find_endpoint
from rilbench.evaluate.judge_session import EXACT_RULES, RunningJudge, code_judge_name
from rilbench.evaluate.kit_session import Kit
from rilbench.evaluate.kits.base import read_scores, score_job
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.kits.lmmseval_dataset import write_hub
from rilbench.evaluate.kits.scores import KitScore
from rilbench.evaluate.kits.worker_process import KitProcess
from rilbench.evaluate.options import MODEL_PROMPTS, EvalOptions
from rilbench.evaluate.prompts import PromptSet, Question
from rilbench.evaluate.provenance import Provenance, to_evaluation
from rilbench.evaluate.responses import AnswerFile, ask, open_answers
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, Suite
from rilbench.ledger import Evaluation, Ledger
from rilbench.serving import ChatClient, Sampling, serve


@dataclass(frozen=True)
class Progress:
    """What an evaluation is doing.

    ``stage`` is ``environment``, ``data``, ``prompts``, ``server``, ``answers``, ``scores`` or
    ``done``; ``done`` of ``total`` count answers in that stage and are 0 elsewhere.
    """

    stage: str
    model: str = ""
    done: int = 0
    total: int = 0
    note: str = ""


_JUDGE = "judge.json"
"""Beside the kit's result: the judge's story."""

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Finished:
    """What came of one model."""

    answers: AnswerFile
    kit: str
    """With its version."""
    scores: dict[str, KitScore]
    """By dataset."""
    judge: dict[str, Any]
    """See `RunningJudge.story`; and ``trouble``, why the last question failed."""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # It is another environment's program.
        return "of unknown version"


def _silent(_: Progress) -> None:
    """Report nothing."""


def evaluate(
    model: Path, plan: EvalOptions, on_progress: Report = _silent, kit: Kit | None = None
) -> Evaluation:
    """Evaluate one model; see `evaluate_many`."""
    return evaluate_many([model], plan, on_progress, kit)[0]


def evaluate_many(
    models: Sequence[Path], plan: EvalOptions, on_progress: Report = _silent, kit: Kit | None = None
) -> list[Evaluation]:
    """Evaluate checkpoints on a suite and record them in the ledger.

    The kit starts once for all of them, and not at all when nothing of its work has changed since
    an earlier call with the same ``work`` folder. Answers that are there are not asked again.
    A ``kit`` outlives this call and serves the next; without one, the kit ends with the call.

    Raises:
        UserError: a checkpoint, the data, the ledger, a server, the judge or the kit is not as it
            must be. Answers and scores that were complete by then are kept.
    """
    suite = plan.chosen()
    if kit is not None and (kit.chosen, kit.name) != (plan.judge, plan.kit):
        raise UserError("the kit is another, or has another judge; give both the same")
    if plan.endpoint is not None and len(models) > 1:
        raise UserError("an endpoint serves one model; evaluate one at a time with it")
    endpoint = find_endpoint(plan.endpoint) if plan.endpoint is not None else None
    checkpoints = [inspect_checkpoint(model) for model in models]
    if endpoint is not None and not checkpoints:
        checkpoints = [endpoint.checkpoint]
    with ExitStack() as stack:
        # Opened first: a read-only ledger is found before the work, not after it.
        ledger = stack.enter_context(Ledger(plan.db)) if plan.db is not None else None
        own = Kit(plan.work.absolute() / "kit.log", plan.judge, plan.kit)
        running = stack.enter_context(own) if kit is None else kit
        # A language model is asked one word before anything is spent; the rules need no start.
        judge = code_judge_name(plan.judge) if plan.judge.exact else running.judge().name
        python, prompts = _prompts(plan, suite, plan.style(checkpoints), on_progress)
        states = data_states(suite, plan.data)
        run = _Run(plan, suite, prompts, judge, endpoint, on_progress)
        by_name = {found.content: found for found in checkpoints}
        finished = run.all(by_name, running, python)
        evaluations = []
        for checkpoint in checkpoints:
            one, reads = finished[checkpoint.content], not plan.judge.exact
            story = Provenance(suite, prompts, one.kit, one.judge, run.generation, states, reads)
            evaluation = to_evaluation(checkpoint, story, one.answers, one.scores)
            if ledger is not None:
                evaluation = replace(evaluation, id=ledger.record(evaluation))
            evaluations.append(evaluation)
        on_progress(Progress("done"))
        return evaluations


def preview(plan: EvalOptions, on_progress: Report = _silent) -> list[Question]:
    """The questions that `evaluate_many` would ask; of the model and the judge nothing is asked.

    Raises:
        UserError: the data or the kit is not as it must be.
    """
    if plan.prompt == MODEL_PROMPTS:
        raise UserError(f"without a model there are no --prompt {MODEL_PROMPTS}; leave it out")
    python, prompts = _prompts(plan, plan.chosen(), None, on_progress)
    if not prompts.ready:
        on_progress(Progress("prompts"))
        with Kit(plan.work.absolute() / "kit.log", name=plan.kit) as kit:
            process = kit.process(python)
            prompts.submit(process)
            prompts.finish(process)
    return prompts.questions


def _prompts(
    plan: EvalOptions, suite: Suite, style: str | None, on_progress: Report
) -> tuple[Path, PromptSet]:
    """The kit's Python and the suite's prompts, which may still have to be made."""
    python = plan.python or ensure_environment(
        plan.kit, lambda line: on_progress(Progress("environment", note=line))
    )
    data = plan.data
    if suite.kit == VLMEVALKIT or not suite.published:
        tsv = suite.by(VLMEVALKIT)
        ensure_data(tsv, data, python, lambda line: on_progress(Progress("data", note=line)))
    if suite.kit == LMMSEVAL and not suite.published:
        data = write_hub(data, plan.work / "hub")
    environment = python.parent.parent.name
    cache = plan.work / "prompts"
    chosen = suite.datasets, data, cache, environment
    return python, PromptSet(*chosen, plan.limit, plan.kit, style)


class _Run:
    """One call of `evaluate_many`, after its checks."""

    def __init__(
        self,
        plan: EvalOptions,
        suite: Suite,
        prompts: PromptSet,
        judge: str,
        endpoint: Endpoint | None,
        report: Report,
    ) -> None:
        self.plan, self.suite, self.prompts, self.judge = plan, suite, prompts, judge
        self.endpoint, self.report = endpoint, report
        self.work = plan.work.absolute()
        self.sampling = Sampling(max_tokens=suite.max_tokens)
        longest = suite.max_tokens if plan.max_tokens or plan.kit == VLMEVALKIT else "kit"
        program = f"transformers serve {_version('transformers')}"
        if plan.vllm is not None:
            program = f"vllm serve {_version('vllm')}"
        server = f"{program} on {plan.device}, {plan.dtype}"
        if endpoint is not None:
            server = f"{endpoint.model} at {endpoint.url}"
        if plan.engine == "batch":
            how = f"batches of {plan.batch}, on {plan.device}"
            server = f"transformers generate {_version('transformers')}, {how}"
        self.generation = {
            "server": server,
            **asdict(self.sampling),
            "max_tokens": longest,
            "pixels": asdict(plan.pixels),
        }

    def all(self, models: Mapping[str, Checkpoint], kit: Kit, python: Path) -> dict[str, Finished]:
        """Collect the answers of all models (by their content), then score them."""
        with ExitStack() as stack:
            answers = {
                name: stack.enter_context(open_answers(self._answer_files(name))) for name in models
            }
            if self.plan.fresh or not all(self._scored(found) for found in answers.values()):
                try:
                    self._work(models, answers, kit, python)
                except BaseException:
                    kit.discard()
                    raise
            return {name: self._read(found) for name, found in answers.items()}

    def _read(self, answers: AnswerFile) -> Finished:
        """The kit's scores, without its verdicts on questions that have no answer."""
        result = self._result(answers)
        kit, scores = self._scores(result)
        judge = result.with_name(_JUDGE)
        asked = json.loads(judge.read_bytes()) if judge.exists() else {"name": self.judge}
        lost = {q.dataset: set[str]() for q in self.prompts.questions}
        for question in self.prompts.questions:
            if answers.found[question.key].failed:
                lost[question.dataset].add(question.group)
        rest = {name: each.without(lost[name]) for name, each in scores.items()}
        return Finished(answers, kit, rest, asked)

    def _scores(self, result: Path) -> tuple[str, dict[str, KitScore]]:
        return read_scores(self.prompts.kit, result, self.suite.datasets)

    def _work(
        self,
        models: Mapping[str, Checkpoint],
        answers: Mapping[str, AnswerFile],
        kit: Kit,
        python: Path,
    ) -> None:
        # Started first: it imports while the server starts and the model answers.
        process = kit.process(python)
        if not self.prompts.ready:
            self.report(Progress("prompts"))
            self.prompts.submit(process)
        for name, model in models.items():
            self._collect(model, answers[name], process)
        for name, model in models.items():
            self._score(model, answers[name], process, kit.judge())

    def _answer_files(self, model: str) -> dict[str, Path]:
        """Of each dataset the file for this model, these prompts and this way of generating.

        A question that a server was asked once is not asked again, whatever else is asked and how
        many. In a batch its company is a part of the way, so that all share one file.
        """
        files = {}
        for dataset, asked in self.prompts.stories.items():
            prompts = self.prompts.name if self.plan.engine == "batch" else asked
            story = json.dumps([prompts, self.generation], sort_keys=True)
            name = f"{model}-{hashlib.sha256(story.encode()).hexdigest()[:12]}"
            files[dataset] = self.work / "answers" / f"{name}.jsonl"
        return files

    def _answered(self, answers: AnswerFile) -> bool:
        """Every question that can be asked has an answer."""
        if not self.prompts.ready:
            return False
        answers.note_problems(self.prompts.questions)
        return not answers.missing(self.prompts.questions)

    def _scored(self, answers: AnswerFile) -> bool:
        return self._answered(answers) and self._complete(self._result(answers))

    def _complete(self, result: Path) -> bool:
        """The kit's result is there, and no language model owes it a verdict."""
        if not result.exists():
            return False
        _, scores = self._scores(result)
        return self.plan.judge == EXACT_RULES or not any(each.missing for each in scores.values())

    def _collect(self, model: Checkpoint, answers: AnswerFile, kit: KitProcess) -> None:
        """Ask what has no answer yet; the kit may still be making the prompts at the start."""
        if not self.plan.fresh and self._answered(answers):
            return

        def count(done: int) -> None:
            total = len(self.prompts.questions)
            self.report(Progress("answers", model.labels.student, done, total))

        def begin() -> None:
            self.prompts.finish(kit)
            questions = self.prompts.questions
            if self.plan.fresh:
                answers.forget(questions)
            answers.note_problems(questions)
            count(len(questions) - len(answers.missing(questions)))

        if self.plan.engine == "batch":
            offline = OfflineModel(model, self.plan.device, self.plan.pixels)
            begin()
            size = self.plan.batch
            answer_in_batches(offline, self.prompts, answers, self._sampling, size, count)
            return
        with self._client(model) as client:
            begin()
            ask(client, self.prompts, answers, self._sampling, count, self.plan.pixels)

    def _sampling(self, question: Question) -> Sampling:
        """How one question is answered: the kit's longest answer, unless the plan has its own."""
        longest, own = self.suite.max_tokens, question.max_tokens
        if own is not None and self.plan.max_tokens is None:
            # A look-alike's answers are short, whatever its original's may be.
            longest = own if self.suite.published else min(own, longest)
        return replace(self.sampling, max_tokens=longest)

    @contextmanager
    def _client(self, model: Checkpoint) -> Iterator[ChatClient]:
        """A client of the model's server, which is started unless there is an endpoint."""
        endpoint, concurrency = self.endpoint, self.plan.in_flight
        if endpoint is not None:
            yield ChatClient(
                endpoint.url,
                endpoint.model,
                transformers=endpoint.transformers,
                api_key=endpoint_key(),
                concurrency=concurrency,
            )
            return
        self.report(Progress("server", model.labels.student))
        log = self.work / "server.log"
        plan = self.plan
        with serve(
            model.path, log=log, device=plan.device, dtype=plan.dtype, vllm=plan.vllm
        ) as server:
            yield ChatClient(
                server.base_url,
                server.model,
                transformers=server.transformers,
                concurrency=concurrency,
            )

    def _texts(self, answers: AnswerFile) -> dict[str, dict[str, str]]:
        """Answers as {dataset: {question_id: text}}, in the order of the questions."""
        texts: dict[str, dict[str, str]] = {d.name: {} for d in self.suite.datasets}
        for question in self.prompts.questions:
            texts[question.dataset][question.question_id] = answers.found[question.key].text
        return texts

    def _result(self, answers: AnswerFile) -> Path:
        """The kit's result for exactly these answers and this judge."""
        # Asked for by another name, it may be another model, whatever its server reports.
        judge = [self.judge, self.plan.judge.model]
        story = json.dumps([self.prompts.name, judge, self._texts(answers)])
        name = hashlib.sha256(story.encode()).hexdigest()[:16]
        return self.work / "scores" / name / "result.json"

    def _score(
        self, model: Checkpoint, answers: AnswerFile, kit: KitProcess, judge: RunningJudge
    ) -> None:
        """Let the kit score in a fresh folder, which gets its name when the result is complete."""
        result = self._result(answers)
        if self._complete(result):
            return
        self.report(Progress("scores", model.labels.student))
        scores = result.parent.parent
        scores.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=scores))
        try:
            texts = self._texts(answers)
            who = judge.url, judge.name, not judge.exact
            job = score_job(self.prompts.job(), building, texts, who)
            judge.begin()
            kit.run("score", job)
            story = {**judge.story(), **({"trouble": judge.trouble} if judge.trouble else {})}
            (building / _JUDGE).write_text(json.dumps(story), encoding="utf-8")
            shutil.rmtree(result.parent, ignore_errors=True)  # One that lacks verdicts.
            building.rename(result.parent)
        finally:
            shutil.rmtree(building, ignore_errors=True)
