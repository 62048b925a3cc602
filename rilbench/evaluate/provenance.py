"""Turn the kit's scores into an evaluation of the ledger, with the provenance of every number."""

import json
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rilbench.checkpoint import Checkpoint
from rilbench.evaluate import plain_choices
from rilbench.evaluate.kits.scores import KitScore, Outcome, summed_up
from rilbench.evaluate.kits.vlmevalkit import EXACT_MATCHING
from rilbench.evaluate.plain_choices import read_plainly
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
from rilbench.ledger.records import NO_ANSWER, NO_RESPONSE, NOT_ASKED, Reading

_WHERE = frozenset({"server"})
"""Generation settings that do not change what the model is sent."""


@dataclass(frozen=True)
class Provenance:
    """What all models of an evaluation share."""

    suite: Suite
    prompts: PromptSet
    kit_version: str
    judge: Mapping[str, Any]
    """See `rilbench.evaluate.judge_session.RunningJudge.provenance`."""
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
    readings = {}
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
        kit_scores = {dataset.name: scores[dataset.name] for dataset in benchmark.datasets}
        readings[benchmark.column] = _reading(kit_scores, rotations, answers).as_settings()
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
            "reading": {column: reading for column, reading in readings.items() if reading},
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


def _reading(
    scores: Mapping[str, KitScore],
    rotations: Mapping[tuple[str, str], Sequence[BenchmarkQuestion]],
    answers: AnswerFile,
) -> Reading:
    """Return how the responses to one benchmark could be read, over its data sets."""
    causes: Counter[str] = Counter()
    silent, reasoning, unread, second_unread = 0, 0, 0, 0
    second, wrong = [], []
    for name, score in scores.items():
        outcomes = []
        for outcome in score.outcomes:
            asked = rotations[name, outcome.question_id]
            if cause := _why_unanswered(asked, answers):
                causes[cause] += 1
            else:
                found = [answers.found[question.key] for question in asked]
                silent += any(each.is_silent for each in found)
                reasoning += any(each.answer != each.text for each in found)
            letters = [
                choice.read
                or read_plainly(answers.found[name, choice.question_id].answer, choice.options)
                for choice in outcome.unread
            ]
            if letters:
                unread, second_unread = unread + 1, second_unread + (None in letters)
                right = letters == [choice.gold for choice in outcome.unread]
                outcome = replace(outcome, value=float(right))
            outcomes.append(outcome)
        second.append(summed_up(outcomes, score.seconds).value)
        as_wrong = [replace(outcome, value=outcome.value or 0.0) for outcome in score.outcomes]
        wrong.append(summed_up(as_wrong, score.seconds).value)
    is_total = any(score.is_total for score in scores.values())
    has_second = unread > 0 and not is_total
    lacks_some = any(score.missing for score in scores.values())
    return Reading(
        no_answer=dict(causes),
        silent=silent,
        reasoning=reasoning,
        unread=unread,
        second=_mean(second) if has_second else None,
        second_unread=second_unread,
        second_name=plain_choices.NAME if has_second else "",
        if_wrong=_mean(wrong) if lacks_some and not is_total else None,
        is_total=is_total,
    )


def _why_unanswered(asked: Sequence[BenchmarkQuestion], answers: AnswerFile) -> str:
    """Return why a question has no answer, or one of its rotations; empty if all have one."""
    found = [answers.found[question.key] for question in asked]
    if any(question.problem is not None for question in asked):
        return NOT_ASKED
    if any(completion.failed for completion in found):
        return NO_RESPONSE
    return next((each.no_answer for each in found if each.no_answer), "")


def _mean(scores: Sequence[float | None]) -> float | None:
    values = [score for score in scores if score is not None]
    return fmean(values) if values and len(values) == len(scores) else None


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
    # The worst reason of all rotations: an error, else no answer, else the length limit.
    reasons = [completion.finish_reason for completion in completions]
    errors = [completion.finish_reason for completion in completions if completion.failed]
    errors += [NO_ANSWER + each.no_answer for each in completions if each.no_answer]
    worst = errors[0] if errors else "length" if "length" in reasons else reasons[0]
    return Sample(
        benchmark=column,
        question_id=outcome.question_id,
        prompt_hash=sha256(prompts)[:16],
        response=BETWEEN_ROTATIONS.join(completion.answer for completion in completions),
        score=outcome.value,
        gold=",".join(question.truth for question in rotations),
        judge=judge if outcome.judged else None,
        tokens=sum(completion.completion_tokens for completion in completions),
        seconds=sum(completion.seconds for completion in completions),
        finish_reason=worst,
        extracted=outcome.extracted,
        stem=rotations[0].stem,
        stratum=outcome.stratum,
        category=rotations[0].category,
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
