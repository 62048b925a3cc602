"""Turn the kit's scores into an evaluation of the ledger, with the provenance of every number."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rilbench.checkpoint import Checkpoint
from rilbench.evaluate.kits.scores import KitScore, Outcome
from rilbench.evaluate.kits.vlmevalkit import EXACT_MATCHING
from rilbench.evaluate.prompts import BenchmarkQuestion, PromptSet
from rilbench.evaluate.responses import AnswerFile
from rilbench.evaluate.suite import Benchmark, Suite
from rilbench.ledger import Evaluation, Sample, Score, utc_now
from rilbench.ledger.builder import (
    BETWEEN_ROTATIONS,
    ScoredDataset,
    build_score,
    joint_sha256,
    sha256,
)

_WHERE = frozenset({"server"})
"""Generation settings that do not change what the model is sent."""


@dataclass(frozen=True)
class Provenance:
    """What all models of an evaluation share."""

    suite: Suite
    prompts: PromptSet
    kit_version: str
    judge: Mapping[str, Any]
    """Its name and, for a language model, its prompts; see `rilbench.evaluate.judge_session`."""
    generation: Mapping[str, Any]
    data: Mapping[str, str]
    """For each data set, whether its file is the published one; see `rilbench.evaluate.data`."""
    judge_reads: bool = False
    """Whether the judge also reads options where the kit's rules cannot."""
    data_reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a data set's file is unverified, by its name; none for a verified one."""


def to_evaluation(
    checkpoint: Checkpoint,
    provenance: Provenance,
    answers: AnswerFile,
    scores: Mapping[str, KitScore],
) -> Evaluation:
    """Return one model's evaluation for the ledger, with a sample for each scored question.

    Args:
        checkpoint: the model.
        provenance: how it was evaluated.
        answers: its responses.
        scores: the kit's, by data set.
    """
    # A circular question is scored once and has several rotations, each with a response.
    rotations: dict[tuple[str, str], list[BenchmarkQuestion]] = {}
    for question in provenance.prompts.questions:
        rotations.setdefault((question.dataset, question.group), []).append(question)
    built = []
    for benchmark in provenance.suite.benchmarks:
        datasets = []
        for dataset in benchmark.datasets:
            scored = scores[dataset.name]
            samples = [
                _sample(
                    benchmark.column,
                    rotations[dataset.name, outcome.question_id],
                    outcome,
                    answers,
                    provenance.judge["name"],
                )
                for outcome in scored.outcomes
            ]
            datasets.append(ScoredDataset(dataset.name, scored.value, samples))
        built.append(_score(benchmark, provenance, datasets))
    commit, dirty = code_version()
    return Evaluation(
        **asdict(checkpoint.labels),
        path=str(checkpoint.path),
        fingerprint=checkpoint.fingerprint,
        suite=provenance.suite.name,
        created=utc_now(),
        commit=commit,
        dirty=dirty,
        settings={
            "generation": dict(provenance.generation),
            "processor": checkpoint.around,
            "data": dict(provenance.data),
            **({"data_reasons": dict(provenance.data_reasons)} if provenance.data_reasons else {}),
            "limit": provenance.prompts.limit,
            "prompts": provenance.prompts.style or "dataset",
            "prompts_sha256": dict(provenance.prompts.prompt_hashes),
            "choices_read_by": (
                provenance.judge["name"] if provenance.judge_reads else EXACT_MATCHING
            ),
            "judge": dict(provenance.judge),
            # The folder of the questions and their images, so that a report can show them.
            "questions": str(provenance.prompts.folder),
        },
        scores=tuple(score for score, _ in built),
        samples=tuple(sample for _, samples in built for sample in samples),
    )


def _score(
    benchmark: Benchmark, provenance: Provenance, datasets: Sequence[ScoredDataset]
) -> tuple[Score, tuple[Sample, ...]]:
    names = [dataset.name for dataset in benchmark.datasets]
    kit, kit_version = provenance.kit_version.rsplit(" ", 1)
    prompts = provenance.prompts
    data = joint_sha256([prompts.data_hashes[name] for name in names])
    if prompts.limit is not None:
        # Some questions of a benchmark are another benchmark: never compare the two.
        data = sha256(f"{data} sample {prompts.limit}")
    states = {provenance.data.get(name, "unknown") for name in names}
    generation = {k: v for k, v in provenance.generation.items() if k not in _WHERE}
    sent = [generation, [prompts.prompt_hashes[name] for name in names]]
    # Another judge could change the score, so its name belongs to the provenance.
    judged = benchmark.judged or (
        provenance.judge_reads
        and any(dataset.judging == "extractor" for dataset in benchmark.datasets)
    )
    return build_score(
        datasets,
        benchmark=benchmark.column,
        kit=kit,
        kit_version=kit_version,
        dataset=benchmark.name,
        metric=benchmark.metric,
        judge=provenance.judge["name"] if judged else None,
        data_sha256=data,
        data_state=states.pop() if len(states) == 1 else "unverified",
        sampled=prompts.limit,
        asked=sha256(json.dumps(sent, sort_keys=True))[:16],
    )


def _sample(
    column: str,
    rotations: Sequence[BenchmarkQuestion],
    outcome: Outcome,
    answers: AnswerFile,
    judge: str,
) -> Sample:
    """Return one scored question; a circular one joins its rotations."""
    completions = [answers.found[question.key] for question in rotations]
    prompts = json.dumps([question.parts for question in rotations], ensure_ascii=False)
    # The worst reason of all rotations: an error, else the length limit.
    reasons = [completion.finish_reason for completion in completions]
    errors = [completion.finish_reason for completion in completions if completion.failed]
    worst = errors[0] if errors else "length" if "length" in reasons else reasons[0]
    return Sample(
        benchmark=column,
        question_id=outcome.question_id,
        prompt_hash=sha256(prompts)[:16],
        response=BETWEEN_ROTATIONS.join(completion.text for completion in completions),
        score=outcome.value,
        gold=",".join(question.truth for question in rotations),
        judge=judge if outcome.judged else None,
        tokens=sum(completion.completion_tokens for completion in completions),
        seconds=sum(completion.seconds for completion in completions),
        finish_reason=worst,
        extracted=outcome.extracted,
        stem=rotations[0].stem,
        stratum=outcome.stratum,
    )


def code_version() -> tuple[str | None, bool]:
    """Return the commit that this package runs from, and whether the code differs from it.

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
