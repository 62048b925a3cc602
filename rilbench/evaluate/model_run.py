"""One model's responses to a suite's questions, and the kit's scores of them."""

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rilbench.checkpoint import Checkpoint
from rilbench.evaluate.batch_engine import OfflineModel, answer_in_batches
from rilbench.evaluate.events import Progress, Report
from rilbench.evaluate.identity import STORED, ServedModel, choose
from rilbench.evaluate.judge_session import EXACT_RULES, RunningJudge
from rilbench.evaluate.kit_session import Kit
from rilbench.evaluate.kits.base import read_scores, score_job
from rilbench.evaluate.kits.scores import KitScore
from rilbench.evaluate.kits.worker_process import KitProcess
from rilbench.evaluate.model_server import (
    changing_arguments,
    requests_in_flight,
    started_client,
)
from rilbench.evaluate.new_folder import NewFolder, is_whole
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.prompts import BenchmarkQuestion, PromptSet
from rilbench.evaluate.responses import AnswerFile, ask, open_answers
from rilbench.evaluate.suite import VLMEVALKIT, Suite
from rilbench.ledger import utc_now
from rilbench.serving import ChatClient, Completion, Sampling
from rilbench.serving.reply import UNANSWERED


@dataclass(frozen=True)
class ModelResult:
    """One model's responses and their scores."""

    answers: AnswerFile
    kit: str
    """With its version."""
    scores: dict[str, KitScore]
    """By data set."""
    judge: dict[str, Any]
    """See `RunningJudge.provenance`; and ``troubles``, why questions to it failed."""


def greedy(plan: EvalOptions, suite: Suite) -> Sampling:
    """Return how responses are sampled: greedily, but for the user's fields."""
    penalty = plan.repetition_penalty
    extra = {} if penalty is None else {"repetition_penalty": penalty}
    return Sampling(max_tokens=suite.max_tokens, extra=extra, fields=plan.fields)


