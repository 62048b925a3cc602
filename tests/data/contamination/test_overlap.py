"""Overlap with benchmark files in the kit's format: written here, and those that ship."""

import base64
import dataclasses
import io
import json
import random

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.data.contamination.benchmark_questions import read_benchmark
from rilbench.data.contamination.overlap import BY, BenchmarkIndex, Hit, find_overlap
from rilbench.data.question_files import Question, read_questions, write_questions
from rilbench.errors import UserError
from rilbench.evaluate.suite import find_suite
from rilbench.paths import nano_folder

SUITE = find_suite("paper").pick(["ChartQA", "MMB", "MMMU", "MMStar"])


def picture(number, kind="PNG", size=(320, 240)):
    """Clouds, each its own."""
    noise = Image.frombytes("RGB", (12, 9), random.Random(number).randbytes(12 * 9 * 3))
    stream = io.BytesIO()
    noise.resize((320, 240), Image.Resampling.BICUBIC).resize(size).save(stream, kind)
    return stream.getvalue()


def text(number):
    return base64.b64encode(picture(number)).decode()


LONG = "Which of the following continents has the largest area according to the map shown here?"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")

    def write(name, rows):
        pd.DataFrame(rows).to_csv(folder / f"{name}.tsv", sep="\t", index=False)

    asked = ["How many bars are there?", "What is the value\nof 2020?", 'Is "a"\tlarger?', LONG]
    write(
        "ChartQA_TEST",
        [{"index": i, "image": text(i), "question": q, "answer": "1"} for i, q in enumerate(asked)],
    )
    turns = [
        {
            "index": 5,
            "image": text(5),
            "question": "Which animal is it?",
            "A": "cat",
            "split": "dev",
        },
        {"index": 1_000_005, "image": "5", "question": "Which animal is it?", "split": "dev"},
        {"index": 6, "image": "5", "question": "Where is it?", "split": "dev"},
        {"index": 7, "image": text(7), "question": "What?", "split": "test"},
    ]
    write("MMBench_DEV_EN", turns)
    several = str([text(20), text(21)])
    write(
        "MMMU_DEV_VAL",
        [
            {
                "index": "v_1",
                "image": several,
                "question": "<image 1> <image 2>?",
                "split": "validation",
            },
            {"index": "d_1", "image": text(22), "question": "Dev only?", "split": "dev"},
            {
                "index": "v_2",
                "image": "nothing " * 20,
                "question": "Broken?",
                "split": "validation",
            },
        ],
    )
    return folder


@pytest.fixture
def known(data):
    return BenchmarkIndex(SUITE, data, lambda _: None)


def ask(name, images, question):
    return Question(name, images, question, "a", "s")


def hits(known, *questions):
    return [found for _, found in known.compare(questions)]


def test_rows_are_read_as_the_kit_reads_them(data):
    rows = {
        b.column: list(read_benchmark(data / f"{b.datasets[0].name}.tsv", b.datasets[0]))
        for b in SUITE.benchmarks
        if b.column != "MMStar"
    }
    assert [row.question for row in rows["ChartQA"]][1:3] == [
        "What is the value\nof 2020?",
        'Is "a"\tlarger?',
    ]
    assert [(row.index, row.same_images_as) for row in rows["MMB"]] == [
        ("5", None),
        ("5", "5"),
        ("6", "5"),
    ]
    assert [(row.index, len(row.images), row.unreadable) for row in rows["MMMU"]] == [
        ("v_1", 2, False),
        ("v_2", 0, True),
    ]


def test_each_kind_of_overlap(known):
    chart = ("ChartQA", "ChartQA_TEST")
    found = hits(
        known,
        ask("both", (picture(0),), "how many bars are there"),
        ask("near", (picture(1, "JPEG", (160, 120)),), "Something else?"),
        ask("words", (picture(90),), f"Look. {LONG} Answer with one word."),
        ask("none", (picture(91),), "Something else?"),
        ask("like", (picture(92), picture(5)), "Which animal is it?\nA. dog"),
        ask("several", (picture(21),), "What?"),
        ask("other split", (picture(22), picture(7)), "Dev only?"),
        ask("broken", (b"no picture",), "Where is it?"),
    )
    assert found[0] == [Hit(*chart, "0", "same", "same")]
    assert found[1] == [Hit(*chart, "1", "near", "")]
    assert found[2] == [Hit(*chart, "3", "", "near")]
    assert found[3] == []
    mmb = ("MMB", "MMBench_DEV_EN")
    assert found[4] == [Hit(*mmb, "5", "same", "same"), Hit(*mmb, "6", "same", "")]
    assert found[5] == [Hit("MMMU", "MMMU_DEV_VAL", "v_1", "same", "")]
    assert found[6] == []
    assert found[7] == [Hit(*mmb, "6", "", "same")]
    tally = known.tallies["ChartQA"]
    assert (tally.asked, tally.pictures, tally.same_image, tally.near_image) == (4, 4, 1, 1)
    assert (tally.same_question, tally.near_question, tally.both, tally.met) == (1, 1, 1, 2)
    assert known.tallies["MMB"].asked == 2
    assert known.tallies["MMB"].met == 2
    assert known.tallies["MMMU"].unreadable == 1
    assert known.tallies["MMStar"].missing == ["MMStar.tsv"]


