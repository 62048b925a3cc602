import base64
import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rilbench.judge.rules import grade, is_right
from rilbench.nano.data import (
    BENCHMARK_FILES,
    CIRCULAR_OFFSET,
    training_questions,
    write_benchmarks,
)
from rilbench.nano.digits import POOL_SIZES, draw, pools
from rilbench.nano.tasks import FAMILIES, LETTERS, ask, misread

PICTURES = 60


def test_no_scan_serves_two_purposes():
    index = [set(pool.index.tolist()) for pool in pools().values()]
    assert [len(i) for i in index] == list(POOL_SIZES.values())
    assert len(set.union(*index)) == sum(POOL_SIZES.values()) == 1797


@pytest.mark.parametrize("family", FAMILIES)
def test_the_worked_answer_is_right_and_the_judge_agrees(family):
    rng = np.random.default_rng(1)
    for _ in range(PICTURES):
        picture = draw(pools()["dev"], rng)
        question = ask(picture, family, rng)
        assert is_right(question.accepted, question.worked), question
        assert grade(question.accepted, question.worked) == 1.0
        if question.options:
            assert len(set(question.options)) == len(question.options)
            # The kit counts the option letters that stand alone: the answer's only.
            words = question.worked.replace("(", " ").replace(")", " ").replace(".", " ").split()
            assert {w for w in words if w in LETTERS} == {question.truth}


def test_the_bare_answer_is_shorter_and_not_always_right():
    rng = np.random.default_rng(2)
    right = Counter()
    for family in FAMILIES:
        for _ in range(PICTURES):
            question = ask(draw(pools()["dev"], rng), family, rng)
            assert family == "ChartQA" or len(question.bare) < len(question.worked)
            right[family] += is_right(question.accepted, question.bare)
    assert right["MMStar"] == right["MMB"] == PICTURES
    assert PICTURES / 2 < right["ChartQA"] < PICTURES, "rounding to fives is mostly within 5 %"
    assert right["MM-Vet"] < PICTURES / 2, "the bare answer holds only a part of the facts"


def test_pictures_show_their_digits_and_come_from_their_pool():
    rng = np.random.default_rng(3)
    picture = draw(pools()["test"], rng)
    assert set(picture.scans) <= set(pools()["test"].index.tolist())
    image = Image.open(io.BytesIO(picture.jpeg))
    assert image.size == (56, 56)
    assert np.asarray(image).std() > 20


def test_misreading_changes_one_digit():
    rng = np.random.default_rng(4)
    for _ in range(20):
        picture = draw(pools()["dev"], rng)
        wrong = misread(picture, rng)
        assert sum(a != b for a, b in zip(wrong, picture.digits, strict=True)) == 1


def test_training_questions_are_the_same_every_time():
    first, second = (training_questions("prompts", 3, 5) for _ in range(2))
    assert first == second
    assert len(first) == 3 * len(FAMILIES)
    assert len({q.id for q in first}) == len(first)


def test_benchmark_files_are_in_the_kits_format(tmp_path):
    write_benchmarks(tmp_path, 12, 7)
    for family, name in BENCHMARK_FILES.items():
        rows = pd.read_csv(tmp_path / f"{name}.tsv", sep="\t", dtype=str)
        assert len(rows) == (24 if family == "MMB" else 12)
        base64.b64decode(rows["image"][0])
    circular = pd.read_csv(tmp_path / "MMBench_DEV_EN.tsv", sep="\t")
    for index in range(12):
        group = circular[circular["index"] % CIRCULAR_OFFSET == index]
        texts = {row[row["answer"]] for _, row in group.iterrows()}
        assert len(group) == 2
        assert len(texts) == 1, "the right option is the same in every rotation"
        assert set(group["answer"]) == {"A", "B"}
    vet = pd.read_csv(tmp_path / "MMVet.tsv", sep="\t")
    found = {part for parts in vet["category"] for part in parts.split(",")}
    assert found == {"rec", "ocr", "know", "gen", "spat", "math"}
