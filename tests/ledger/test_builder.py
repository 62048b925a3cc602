"""Scores and samples are made by the same rules, wherever their outcomes come from."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from rilbench.ledger import Sample
from rilbench.ledger.builder import (
    BETWEEN_ROTATIONS,
    NOT_KEPT,
    ScoredDataset,
    build_score,
    joint_sha256,
    sha256,
)

PROVENANCE = {
    "benchmark": "MMMU-Pro",
    "kit": "ms-vlmeval",
    "kit_version": "0.0.20",
    "dataset": "a+b",
    "metric": "Overall",
    "data_sha256": "d",
}


def sample(name: str, score: float | None, **changes: Any) -> Sample:
    made = Sample(
        benchmark="MMMU-Pro", question_id=name, prompt_hash="h", response="A", score=score
    )
    return dataclasses.replace(made, **changes)


def test_one_data_set_keeps_its_names_and_its_value() -> None:
    samples = [sample("1", 1.0), sample("2", 0.0, stratum="group")]
    score, kept = build_score([ScoredDataset("a", 40.0, samples)], **PROVENANCE, judge="j")
    assert (score.value, score.questions, score.judge) == (40.0, 2, "j")
    assert kept == tuple(samples)


def test_several_data_sets_count_alike_and_name_their_questions() -> None:
    datasets = [
        ScoredDataset("a", 100.0, [sample("1", 1.0)]),
        ScoredDataset("b", 0.0, [sample("1", 0.0), sample("2", 0.0, stratum="group")]),
    ]
    score, samples = build_score(datasets, **PROVENANCE)
    assert (score.value, score.questions) == (50.0, 3)
    assert [(s.question_id, s.stratum) for s in samples] == [
        ("a/1", "a"),
        ("b/1", "b"),
        ("b/2", "b/group"),
    ]


def test_a_data_set_without_a_score_leaves_none() -> None:
    datasets = [ScoredDataset("a", 100.0, [sample("1", 1.0)]), ScoredDataset("b", None, [])]
    assert build_score(datasets, **PROVENANCE)[0].value is None


def test_what_is_counted() -> None:
    samples = [
        sample("1", None),
        sample("2", 0.0, response=f" {BETWEEN_ROTATIONS}\n"),
        sample("3", 0.0, response=f"A{BETWEEN_ROTATIONS}", finish_reason="length"),
        sample("4", 1.0, response="", finish_reason=NOT_KEPT),
    ]
    score, _ = build_score([ScoredDataset("a", 25.0, samples)], **PROVENANCE)
    assert (score.questions, score.answered, score.missing, score.truncated) == (4, 3, 1, 1)


def test_without_the_samples_all_questions_count_as_answered() -> None:
    samples = [sample("1", 0.0, response="")]
    datasets = [ScoredDataset("a", 50.0, samples, 1), ScoredDataset("b", 50.0, [], 9)]
    score, _ = build_score(datasets, **PROVENANCE)
    assert (score.questions, score.answered, score.missing) == (10, 10, 0)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        build_score([ScoredDataset("a", 1.0, [])], **PROVENANCE, colour="red")


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256("abc") == sha256(tmp_path / "file")
    assert sha256("abc").startswith("ba7816bf8f01cfea")
    assert sha256("\ud800")  # Half of a surrogate pair, as a kit's file may hold it.
    assert joint_sha256(["x"]) == "x"
    assert joint_sha256(["x", "y"]) == sha256("x y")