@pytest.mark.parametrize("by", BY)
def test_what_is_dropped(known, tmp_path, by):
    questions = [
        ask("a", (picture(0),), "How many bars are there?"),
        ask("b", (picture(1),), "Something else?"),
        ask("c", (picture(90),), "Where is it?"),
        ask("d", (picture(91),), "Something else?"),
    ]
    out = tmp_path / "o.parquet"
    found = find_overlap(questions, known, by, out, lambda _: None)
    wanted = {"image": "cd", "question": "bd", "both": "bcd", "any": "d"}[by]
    assert "".join(q.id for q in read_questions(out)) == wanted
    assert (found.questions, found.overlapping, found.dropped) == (4, 3, 4 - len(wanted))
    with pytest.raises(UserError, match="every question overlaps"):
        find_overlap(questions[:1], known, by, tmp_path / "none.parquet", lambda _: None)
    assert not (tmp_path / "none.parquet").exists()


def test_nano_shares_questions_but_no_image_with_its_benchmarks(tmp_path, monkeypatch):
    """Its prompts are asked as its benchmarks are, on scans of their own."""
    monkeypatch.chdir(tmp_path)
    arguments = [
        "data",
        "overlap",
        "nano:prompts.parquet",
        "--suite",
        "nano",
        "--drop",
        "o.parquet",
    ]
    done = CliRunner().invoke(app, [*arguments, "--report", "r.json"])
    assert done.exit_code == 0, done.exception
    report = json.loads((tmp_path / "r.json").read_text())
    for column, tally in report["benchmarks"].items():
        assert tally["same_image"] == tally["near_image"] == tally["met"] == 0, column
        assert tally["same_question"] >= 18, column
        assert tally["asked"] == (200 if column == "MMMU-Pro" else 100)
        assert not tally["unreadable"]
    assert report["dropped"] == 0
    assert len(read_questions(tmp_path / "o.parquet")) == 280


def test_a_benchmark_s_own_questions_are_found(tmp_path):
    """All of a benchmark among the questions to train on: every one of them is met."""
    suite = find_suite("nano").pick(["AI2D", "MMB", "BLINK"])
    folder = nano_folder() / "benchmarks"
    stolen = [
        Question(f"{b.column}-{n}", row.images, row.question, "a", b.column)
        for b in suite.benchmarks
        for n, row in enumerate(read_benchmark(folder / f"{b.datasets[0].name}.tsv", b.datasets[0]))
        if row.images
    ]
    stolen = [
        dataclasses.replace(
            q, question=q.question.replace("<image 1>", "").replace("<image 2>", "")
        )
        for q in stolen
    ]
    found = find_overlap(
        stolen, BenchmarkIndex(suite, folder, lambda _: None), "both", None, lambda _: None
    )
    assert found.dropped == len(stolen) == 300
    for tally in found.tallies.values():
        assert (tally.met, tally.both, tally.same_image) == (100, 100, 100)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["q.parquet", "--data", "."], "none of the benchmarks' files"),
        (["none.parquet"], "none.parquet does not exist"),
        (["q.parquet", "--by", "luck"], "image, question, both, any"),
        (["q.parquet", "--suite", "other"], "unknown suite"),
        (["q.parquet", "--suite", "nano", "--drop", "q.parquet"], "another file"),
        (["q.parquet", "--data", "broken"], "download it again"),
        (["q.parquet", "--data", "headless"], "no column 'index'"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    write_questions(tmp_path / "q.parquet", [ask("1", (b"x",), "?")])
    for name, content in (("broken", b'index\timage\n1\t"open'), ("headless", b"a\tb\n1\t2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "MMStar.tsv").write_bytes(content)
    done = CliRunner().invoke(app, ["data", "overlap", *arguments])
    assert isinstance(done.exception, UserError), done.exception
    assert words in str(done.exception)


def test_missing_files_are_told(data, tmp_path):
    write_questions(tmp_path / "q.parquet", [ask("1", (picture(3),), "?")])
    done = CliRunner().invoke(
        app, ["data", "overlap", str(tmp_path / "q.parquet"), "--data", str(data)]
    )
    assert done.exit_code == 0, done.exception
    assert "MMStar was not compared: no MMStar.tsv" in done.stderr
    assert "MMMU: 1 rows have no readable image" in done.stderr
    assert "not compared" in done.stdout
