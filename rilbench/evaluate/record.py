"""Turn the kit's scores into what the ledger keeps: every number with its story."""

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.checkpoint import Checkpoint
from rilbench.evaluate.answers import AnswerFile
from rilbench.evaluate.kits.vlmevalkit import EXACT_MATCHING, KitScore, Outcome
from rilbench.evaluate.prompts import PromptSet, Question
from rilbench.evaluate.suite import Benchmark, Suite
from rilbench.ledger import Evaluation, Sample, Score, utc_now

_BETWEEN_ROTATIONS = "\n---\n"


@dataclass(frozen=True)
class Story:
    """What all models of an evaluation share."""

    suite: Suite
    prompts: PromptSet
    kit_version: str
    judge: str
    generation: Mapping[str, Any]


def to_evaluation(
    checkpoint: Checkpoint, story: Story, answers: AnswerFile, scores: Mapping[str, KitScore]
) -> Evaluation:
    """Return one model's evaluation for the ledger, with a sample for each scored question."""
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in story.prompts.questions:
        groups.setdefault((question.dataset, question.group), []).append(question)
    samples: list[Sample] = []
    rows: list[Score] = []
    for benchmark in story.suite.benchmarks:
        found = scores[benchmark.dataset]
        judge = story.judge if benchmark.judged else None
        own = [
            _sample(benchmark, groups[benchmark.dataset, o.question_id], o, answers, judge)
            for o in found.outcomes
        ]
        rows.append(_score(benchmark, story, found, own, judge))
        samples += own
    commit, dirty = code_version()
    labels = checkpoint.labels
    return Evaluation(
        path=str(checkpoint.path),
        fingerprint=checkpoint.fingerprint,
        student=labels.student,
        method=labels.method,
        teacher=labels.teacher,
        run=labels.run,
        start_fingerprint=labels.start_fingerprint,
        suite=story.suite.name,
        created=utc_now(),
        commit=commit,
        dirty=dirty,
        settings={
            "generation": dict(story.generation),
            "limit": story.prompts.limit,
            "prompts_sha256": dict(story.prompts.prompt_hashes),
            "choices_read_by": EXACT_MATCHING,
        },
        scores=tuple(rows),
        samples=tuple(samples),
    )


def _score(
    benchmark: Benchmark,
    story: Story,
    found: KitScore,
    samples: Sequence[Sample],
    judge: str | None,
) -> Score:
    kit, kit_version = story.kit_version.rsplit(" ", 1)
    data = story.prompts.data_hashes[benchmark.dataset]
    if story.prompts.limit is not None:
        # The first questions of a benchmark are another benchmark: never compare the two.
        data = hashlib.sha256(f"{data} first {story.prompts.limit}".encode()).hexdigest()
    return Score(
        benchmark=benchmark.column,
        value=found.value,
        kit=kit,
        kit_version=kit_version,
        dataset=benchmark.dataset,
        metric=benchmark.metric,
        judge=judge,
        questions=len(samples),
        answered=sum(bool(sample.response.strip()) for sample in samples),
        missing=found.missing,
        data_sha256=data,
    )


def _sample(
    benchmark: Benchmark,
    questions: Sequence[Question],
    outcome: Outcome,
    answers: AnswerFile,
    judge: str | None,
) -> Sample:
    """One scored question; a circular one joins its rotations."""
    completions = [answers.found[question.key] for question in questions]
    prompts = json.dumps([question.parts for question in questions], ensure_ascii=False)
    cut = any(completion.finish_reason == "length" for completion in completions)
    return Sample(
        benchmark=benchmark.column,
        question_id=outcome.question_id,
        prompt_hash=hashlib.sha256(prompts.encode()).hexdigest()[:16],
        response=_BETWEEN_ROTATIONS.join(completion.text for completion in completions),
        score=outcome.value,
        gold=",".join(question.truth for question in questions),
        judge=judge,
        tokens=sum(completion.completion_tokens for completion in completions),
        seconds=sum(completion.seconds for completion in completions),
        finish_reason="length" if cut else completions[0].finish_reason,
    )


def code_version() -> tuple[str | None, bool]:
    """Return the commit that this package runs from, and whether it was changed since.

    (None, False) when the package is installed and not run from its repository.
    """
    home = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(home), *arguments], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    # Site-packages may lie within somebody else's repository.
    if top is None or Path(top).resolve() != home:
        return None, False
    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "rilbench"))
