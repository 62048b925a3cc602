"""The ledger's records: plain values that check themselves."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rilbench.benchmark_names import PAPER_14

LEAST_SHARE = 0.95
"""Share of the questions that need a verdict for a score to count in means."""
LOST = "lost"
"""Labels and suite of an evaluation of which only its number is left after a recovery."""
NO_RESPONSE = "no response"
"""Cause of a missing verdict: the server refused the question, or never answered it."""
NOT_ASKED = "not asked"
"""Cause of a missing verdict: a question that cannot be asked, mostly for a broken picture."""
NO_ANSWER = "no answer: "
"""Beginning of the finish reason of a sample whose response is no answer; the cause follows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One benchmark's score with its provenance; `rilbench.ledger.builder` makes it.

    Attributes:
        benchmark: its column in the tables, such as "MMStar".
        value: 0 to 100, None without a score.
        kit: the evaluation toolkit's package, such as "ms-vlmeval".
        kit_version: its version.
        dataset: the kit's name for the data.
        metric: the kit's name for the number.
        judge: the judge's name, None when no judge took part.
        questions: how many the benchmark has.
        answered: how many of them have a response.
        missing: how many of them have no verdict.
        data_sha256: hash of the benchmark's data.
        truncated: how many responses were cut at the length limit.
        data_state: whether the data are the published ones: "published", "stand-in",
            "unverified" or "unknown".
        sampled: the limit on questions per data set, None when all were asked.
        asked: hash of the prompts, the image limits and the generation settings; empty when they
            are not known.

    Raises:
        ValueError: the value or a count is out of range.
    """

    benchmark: str
    value: float | None
    kit: str
    kit_version: str
    dataset: str
    metric: str
    judge: str | None = None
    questions: int
    answered: int
    missing: int
    data_sha256: str
    truncated: int = 0
    data_state: str = "unknown"
    sampled: int | None = None
    asked: str = ""

    def __post_init__(self) -> None:
        if self.value is not None and not 0.0 <= self.value <= 100.0:
            raise ValueError(f"{self.benchmark} scored {self.value}; scores go from 0 to 100")
        if not (0 <= self.answered <= self.questions and 0 <= self.missing <= self.questions):
            raise ValueError(
                f"{self.benchmark} has {self.questions} questions, but {self.answered} answered "
                f"and {self.missing} missing; count again"
            )

    @property
    def is_incomplete(self) -> bool:
        """Whether too few of the questions asked have a verdict for the score to stand for all.

        What a server refuses is no random sample: mostly it is the largest pictures.
        """
        return self.questions - self.missing < LEAST_SHARE * self.questions

    @property
    def counted(self) -> float | None:
        """The value for means and differences: None where the score is incomplete."""
        return None if self.is_incomplete else self.value

    @property
    def partial(self) -> bool:
        """Whether the score covers only a part of the benchmark."""
        return self.sampled is not None or self.missing > 0

    @property
    def stands(self) -> bool:
        """Whether it stands for the benchmark: nothing was left out but a few missing verdicts."""
        return self.value is not None and self.sampled is None and not self.is_incomplete

    @property
    def provenance(self) -> tuple[str | None, ...]:
        """What two scores must share before their difference means anything."""
        return (
            self.kit,
            self.kit_version,
            self.dataset,
            self.metric,
            self.judge,
            self.data_sha256,
            self.asked,
        )

    @property
    def comparability(self) -> str:
        """Twelve hex digits over the provenance: equal for scores that may be compared."""
        return hashlib.sha256(json.dumps(self.provenance).encode()).hexdigest()[:12]


def outcomes_hash(scores: Mapping[str, float]) -> str:
    """Return 16 hex digits over a benchmark's outcomes, each question's score by its id.

    Equal for outcomes that are equal to ten digits, as ``results/baseline.json`` keeps them.
    """
    lines = (f"{question}\t{score:.10g}" for question, score in sorted(scores.items()))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How a benchmark's responses could be read; a part of an evaluation's settings.

    Attributes:
        no_answer: questions without a verdict for want of an answer, by cause: one of
            `rilbench.serving.reply.CAUSES`, `NO_RESPONSE` or `NOT_ASKED`.
        silent: questions to which the model ended at once, without a word; they count as wrong.
        reasoning: questions before whose answer the model's reasoning was dropped.
        unread: questions that count as wrong since the kit's rules read no option in a response.
        second: the score by the second reading, which reads some of those; None where it has no
            other.
        second_unread: questions that it could not read either.
        second_name: its name.
        if_wrong: the score if every question without a verdict counted as wrong; None if none is.
        is_total: the score is a total of the kit's that is no mean of its questions' outcomes,
            such as an F1 or a sum of categories.
    """

    no_answer: Mapping[str, int] = dataclasses.field(default_factory=dict)
    silent: int = 0
    reasoning: int = 0
    unread: int = 0
    second: float | None = None
    second_unread: int = 0
    second_name: str = ""
    if_wrong: float | None = None
    is_total: bool = False

    def as_settings(self) -> dict[str, Any]:
        """Return what is not as usual, as JSON values."""
        usual = dataclasses.asdict(Reading())
        return {name: v for name, v in dataclasses.asdict(self).items() if v != usual[name]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One question with the model's response.

    Attributes:
        benchmark: as in its `Score`.
        question_id: the benchmark's own index of the question.
        prompt_hash: hash of the prompt.
        response: the model's reply; the replies to all rotations of a circular question.
        score: 0 to 1, None without a verdict.
        gold: the ground truth.
        judge: the judge that decided, None when the kit's own rules did.
        tokens: length of the response.
        seconds: time until the response was complete.
        finish_reason: "stop", "length" or another word of the server's; "error: …" without a
            response; "no answer: …" and one of `rilbench.serving.reply.CAUSES` where the response
            is no answer; `rilbench.ledger.builder.NOT_KEPT` when responses were not recorded.
        extracted: the answer that the kit read from the response, None when it does not say.
        stem: the question without options and instructions, which matches questions across kits.
        stratum: the data set and group that the question counts in when the score is the mean of
            several groups' means; empty when it is the plain mean over questions.
        category: the benchmark's own category of the question, None where it has none.

    Raises:
        ValueError: the score is out of range.
    """

    benchmark: str
    question_id: str
    prompt_hash: str
    response: str
    score: float | None = None
    gold: str | None = None
    judge: str | None = None
    tokens: int | None = None
    seconds: float | None = None
    finish_reason: str | None = None
    extracted: str | None = None
    stem: str | None = None
    stratum: str = ""
    category: str | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise ValueError(
                f"question {self.question_id} of {self.benchmark} scored {self.score}; "
                "samples go from 0 to 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model on one suite.

    Attributes:
        path: the checkpoint's folder.
        fingerprint: hash of the checkpoint's content.
        student: label, such as "nano".
        method: label, such as "base" or "ril".
        teacher: label, such as "none" or "both".
        run: name of the training run, None for a model that was not trained here.
        start_fingerprint: fingerprint of the model that training started from.
        recipe_fingerprint: fingerprint of the training recipe.
        family: fingerprint of the recipe without its seed, equal for all seeds of a recipe.
        seed: the recipe's seed.
        suite: such as "paper" or "nano".
        created: ISO 8601 in UTC (see :func:`utc_now`).
        commit: the code's commit, None outside a repository.
        dirty: whether the code differed from that commit.
        settings: generation, prompts, data and judge as JSON values. Secrets are dropped when the
            evaluation is recorded.
        scores: one per benchmark.
        samples: one per question; empty when read back (see ``Ledger.samples``).
        tags: names that the user gave it with `rilbench ledger tag`.
        id: the ledger's number, None before it is recorded.

    Raises:
        ValueError: ``created`` is not a time in UTC.
    """

    path: str
    fingerprint: str
    student: str
    method: str
    teacher: str
    run: str | None = None
    start_fingerprint: str | None = None
    recipe_fingerprint: str | None = None
    family: str | None = None
    seed: int | None = None
    suite: str
    created: str
    commit: str | None = None
    dirty: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    samples: tuple[Sample, ...] = ()
    tags: tuple[str, ...] = ()
    id: int | None = None

    def __post_init__(self) -> None:
        if self.moment.utcoffset() != datetime.timedelta(0):
            raise ValueError(f"{self.created!r} is not in UTC; use utc_now()")

    def reading(self, benchmark: str) -> Reading:
        """Return how a benchmark's responses could be read."""
        return Reading(**self.settings.get("reading", {}).get(benchmark, {}))

    @property
    def kit(self) -> str:
        """The kit that scored it."""
        return "+".join(sorted({score.kit for score in self.scores}))

    @property
    def asked(self) -> frozenset[str]:
        """The benchmarks of which all questions were asked, whatever the responses were."""
        return frozenset(score.benchmark for score in self.scores if score.sampled is None)

    @property
    def moment(self) -> datetime.datetime:
        """``created`` as a time."""
        return datetime.datetime.fromisoformat(self.created.replace("Z", "+00:00"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training run; ``path`` identifies it. Times are ISO 8601 in UTC.

    Attributes:
        status: "running", "stopped" or "finished".
        family: fingerprint of the recipe without its seed.
        metrics: cost and speed of the run as JSON values; see
            `rilbench.train.pipeline.ledger_summary`.
        curves: one value per step, by name.
    """

    name: str
    path: str
    recipe_fingerprint: str
    recipe_yaml: str
    student: str
    method: str
    teacher: str
    status: str
    created: str
    finished: str | None = None
    family: str | None = None
    seed: int | None = None
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)


def utc_now() -> str:
    """Return the time now, ISO 8601 in UTC to the microsecond."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def newest_first(
    evaluations: Iterable[Evaluation], benchmarks: Collection[str] = PAPER_14
) -> list[Evaluation]:
    """Return the evaluations, the newest first, those that asked fewer of the benchmarks last.

    A look at one benchmark, or at a few questions of each, hides no full evaluation. Their
    results do not count here: an older and better evaluation hides no newer one.
    """
    wanted = frozenset(benchmarks)
    return sorted(
        evaluations,
        key=lambda e: (len(e.asked & wanted), bool(e.asked), e.moment, e.id or 0),
        reverse=True,
    )


def latest(
    evaluations: Iterable[Evaluation], benchmarks: Collection[str] = PAPER_14
) -> list[Evaluation]:
    """Keep the first by `newest_first` of each model and label, by suite and kit; newest first."""
    ranked = newest_first(evaluations, benchmarks)
    kept: dict[tuple[str, ...], Evaluation] = {}
    for e in ranked:
        kept.setdefault((e.fingerprint, e.student, e.method, e.teacher, e.suite, e.kit), e)
    return sorted(kept.values(), key=lambda e: (e.moment, e.id or 0), reverse=True)