class ModelRun:
    """One call of `rilbench.evaluate.run.evaluate_each` after its checks.

    Attributes:
        generation: how responses are generated, as recorded with the scores.
    """

    def __init__(
        self,
        plan: EvalOptions,
        suite: Suite,
        prompts: PromptSet,
        judge: str,
        served: ServedModel | None,
        report: Report,
    ) -> None:
        self.plan, self.suite, self.prompts, self.judge = plan, suite, prompts, judge
        self.served, self.report = served, report
        self.endpoint = None if served is None else served.endpoint
        self.work, self.begun = plan.work.absolute(), utc_now()
        self.sampling = greedy(plan, suite)
        longest = suite.max_tokens if plan.max_tokens or plan.kit == VLMEVALKIT else "kit"
        self.generation = {
            "server": self._server_name(),
            **asdict(self.sampling),
            "max_tokens": longest,
            "pixels": asdict(plan.pixels),
        }
        if self.endpoint is not None and self.endpoint.left_out:
            self.generation["left_out"] = list(self.endpoint.left_out)
        if changing := changing_arguments(plan.server_args):
            self.generation["server_args"] = changing

    def _server_name(self) -> str:
        """Return what generates the responses, with its version and device."""
        plan = self.plan
        if plan.engine == "batch":
            how = f"batches of {plan.batch}, on {plan.device}"
            how += "" if plan.device == "cpu" else f", {plan.dtype}"
            return f"transformers generate {_version('transformers')}, {how}"
        if self.endpoint is not None:
            return f"{self.endpoint.name} at {self.endpoint.url}"
        program = "vllm" if plan.vllm is not None else "transformers"
        return f"{program} serve {_version(program)} on {plan.device}, {plan.dtype}"

    def one(self, model: Checkpoint, kit: Kit, python: Path) -> ModelResult:
        """Collect a model's responses, then score them."""
        with open_answers(self.answer_files(model.content)) as answers:
            if self.endpoint is not None and not self.endpoint.answers:
                answers.keep()  # Nothing can take their place now.
            finished = self._answered(answers) and self._complete(answers)
            if self.plan.fresh or not finished:
                try:
                    # Started first: the kit imports while the server starts and the model responds.
                    process = kit.process(python)
                    if not self.prompts.ready:
                        self.report(Progress("prompts"))
                        self.prompts.submit(process)
                    self._collect(model, answers, process)
                    self._score(model, answers, process, kit.judge())
                except BaseException:
                    kit.discard()
                    raise
            return self._read(answers)

    # ---- responses

    def answer_files(self, model: str) -> dict[str, Path]:
        """Return each data set's file for this model, these prompts and this way of generating.

        A server's response to a question does not depend on the other questions, so each data set
        has its own file. In a batch the other questions change the rounding, so all share one.
        """
        generation = self.generation
        if self.endpoint is not None:  # Its address may change.
            generation = {**generation, "server": self.endpoint.name}
        files = {}
        for dataset, fingerprint in self.prompts.fingerprints.items():
            prompts = self.prompts.name if self.plan.engine == "batch" else fingerprint
            decides = json.dumps([prompts, generation], sort_keys=True)
            name = f"{model}-{hashlib.sha256(decides.encode()).hexdigest()[:12]}"
            files[dataset] = self.work / "answers" / f"{name}.jsonl"
        return files

    def _answered(self, answers: AnswerFile) -> bool:
        """Whether every question that can be asked has a response."""
        if not self.prompts.ready:
            return False
        answers.note_problems(self.prompts.questions)
        return not answers.missing(self.prompts.questions)

    def _collect(self, model: Checkpoint, answers: AnswerFile, kit: KitProcess) -> None:
        """Ask every question without a response; the kit may still be writing the prompts."""
        if not self.plan.fresh and self._answered(answers):
            return

        counted, counts = -math.inf, dict[str, tuple[int, int]]()
        store_at = math.inf  # Early: after a kill the model must be recognised as well.

        def count(done: int) -> None:
            nonlocal counted, counts, store_at
            if done >= store_at:
                store_at = math.inf
                self._store(answers)
            total = len(self.prompts.questions)
            if time.monotonic() - counted > 1 or done == total:
                counted, counts = time.monotonic(), self._by_benchmark(answers)
            name = model.labels.student
            self.report(Progress("answers", name, done, total, benchmarks=counts))

        def begin() -> None:
            self.prompts.finish(kit)
            self.prompts.trials()  # It raises where the kit's total would be no score.
            questions = self.prompts.questions
            if self.plan.fresh:
                answers.forget(questions)
            answers.note_problems(questions)
            done = len(questions) - len(answers.missing(questions))
            count(done)
            nonlocal store_at
            store_at = done + STORED

        if self.plan.engine == "batch":
            offline = OfflineModel(model, self.plan.device, self.plan.pixels, self.plan.dtype)
            begin()
            size = self.plan.batch
            answer_in_batches(offline, self.prompts, answers, self._sampling, size, count)
            return
        with self._client(model) as client:
            begin()
            try:
                ask(client, self.prompts, answers, self._sampling, count, self.plan.pixels)
            finally:
                self._store(answers)

    def _by_benchmark(self, answers: AnswerFile) -> dict[str, tuple[int, int]]:
        """Return the responses so far, and all, of each benchmark."""
        columns = {d.name: b.column for b in self.suite.benchmarks for d in b.datasets}
        all_, missing = (
            Counter(columns[question.dataset] for question in questions)
            for questions in (self.prompts.questions, answers.missing(self.prompts.questions))
        )
        return {name: (total - missing[name], total) for name, total in all_.items()}

    def _store(self, answers: AnswerFile) -> None:
        """Keep a few questions with their responses, by which the model is recognised later."""
        if self.served is None:
            return
        new = [
            (question, found)
            for question in self.prompts.questions
            if (found := answers.found.get(question.key)) is not None
            and not found.failed
            and answers.dates.get(question.key, "") >= self.begun
        ]
        if new:
            pixels, endpoint = self.plan.pixels, self.served.endpoint
            stored = choose(
                new,
                lambda question: self.prompts.messages(question, pixels),
                self.sampling,
                endpoint.left_out,
            )
            self.served.file.store(endpoint.since, stored)

    def stored_responses(self, answers: AnswerFile) -> dict[str, Any]:
        """Return how many responses of an endpoint are older than this evaluation, since when."""
        if self.endpoint is None:
            return {}
        dates = [answers.dates.get(question.key, "") for question in self.prompts.questions]
        old = [date for date in dates if date and date < self.begun]
        return {"of": len(dates), "old": len(old), "since": min(old)} if old else {}

    def _sampling(self, question: BenchmarkQuestion) -> Sampling:
        """Return a question's sampling: the kit's longest response, unless the plan has its own."""
        longest, kit_longest = self.suite.max_tokens, question.max_tokens
        if kit_longest is not None and self.plan.max_tokens is None:
            # A synthetic stand-in's responses are short, whatever its original's may be.
            longest = kit_longest if self.suite.published else min(kit_longest, longest)
        return replace(self.sampling, max_tokens=longest).with_limit()

    @contextmanager
    def _client(self, model: Checkpoint) -> Iterator[ChatClient]:
        """Yield a client of the model's server, which is started unless there is an endpoint."""
        plan, endpoint = self.plan, self.endpoint
        if endpoint is not None:
            in_flight = requests_in_flight(plan)
            yield endpoint.client(in_flight.first, in_flight.most)
            return
        self.report(Progress("server", model.labels.student))
        with started_client(plan, model.path, self.work / "server.log") as client:
            yield client

    # ---- scores

    def _texts(self, answers: AnswerFile) -> dict[str, dict[str, str]]:
        """Return the answers as {dataset: {question_id: text}}, in the order of the questions.

        Reasoning is dropped. What is no answer has a text that no judge is asked about. VLMEvalKit
        does not get it where its total is no mean, from which it could be taken out later.
        """
        texts: dict[str, dict[str, str]] = {d.name: {} for d in self.suite.datasets}
        trials = self.prompts.trials() if self.plan.kit == VLMEVALKIT else {}
        totals = {name for name, trial in trials.items() if not trial.is_mean}
        for question in self.prompts.questions:
            found = answers.found[question.key]
            if question.dataset in totals and (found.failed or found.no_answer):
                continue
            is_answer = found.answer.strip() and not (found.failed or found.no_answer)
            text = found.answer if is_answer else UNANSWERED
            texts[question.dataset][question.question_id] = text
        return texts

    def _groups(
        self, answers: AnswerFile, what: Callable[[Completion], object]
    ) -> dict[str, set[str]]:
        """Return by dataset the questions for which this holds of a response, of any rotation."""
        groups = {question.dataset: set[str]() for question in self.prompts.questions}
        for question in self.prompts.questions:
            if what(answers.found[question.key]):
                groups[question.dataset].add(question.group)
        return groups

    def _result(self, answers: AnswerFile) -> Path:
        """Return the path of the kit's result for exactly these responses and this judge."""
        # Asked for by another name, it may be another model, whatever its server reports.
        judge = [self.judge, self.plan.judge.model]
        decides = json.dumps([self.prompts.name, judge, self._texts(answers)])
        name = hashlib.sha256(decides.encode()).hexdigest()[:16]
        return self.work / "scores" / name / "result.json"

    def _complete(self, answers: AnswerFile) -> bool:
        """Whether the kit's result exists and no language model owes it a verdict."""
        result = self._result(answers)
        if self.plan.fresh_verdicts or not is_whole(result.parent):
            return False
        _, scores = self._scores(result)
        # The judge is not asked about them.
        unasked = self._groups(answers, lambda c: c.failed or c.no_answer or c.is_silent)
        return self.plan.judge == EXACT_RULES or not any(
            outcome.value is None and outcome.question_id not in unasked[name]
            for name, score in scores.items()
            for outcome in score.outcomes
        )

    def _score(
        self, model: Checkpoint, answers: AnswerFile, kit: KitProcess, judge: RunningJudge
    ) -> None:
        """Let the kit score in a fresh folder, renamed when the result is complete."""
        result = self._result(answers)
        if self._complete(answers):
            return
        self.report(Progress("scores", model.labels.student))
        new = NewFolder(result.parent)
        try:
            address = judge.url, judge.name, not judge.exact
            job = score_job(self.prompts.job(), new.path, self._texts(answers), address)
            judge.begin()
            kit.run("score", job)
            troubles = {"troubles": judge.troubles} if judge.troubles else {}
            asked = {**judge.provenance(), **troubles}
            (new.path / "judge.json").write_text(json.dumps(asked), encoding="utf-8")
            new.complete(replace=True)  # The one before lacks verdicts, or it is not whole.
        finally:
            new.close()

    def _read(self, answers: AnswerFile) -> ModelResult:
        """Return the kit's scores, but no verdict where there is no answer, and 0 for silence."""
        result = self._result(answers)
        kit, scores = self._scores(result)
        judge = result.with_name("judge.json")
        asked = json.loads(judge.read_bytes()) if judge.exists() else {}
        silent = self._groups(answers, lambda completion: completion.is_silent)
        lost = self._groups(answers, lambda completion: completion.failed or completion.no_answer)
        valid = {
            name: score.with_value(0.0, silent[name])
            .with_value(None, lost[name])
            .with_unscored(lost[name])
            for name, score in scores.items()
        }
        # The path depends on the judge's whole identity, which older results do not name.
        return ModelResult(answers, kit, valid, {**asked, "name": self.judge})

    def _scores(self, result: Path) -> tuple[str, dict[str, KitScore]]:
        return read_scores(self.prompts.kit, result, self.suite.datasets, self.prompts.trials())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # vLLM may be in an environment of its own.
        return "of unknown version"
