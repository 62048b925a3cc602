"""How scores and samples are made: the same rules for `eval`, `import` and the nano sandbox."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rilbench.ledger.records import NO_ANSWER, Sample, Score

BETWEEN_ROTATIONS = "\n---\n"
"""Separates the responses to the rotations of one circular question."""
NOT_KEPT = "not kept"
"""The finish reason of a sample whose response was not recorded; it counts as answered."""


@dataclasses.dataclass(frozen=True)
class ScoredDataset:
    """One data set of a benchmark as it was scored.

    Attributes:
        name: the kit's name for it.
        value: its score, 0 to 100; None without a score.
        samples: its questions, with ids and strata as they are named within the data set.
        questions: how many were scored when ``samples`` are not all known; None: as many as
            there are samples.
    """

    name: str
    value: float | None
    samples: Sequence[Sample]
    questions: int | None = None


def build_score(
    datasets: Sequence[ScoredDataset], **provenance: Any
) -> tuple[Score, tuple[Sample, ...]]:
    """Return a benchmark's score over its data sets, and its samples.

    The score is the plain mean over the data sets, None when one of them has no score. With
    several data sets, each sample's id and stratum name its data set: data sets number their
    questions alike.

    Args:
        datasets: all that the benchmark has.
        provenance: the fields of `Score` that do not follow from the data sets.

    Raises:
        ValueError: see `Score`.
    """
    samples = [sample for dataset in datasets for sample in dataset.samples]
    if len(datasets) > 1:
        samples = [
            dataclasses.replace(
                sample,
                question_id=f"{dataset.name}/{sample.question_id}",
                # No benchmark has several data sets and groups within them: means of both at
                # once would weigh questions otherwise than the score does.
                stratum=f"{dataset.name}/{sample.stratum}".rstrip("/"),
            )
            for dataset in datasets
            for sample in dataset.samples
        ]
    questions = sum(len(d.samples) if d.questions is None else d.questions for d in datasets)
    answered = sum(
        sample.finish_reason == NOT_KEPT
        or (
            bool(sample.response.replace(BETWEEN_ROTATIONS, "").strip())
            and not (sample.finish_reason or "").startswith(NO_ANSWER)
        )
        for sample in samples
    )
    values = [dataset.value for dataset in datasets if dataset.value is not None]
    score = Score(
        value=statistics.fmean(values) if len(values) == len(datasets) else None,
        questions=questions,
        # Without the responses nobody knows; then all count.
        answered=answered if len(samples) == questions else questions,
        missing=sum(sample.score is None for sample in samples),
        truncated=sum(sample.finish_reason == "length" for sample in samples),
        **provenance,
    )
    return score, tuple(samples)


def joint_sha256(hashes: Sequence[str]) -> str:
    """Return the hash of a benchmark's data, from those of its data sets."""
    return hashes[0] if len(hashes) == 1 else sha256(" ".join(hashes))


def sha256(content: str | Path) -> str:
    """Return the SHA-256 of a text or of a file's bytes, in hex digits."""
    if isinstance(content, str):
        # A kit's file may hold half of a surrogate pair, which strict UTF-8 refuses.
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
    digest = hashlib.sha256()
    with content.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
