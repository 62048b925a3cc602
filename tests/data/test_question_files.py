import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rilbench.data.question_files import (
    Question,
    QuestionWriter,
    iter_questions,
    read_questions,
    write_questions,
)
from rilbench.errors import UserError
from rilbench.paths import locate_files

GOOD = Question("q1", (b"jpeg",), "What?", "7", "here")


def test_round_trip(tmp_path):
    questions = [GOOD, Question("q2", (b"a", b"b"), "Which of the two?", "A", "there")]
    write_questions(tmp_path / "q.parquet", questions)
    assert read_questions(tmp_path / "q.parquet") == questions


def test_images_go_where_the_text_says_or_first():
    plain = Question("q", (b"x", b"y"), "Which?", "A", "")
    assert plain.marked == "<image><image>Which?"
    assert plain.parts == [b"x", b"y", "Which?"]
    placed = Question("q", (b"x", b"y"), "Is <image> darker than <image>?", "A", "")
    assert placed.marked == placed.question
    assert placed.parts == ["Is ", b"x", " darker than ", b"y", "?"]


@pytest.mark.parametrize(
    ("questions", "words"),
    [
        ([], "empty"),
        ([GOOD, GOOD], "twice"),
        ([Question("q1", (), "What is <image>?", "7", "")], "one for each"),
        ([Question("q1", (b"x",), "", "7", "")], "question"),
        ([Question("q1", (b"x",), "What?", "", "")], "answer"),
        ([Question("q1", (b"x",), "<image> or <image>?", "7", "")], "one for each"),
        ([Question("q1", (b"x", b"y"), "Is <image> dark?", "7", "")], "one for each"),
    ],
)
def test_bad_questions_are_refused(tmp_path, questions, words):
    write_questions(tmp_path / "q.parquet", questions)
    with pytest.raises(UserError, match=words):
        read_questions(tmp_path / "q.parquet")


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_questions(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(UserError, match="not a Parquet"):
        read_questions(tmp_path / "text.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "short.parquet")
    with pytest.raises(UserError, match="images, question"):
        read_questions(tmp_path / "short.parquet")


def test_several_files_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c, d [e]"):
        write_questions(tmp_path / f"{name}.parquet", [replace(GOOD, id=name)])
    for given, found in (
        ("b.parquet, a.parquet", ["b", "a"]),
        ("*.parquet", ["a", "b", "c, d [e]"]),
        ("[ab].parquet,", ["a", "b"]),
        ("c, d [e].parquet", ["c, d [e]"]),
    ):
        assert [q.id for q in iter_questions(*locate_files(given))] == found
    for given, words in (
        ("a.parquet,a*.parquet", "a.parquet has the id 'a' twice"),
        ("*.jsonl", r"no file matches \*.jsonl"),
        ("a.parquet,d.parquet", "d.parquet does not exist"),
        ("", "has no data.train"),
    ):
        with pytest.raises(UserError, match=words):
            list(iter_questions(*locate_files(given, "data.train")))
    write_questions(tmp_path / "z.parquet", [GOOD, replace(GOOD, id="a")])
    with pytest.raises(UserError, match=r"a.parquet and .*z.parquet have the same id 'a'.*import"):
        list(iter_questions(*locate_files("[az].parquet")))


def test_a_link_to_a_blob_without_a_suffix_is_read_by_its_own(tmp_path, monkeypatch):
    """As in the hub's cache, and DVC's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "blobs" / "3f9a").write_text(
        '{"id": 1, "image": "a.png", "question": "?", "answer": 1}'
    )
    (tmp_path / "q.jsonl").symlink_to("blobs/3f9a")
    for given in ("q.jsonl", "q.json*", "q.jsonl,"):
        assert [q.images for q in iter_questions(*locate_files(given))] == [(b"x",)]


def test_answers_that_are_no_texts_are_refused(tmp_path):
    row = {"id": 1.0, "images": [b"x"], "question": "?", "answer": 3.0, "source": None}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "q.parquet")
    (found,) = read_questions(tmp_path / "q.parquet")
    assert (found.id, found.answer, found.source) == ("1", "3", "unnamed")
    for answer, words in (
        (["a"], "'answer' is a list"),
        ({"a": 1}, "'answer' is an object"),
        (True, "true or false"),
        (float("nan"), "not a number"),
        ("nan", "missing value"),
    ):
        pq.write_table(pa.Table.from_pylist([{**row, "answer": answer}]), tmp_path / "q.parquet")
        with pytest.raises(UserError, match=words):
            read_questions(tmp_path / "q.parquet")


def test_a_large_file_is_written_and_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("rilbench.data.row_files.GROUP_BYTES", 100)
    questions = [Question(str(i), (bytes(60),), "What?", "7", "") for i in range(7)]
    write_questions(tmp_path / "q.parquet", questions)
    assert pq.ParquetFile(tmp_path / "q.parquet").num_row_groups == 4
    assert [q.id for q in read_questions(tmp_path / "q.parquet")] == list("0123456")


def test_a_reader_keeps_nothing_of_what_it_has_read(tmp_path, monkeypatch):
    monkeypatch.setattr("rilbench.data.row_files.GROUP_BYTES", 1 << 20)
    write_questions(
        tmp_path / "q.parquet",
        (Question(str(i), (os.urandom(1 << 18),), "What?", "7", "") for i in range(200)),
    )
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() for _ in iter_questions(tmp_path / "q.parquet"))
    assert most - before < 20 << 20, "of the file's 50 MB"


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "q.parquet"
    write_questions(path, [GOOD])
    with pytest.raises(AttributeError), QuestionWriter(path) as writer:
        writer.write("no question")
    assert read_questions(path) == [GOOD]
    assert list(tmp_path.iterdir()) == [path]


def test_images_of_another_type_are_refused(tmp_path):
    row = {"id": "1", "images": ["cat.png"], "question": "?", "answer": "a", "source": ""}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "q.parquet")
    with pytest.raises(UserError, match="rilbench data import"):
        read_questions(tmp_path / "q.parquet")
