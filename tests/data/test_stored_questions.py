"""Questions whose pictures stay on the disk, as every reader sees them."""

import io

import pyarrow as pa
import pytest
from PIL import Image

from rilbench.data.question_files import Question, write_questions
from rilbench.data.row_files import mapped_column, row_file, write_column
from rilbench.data.stored_questions import QuestionScan, store_pictures
from rilbench.errors import UserError
from rilbench.images import as_seen


def encoded(picture, kind="PNG", **more):
    file = io.BytesIO()
    picture.save(file, kind, **more)
    return file.getvalue()


def two_colours(mode="RGB"):
    """Blue above red, twice as wide as high."""
    picture = Image.new(mode, (64, 32), "blue")
    picture.paste("red", (0, 16, 64, 32))
    return picture


def test_texts_are_kept_and_pictures_are_read_again(tmp_path):
    images = [encoded(Image.new("RGB", (8, 8), colour)) for colour in ("red", "lime", "blue")]
    questions = [
        Question("a", (images[0],), "A?", "1", "s"),
        Question("b", (images[1], images[2]), "<image> or <image>?", "2", "s"),
    ]
    path, file = tmp_path / "q.parquet", tmp_path / "data" / "pictures.arrow"
    write_questions(path, questions)
    scans = [QuestionScan([path], file, first) for first in (0, 3)]
    assert [list(scan) for scan in scans] == [questions] * 2
    assert [scan.end for scan in scans] == [3, 6]
    stored, again = (scan.questions for scan in scans)
    store_pictures(file, scans)
    assert [s.images for s in (*stored, *again)] == [q.images for q in questions] * 2
    assert [s.parts for s in stored] == [q.parts for q in questions]
    assert [(s.id, s.marked, s.sha256) for s in stored] == [
        (q.id, q.marked, q.sha256) for q in questions
    ]
    assert not any(b in vars(stored[1]).values() for b in images)
    inode = file.stat().st_ino
    store_pictures(file, scans)
    assert file.stat().st_ino == inode, "written once"

    write_questions(path, questions[:1])
    with pytest.raises(UserError, match="changed while it was read"):
        store_pictures(tmp_path / "other.arrow", scans)
    fewer = QuestionScan([path], file, 0)
    assert list(fewer) == questions[:1]
    store_pictures(file, [fewer])
    assert (fewer.questions[0].images, len(mapped_column(file))) == ((images[0],), 1)


def test_the_hash_is_of_what_a_model_sees():
    one = Question("a", (b"x", b"y"), "A?", "1", "s")
    same = Question("b", (b"x", b"y"), "A?", "2", "t")
    assert one.sha256 == same.sha256
    for images, text in (((b"xy",), "A?"), ((b"y", b"x"), "A?"), ((b"x", b"y"), "B?")):
        assert Question("a", images, text, "1", "s").sha256 != one.sha256


def lying_photograph():
    """A JPEG that its EXIF turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(two_colours(), "JPEG", quality=95, exif=exif)


def test_pictures_are_stored_as_models_see_them(tmp_path):
    plain, lying = encoded(two_colours()), lying_photograph()
    questions = [Question("a", (plain, lying), "Which?", "1", "s")]
    path, file = tmp_path / "q.parquet", tmp_path / "pictures.arrow"
    write_questions(path, questions)
    scan = QuestionScan([path], file, 0)
    (seen,) = scan
    store_pictures(file, [scan])
    assert scan.questions[0].images == seen.images == (plain, as_seen(lying))


def test_a_mapped_column_that_is_written_again_is_read_again(tmp_path):
    texts = [f"text {i} \u2028" for i in range(20)]
    path = tmp_path / "t.arrow"
    write_column(path, [texts[:7], pa.array(texts[7:])], "string")
    assert len(mapped_column(path)) == 20
    assert [mapped_column(path)[i] for i in range(20)] == texts
    write_column(path, [["other"]], "string")
    assert mapped_column(path)[0] == "other"
    path.unlink()
    path.write_bytes(b"half")
    with pytest.raises(UserError, match="--resume"):
        mapped_column(path)
    with pytest.raises(UserError, match="--resume"):
        mapped_column(tmp_path / "none.arrow")


def test_a_file_that_could_not_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_text("there")
    with pytest.raises(ZeroDivisionError), row_file(path, pa.schema({"a": pa.int64()})) as writer:
        writer.write({"a": 1 // 0})
    assert path.read_text() == "there"
    assert list(tmp_path.iterdir()) == [path]


def test_large_pictures_are_written_in_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("rilbench.data.stored_questions._BATCH_BYTES", 150)
    images = [encoded(Image.new("RGB", (8, 8), (i, 0, 0))) for i in range(8)]
    write_questions(
        tmp_path / "q.parquet",
        [Question(str(i), (image,), "A?", "1", "s") for i, image in enumerate(images)],
    )
    file = tmp_path / "pictures.arrow"
    scan = QuestionScan([tmp_path / "q.parquet"], file, 0)
    assert len(list(scan)) == len(images)
    store_pictures(file, [scan])
    assert 1 < pa.ipc.open_file(str(file)).num_record_batches <= len(images) + 1
    assert [s.images for s in scan.questions] == [(image,) for image in images]
