"""JSON lines: the fields, the images, and invalid lines."""

import base64
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rilbench.data.jsonl import ImageRoot, parse_line, to_image
from rilbench.data.question_files import Question, read_questions
from rilbench.errors import InvalidQuestionError, UserError

PICTURE = b"\x89PNG picture"
ENCODED = base64.b64encode(PICTURE).decode()
GOOD = {"id": "1", "question": "What?", "answer": "7", "images": ["cat.png"], "source": "my"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for name in ("cat.png", "sub/dog.png", "../secret.png"):
        (tmp_path / "data" / name).write_bytes(PICTURE)
    (tmp_path / "data" / "out").symlink_to(tmp_path)
    return tmp_path / "data"


def write(folder, *rows):
    path = folder / "q.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def test_every_form_of_a_picture(folder):
    path = write(
        folder,
        GOOD,
        "",
        {**GOOD, "id": 2, "images": ["sub/dog.png", f"data:image/png;base64,{ENCODED}"]},
        {"id": "3", "question": "?", "answer": 1.5, "image": {"base64": ENCODED}},
        {"id": "4", "question": "?", "answer": "a", "images": [{"path": "cat.png"}]},
        {"id": "5", "question": "Is <image> one?", "answer": "是", "image": "cat.png"},
    )
    found = read_questions(path)
    assert found[0] == Question("1", (PICTURE,), "What?", "7", "my")
    assert found[1].images == (PICTURE, PICTURE)
    assert [q.id for q in found] == ["1", "2", "3", "4", "5"]
    assert (found[2].answer, found[2].source) == ("1.5", "unnamed")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"id": "\udcff"}', "not JSON"),
        ({"id": "1", "question": "?"}, "no 'answer'"),
        ({**GOOD, "images": None}, r"lacks its image; add it, or write images: \[\]"),
        ({"id": "1", "question": "?", "answer": "7"}, "lacks its image"),
        ({**GOOD, "images": [], "question": "<image>?"}, "1 <image> in its text and 0 images"),
        ({**GOOD, "answer": ""}, "lacks its answer"),
        ({**GOOD, "question": " "}, "lacks its question"),
        ({**GOOD, "answer": ["7"]}, "'answer' is a list; write a text"),
        ({**GOOD, "answer": None}, "'answer' is null"),
        ({**GOOD, "answer": True}, "true or false"),
        ({**GOOD, "answer": float("nan")}, "not a number"),
        ({**GOOD, "answer": "nan"}, "a missing value"),
        ({**GOOD, "question": "\ud800"}, "not valid text"),
        ({**GOOD, "question": "<image> <image>?"}, "2 <image> in its text and 1 images"),
        ({**GOOD, "images": ["../secret.png"]}, "leads out of"),
        ({**GOOD, "images": ["out/secret.png"]}, "leads out of"),
        ({**GOOD, "images": ["/etc/passwd"]}, "leads out of"),
        ({**GOOD, "images": ["C:\\secret.png"]}, "leads out of"),
        ({**GOOD, "images": ["gone.png"]}, "cannot be read"),
        ({**GOOD, "images": ["sub"]}, "cannot be read"),
        ({**GOOD, "images": ["a\0b"]}, "cannot be read"),
        ({**GOOD, "images": ["x" * 5000]}, "cannot be read"),
        ({**GOOD, "images": ["https://x.org/cat.png"]}, "download it"),
        ({**GOOD, "images": ["data:image/png,abc"]}, "not in base64"),
        ({**GOOD, "images": ["data:image/png;base64,a!"]}, "not valid base64"),
        ({**GOOD, "images": [7]}, "an image is"),
    ],
)
def test_a_bad_line_is_one_clear_line(folder, row, words):
    if isinstance(row, str):
        (folder / "q.jsonl").write_bytes(
            json.dumps(GOOD).encode() + b"\n" + row.encode("utf-8", "surrogateescape")
        )
    else:
        write(folder, GOOD, {**row, "id": row["id"] + "b"})
    with pytest.raises(UserError, match=words) as error:
        read_questions(folder / "q.jsonl")
    assert str(error.value).startswith(f"line 2 of {folder / 'q.jsonl'}: ")
    assert len(str(error.value).splitlines()) == 1
    assert ";" in str(error.value)


def test_an_id_twice_and_an_empty_file(folder):
    with pytest.raises(UserError, match="'1' twice"):
        read_questions(write(folder, GOOD, GOOD))
    with pytest.raises(UserError, match="is empty"):
        read_questions(write(folder, "", " "))


def outcome(read, *arguments):
    """What is read, or why it is refused."""
    try:
        return read(*arguments)
    except InvalidQuestionError as error:
        return str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("id", "question", "answer", "images", "image", "source"), JSON)
)


@given(st.binary() | FIELDS.map(lambda row: json.dumps(row).encode()))
def test_whatever_a_line_holds_it_is_a_question_or_refused(tmp_path_factory, line):
    folder = tmp_path_factory.getbasetemp()
    found = outcome(parse_line, line, ImageRoot(folder), "s")
    assert ";" in found if isinstance(found, str) else found.id and found.images


@given(st.lists(st.sampled_from(["..", ".", "sub", "out", "cat.png", "/", "\\"]), max_size=6))
def test_no_path_reads_outside(tmp_path_factory, parts):
    base = tmp_path_factory.getbasetemp() / "paths"
    folder = base / "data"
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    if not (folder / "out").is_symlink():
        (folder / "out").symlink_to(base)
        (base / "cat.png").write_bytes(b"secret")
        (folder / "cat.png").write_bytes(PICTURE)
    name = "/".join(parts)
    for root in (ImageRoot(folder), ImageRoot(folder, is_given=True)):
        found = outcome(to_image, name, root)
        assert found == PICTURE or isinstance(found, str)


@given(st.text(string.printable, max_size=30))
def test_any_path_is_an_image_or_refused(tmp_path_factory, name):
    found = outcome(to_image, name, ImageRoot(tmp_path_factory.getbasetemp()))
    assert isinstance(found, bytes) or ";" in found


def test_absolute_paths_and_links_need_the_users_word(folder):
    inside, outside = str(folder / "cat.png"), str(folder.parent / "secret.png")
    for name in (inside, f"file://{inside}"):
        refused = outcome(to_image, name, ImageRoot(folder))
        assert refused.endswith(f"convert it with rilbench data import --images {folder}")
        for root in (folder, folder.parent, folder / "..", type(folder)("/")):
            assert to_image(name, ImageRoot(root, is_given=True)) == PICTURE
    given = ImageRoot(folder, is_given=True)
    assert outcome(to_image, outside, given).endswith("give --images with a folder above it")
    assert outcome(to_image, "out/secret.png", given).endswith("--follow-links")
    following = ImageRoot(folder, follow_links=True)
    assert to_image("out/secret.png", following) == PICTURE
    for name in ("../secret.png", "out/../../secret.png", outside):
        assert "leads out of" in outcome(to_image, name, following)
