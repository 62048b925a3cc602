"""What the ledger keeps, as plain values that check themselves."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One benchmark's score and the story behind it.

    Attributes:
        benchmark: the paper's column, such as "MMStar".
        value: 0 to 100, or None when there is none.
        kit: the evaluation kit, such as "vlmevalkit".
        kit_version: its version.
        dataset: the kit's name for the data.
        metric: which of the kit's numbers this is.
        judge: the judge's name, None when no judge took part.
        questions: how many the benchmark has.
        answered: how many the model answered.
        missing: how many have no verdict.
        data_sha256: hash of the benchmark's file.
        truncated: how many answers were cut off at the longest length.
        data_state: "published", "look-alike", "unverified", or "unknown" in an older ledger.
        sampled: of each data set only so many questions were asked; None for all.
        asked: hash of the prompts, the pictures' limits and how the answers were drawn; empty in
            an older ledger.

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

    @property
    def partial(self) -> bool:
        """It does not stand for the whole benchmark."""
        return self.sampled is not None or self.missing > 0

    def __post_init__(self) -> None:
        if self.value is not None and not 0.0 <= self.value <= 100.0:
            raise ValueError(f"{self.benchmark} scored {self.value}; scores go from 0 to 100")
        if not (0 <= self.answered <= self.questions and 0 <= self.missing <= self.questions):
            raise ValueError(
                f"{self.benchmark} has {self.questions} questions, but {self.answered} answered "
                f"and {self.missing} missing; count again"
            )

    @property
    def comparability(self) -> str:
        """Equal for scores whose difference means something; see `story`."""
        return comparability(self.story)

    @property
    def story(self) -> tuple[str | None, ...]:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One question's answer.

    Attributes:
        benchmark: the paper's column.
        question_id: the benchmark's own index of the question.
        prompt_hash: hash of what the model was sent.
        response: what it replied.
        score: 0 to 1, or None when there is no verdict.
        gold: the ground truth.
        judge: who decided, None for a rule of the kit.
        tokens: length of the response.
        seconds: how long it took.
        finish_reason: "stop", "length" or what else the server said; "error: …" without an answer.
        extracted: the answer that the kit read from the response, None where it does not say.
        stem: what the question asks, without options and instructions, by which two kits'
            questions are matched; None in older rows.
        stratum: the data set and group that the question counts in, where the score is the mean of
            several groups' means; empty where it is the plain mean of its questions.

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
        start_fingerprint: fingerprint of the model that training began from.
        recipe_fingerprint: of the recipe that it was trained by.
        family: of that recipe without its seed, so that seeds of one recipe share it.
        seed: the recipe's.
        suite: "paper" or "nano".
        created: when, ISO 8601 in UTC (see :func:`utc_now`).
        commit: the code's commit, None outside a repository.
        dirty: whether the code differed from that commit.
        settings: how it was done, as JSON values. Secrets are dropped when it is recorded.
        scores: one per benchmark.
        samples: the answers. Empty when read back: see ``Ledger.samples``.
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
    id: int | None = None

    def __post_init__(self) -> None:
        if self.moment.utcoffset() != datetime.timedelta(0):
            raise ValueError(f"{self.created!r} is not in UTC; use utc_now()")

    @property
    def kit(self) -> str:
        """The kit that scored it."""
        return "+".join(sorted({score.kit for score in self.scores}))

    @property
    def whole(self) -> int:
        """How many benchmarks were scored in full."""
        return sum(score.value is not None and not score.partial for score in self.scores)

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
        figures: what the run cost and came to, as JSON values: see
            `rilbench.train.pipeline.ledger_summary`.
        curves: one value for each step, by name.
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
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)


def comparability(story: Iterable[str | None]) -> str:
    """Twelve hex digits over a score's story, in `Score.story`'s order."""
    return hashlib.sha256(json.dumps(list(story)).encode()).hexdigest()[:12]


def utc_now() -> str:
    """Return the time now, ISO 8601 in UTC to the microsecond."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def latest(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Keep one evaluation of each model and label, by suite and kit; the newest come first.

    Of several it is the newest of those with the most whole benchmarks: a quick look at a few
    questions hides no full evaluation.
    """
    ordered = sorted(
        evaluations, key=lambda each: (each.whole, each.moment, each.id or 0), reverse=True
    )
    newest: dict[tuple[str, ...], Evaluation] = {}
    for each in ordered:
        model = (each.fingerprint, each.student, each.method, each.teacher)
        newest.setdefault((*model, each.suite, each.kit), each)
    return sorted(newest.values(), key=lambda each: (each.moment, each.id or 0), reverse=True)
