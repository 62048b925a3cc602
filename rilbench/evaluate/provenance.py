"""Turn the kit's scores into what the ledger keeps: every number with its story."""

import hashlib
import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.checkpoint import Checkpoint
from rilbench.evaluate.kits.scores import KitScore, Outcome
from rilbench.evaluate.kits.vlmevalkit import EXACT_MATCHING
from rilbench.evaluate.prompts import PromptSet, Question
from rilbench.evaluate.responses import AnswerFile
from rilbench.evaluate.suite import Benchmark, Dataset, Suite
from rilbench.ledger import Evaluation, Sample, Score, utc_now
from rilbench.serving import Completion

_WHERE = frozenset({"server"})
"""Of how answers are generated, what does not change what is asked."""
_BETWEEN_ROTATIONS = "\n---\n"


@dataclass(frozen=True)
class Provenance:
    """What all models of an evaluation share."""

    suite: Suite
    prompts: PromptSet
    kit_version: str
    judge: Mapping[str, Any]
    """Its name, and what a language model was asked; see `rilbench.evaluate.judge_session`."""
    generation: Mapping[str, Any]
    data: Mapping[str, str]
    """Of each dataset: whether its file is the published one; see `rilbench.evaluate.data`."""
    judge_reads: bool = False
    """The judge also reads options where the kit's rules cannot."""


def to_evaluation(
    checkpoint: Checkpoint, story: Provenance, answers: AnswerFile, scores: Mapping[str, KitScore]
) -> Evaluation:
    """Return one model's evaluation for the ledger, with a sample for each scored question."""
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in story.prompts.questions:
        groups.setdefault((question.dataset, question.group), []).append(question)
    samples: list[Sample] = []
    rows: list[Score] = []
    for benchmark in story.suite.benchmarks:
        own = []
        for dataset in benchmark.datasets:
            for outcome in scores[dataset.name].outcomes:
                questions = groups[dataset.name, outcome.question_id]
                own.append(_sample(benchmark, dataset, questions, outcome, answers, story))
        found = [scores[dataset.name] for dataset in benchmark.datasets]
        rows.append(_score(benchmark, story, found, own))
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
        recipe_fingerprint=labels.recipe_fingerprint,
        family=labels.family,
        seed=labels.seed,
        suite=story.suite.name,
        created=utc_now(),
        commit=commit,
        dirty=dirty,
        settings={
            "generation": dict(story.generation),
            "processor": checkpoint.around,
            "data": dict(story.data),
            "limit": story.prompts.limit,
            "prompts": story.prompts.style or "dataset",
            "prompts_sha256": dict(story.prompts.prompt_hashes),
            "choices_read_by": story.judge["name"] if story.judge_reads else EXACT_MATCHING,
            "judge": dict(story.judge),
            # Where the questions and their pictures are, for who looks at them later.
            "questions": str(story.prompts.folder),
        },
        scores=tuple(rows),
        samples=tuple(samples),
    )


def _uses_judge(benchmark: Benchmark, story: Provenance) -> bool:
    """Another judge could change the score."""
    extracted = any(dataset.judging == "extractor" for dataset in benchmark.datasets)
    return benchmark.judged or (story.judge_reads and extracted)


def _state(benchmark: Benchmark, story: Provenance) -> str:
    """Of several data files the least known decides."""
    states = {story.data.get(dataset.name, "unknown") for dataset in benchmark.datasets}
    return states.pop() if len(states) == 1 else "unverified"


def _score(
    benchmark: Benchmark,
    story: Provenance,
    found: Sequence[KitScore],
    samples: Sequence[Sample],
) -> Score:
    """A benchmark's score: the plain mean over its datasets, None when one of them has none."""
    kit, kit_version = story.kit_version.rsplit(" ", 1)
    hashes = [story.prompts.data_hashes[dataset.name] for dataset in benchmark.datasets]
    data = hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    known = [each.value for each in found if each.value is not None]
    if story.prompts.limit is not None:
        # Some questions of a benchmark are another benchmark: never compare the two.
        data = hashlib.sha256(f"{data} sample {story.prompts.limit}".encode()).hexdigest()
    return Score(
        benchmark=benchmark.column,
        value=statistics.fmean(known) if len(known) == len(found) else None,
        kit=kit,
        kit_version=kit_version,
        dataset=benchmark.name,
        metric=benchmark.metric,
        judge=story.judge["name"] if _uses_judge(benchmark, story) else None,
        questions=len(samples),
        answered=sum(
            bool(sample.response.replace(_BETWEEN_ROTATIONS, "").strip()) for sample in samples
        ),
        missing=sum(each.missing for each in found),
        data_sha256=data,
        truncated=sum(sample.finish_reason == "length" for sample in samples),
        data_state=_state(benchmark, story),
        sampled=story.prompts.limit,
        asked=_asked(benchmark, story),
    )


def _asked(benchmark: Benchmark, story: Provenance) -> str:
    """What the model was sent and how it answered, wherever it was served."""
    how = {name: value for name, value in story.generation.items() if name not in _WHERE}
    prompts = [story.prompts.prompt_hashes[dataset.name] for dataset in benchmark.datasets]
    return hashlib.sha256(json.dumps([how, prompts], sort_keys=True).encode()).hexdigest()[:16]


def _sample(
    benchmark: Benchmark,
    dataset: Dataset,
    questions: Sequence[Question],
    outcome: Outcome,
    answers: AnswerFile,
    story: Provenance,
) -> Sample:
    """One scored question; a circular one joins its rotations.

    Datasets of one benchmark number their questions alike, so that the ids then say which it is.
    """
    several = len(benchmark.datasets) > 1
    completions = [answers.found[question.key] for question in questions]
    prompts = json.dumps([question.parts for question in questions], ensure_ascii=False)
    return Sample(
        benchmark=benchmark.column,
        question_id=f"{dataset.name}/{outcome.question_id}" if several else outcome.question_id,
        prompt_hash=hashlib.sha256(prompts.encode()).hexdigest()[:16],
        response=_BETWEEN_ROTATIONS.join(completion.text for completion in completions),
        score=outcome.value,
        gold=",".join(question.truth for question in questions),
        judge=story.judge["name"] if outcome.judged else None,
        tokens=sum(completion.completion_tokens for completion in completions),
        seconds=sum(completion.seconds for completion in completions),
        finish_reason=_finish(completions),
        extracted=outcome.extracted,
        stem=questions[0].stem,
        stratum=_stratum(benchmark, dataset, outcome),
    )


def _stratum(benchmark: Benchmark, dataset: Dataset, outcome: Outcome) -> str:
    """The data set, where there are several, and the kit's own group: the mean is of their means.

    Both at once would weigh otherwise than the score does; no benchmark of a suite has both.
    """
    if len(benchmark.datasets) > 1:
        return f"{dataset.name}/{outcome.stratum}".rstrip("/")
    return outcome.stratum


def _finish(completions: Sequence[Completion]) -> str:
    """Why the answers end: the worst of a question's rotations."""
    reasons = [completion.finish_reason for completion in completions]
    failed = [each.finish_reason for each in completions if each.failed]
    if failed:
        return failed[0]
    return "length" if "length" in reasons else reasons[0]


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
