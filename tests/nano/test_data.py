import ast
import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rilbench.judge.rules import is_right
from rilbench.nano.data import (
    BENCHMARK_FILES,
    CIRCULAR_OFFSET,
    SPLITS,
    training_questions,
    write_benchmarks,
)
from rilbench.nano.digits import POOL_SIZES, pools, scans
from rilbench.nano.question import LETTERS
from rilbench.nano.render_images import GLYPHS
from rilbench.nano.tasks import STAND_INS, make_question

PICTURES = 60


def test_no_scan_serves_two_purposes():
    index = [set(pool.index.tolist()) for pool in pools().values()]
    assert [len(i) for i in index] == list(POOL_SIZES.values())
    assert len(set.union(*index)) == sum(POOL_SIZES.values()) == 1797
    assert len({seed for _, seed in SPLITS.values()}) == len(SPLITS)


def test_every_digit_can_be_drawn_from_every_pool():
    labels = scans()[1]
    for pool in pools().values():
        assert set(labels[pool.index]) == set(range(10))


@pytest.mark.parametrize("benchmark", STAND_INS)
def test_the_worked_answer_is_right_and_the_judge_agrees(benchmark):
    rng = np.random.default_rng(1)
    for _ in range(PICTURES):
        _, question = make_question(benchmark, pools()["dev"], rng)
        assert is_right(question.accepted, question.worked), question
        if question.options:
            assert len(set(question.options)) == len(question.options)
            # The kit counts the option letters that stand alone: the answer's only.
            words = question.worked.replace("(", " ").replace(")", " ").replace(".", " ").split()
            letters = LETTERS[: len(question.options)]
            assert {w for w in words if w in letters} == {question.truth}


@pytest.mark.parametrize("benchmark", STAND_INS)
def test_the_bare_answer_is_shorter(benchmark):
    rng = np.random.default_rng(2)
    right = 0
    for _ in range(PICTURES):
        _, question = make_question(benchmark, pools()["dev"], rng)
        assert benchmark == "ChartQA" or len(question.bare) < len(question.worked)
        right += is_right(question.accepted, question.bare)
    if benchmark == "ChartQA":
        assert PICTURES / 2 < right < PICTURES, "rounding to fives is mostly within 5 %"
    elif benchmark in ("MM-Vet", "MM-Vet-v2"):
        assert right < PICTURES / 2, "the bare answer holds only a part of the facts"
    else:
        assert right == PICTURES


@pytest.mark.parametrize("benchmark", STAND_INS)
def test_pictures_show_their_glyphs_and_come_from_their_pool(benchmark):
    rng = np.random.default_rng(3)
    for draw in STAND_INS[benchmark].draw:
        picture = draw(pools()["test"], rng)
        assert set(picture.scans) <= set(pools()["test"].index.tolist())
        labels = scans()[1]
        assert tuple(int(labels[i]) for i in picture.scans) == picture.digits
        assert set(picture.glyphs) <= set(GLYPHS)
        for data, (rows, columns) in zip(picture.images, picture.sizes, strict=True):
            image = Image.open(io.BytesIO(data))
            assert image.size == (28 * columns, 28 * rows)
            assert np.asarray(image).std() > 20


def test_misreading_changes_the_answer_and_not_the_picture():
    """Misreading changes the teachers' answer to most questions."""
    changed = 0
    for seed in range(100):
        right, wrong = (
            make_question("MM-Vet", pools()["dev"], np.random.default_rng(seed), misread=share)
            for share in (0.0, 1.0)
        )
        assert right[0] == wrong[0], "the same picture"
        changed += right[1].worked != wrong[1].worked
    assert changed > 60


def test_training_questions_are_the_same_every_time():
    first, second = (training_questions("prompts", 3, 5) for _ in range(2))
    assert first == second
    assert len(first) == 3 * len(STAND_INS)
    assert len({q.id for q in first}) == len(first)
    for question in first:
        assert question.question.count("<image>") in (0, len(question.images))


def read(folder, name):
    return pd.read_csv(folder / f"{name}.tsv", sep="\t")


def test_benchmark_files_are_in_the_kits_format(tmp_path):
    write_benchmarks(tmp_path, "dev", 12)
    for name, file in BENCHMARK_FILES.items():
        rows = read(tmp_path, name)
        assert len(rows) == (24 if file.circular else 12)
        images = str(rows["image"][0])
        for image in ast.literal_eval(images) if images[0] == "[" else [images]:
            Image.open(io.BytesIO(base64.b64decode(image))).verify()
    for name in ("MMBench_DEV_EN", "MMBench_DEV_CN"):
        circular = read(tmp_path, name)
        for index in range(12):
            group = circular[circular["index"] % CIRCULAR_OFFSET == index]
            texts = {row[row["answer"]] for _, row in group.iterrows()}
            assert len(group) == 2
            assert len(texts) == 1, "the right option is the same in every rotation"
            assert set(group["answer"]) == {"A", "B"}


def test_the_files_cover_what_their_originals_tell_apart(tmp_path):
    write_benchmarks(tmp_path, "test", 60)
    assert set(read(tmp_path, "ChartQA_TEST")["split"]) == {"test_human", "test_augmented"}
    assert read(tmp_path, "MMStar")["category"].nunique() == 6
    assert read(tmp_path, "MMMU_DEV_VAL")["question_type"].nunique() == 2
    assert set(read(tmp_path, "MathVista_MINI")["question_type"]) == {"free_form", "multi_choice"}
    assert set("ABCDEFGHIJ") <= set(read(tmp_path, "MMMU_Pro_V").columns)
    vet = read(tmp_path, "MMVetV2")
    found = {part for parts in vet["category"] for part in parts.split(",")}
    assert found == {"rec", "ocr", "know", "gen", "spat", "math", "seq"}
