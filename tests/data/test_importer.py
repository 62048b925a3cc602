"""Importers on real files: LLaVA's JSON, the hub's Parquet, JSON lines."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import refused, run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.data.import_hf import HubParquet
from rilbench.data.import_llava import LlavaJson
from rilbench.data.importer import import_questions
from rilbench.data.question import InvalidQuestionError
from rilbench.data.question_files import read_questions
from rilbench.errors import UserError


def picture(shade=128, kind="PNG", size=(40, 30)):
    stream = io.BytesIO()
    Image.linear_gradient("L").resize(size).point(lambda v: v * shade // 255).save(stream, kind)
    return stream.getvalue()


def turns(*texts):
    speakers = ("human", "gpt")
    return [{"from": speakers[i % 2], "value": text} for i, text in enumerate(texts)]


def import_all(format_, out):
    report = import_questions(format_, out, lambda _: None)
    return report, read_questions(out)


@pytest.fixture
def llava(tmp_path):
    folder = tmp_path / "llava"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(picture())
    (folder / "images" / "b.jpg").write_bytes(picture(90, "JPEG"))
    (folder / "images" / "cut.jpg").write_bytes(picture(90, "JPEG", (400, 300))[:-400])
    (folder / "images" / "no.png").write_text("hello")
    (tmp_path / "secret.png").write_bytes(picture())
    return folder


def write_llava(folder, *entries):
    path = folder / "data.json"
    path.write_text(json.dumps(entries))
    return path


MIXED = (
    {
        "id": "1",
        "image": "a.png",
        "conversations": turns("<image>\nWhat?", "a cat", "Where?", "in"),
    },
    {"id": "1", "image": ["a.png", "b.jpg"], "conversations": turns("<image> or <image>?", "b")},
    {"image": "b.jpg", "conversations": turns("What?\n<image>", "dog"), "data_source": "chartqa"},
    {"id": "text", "conversations": turns("Write a poem.", "No.")},
    {"id": "gone", "image": "gone.png", "conversations": turns("What?", "a")},
    {"id": "out", "image": "../../secret.png", "conversations": turns("What?", "a")},
    {"id": "cut", "image": "cut.jpg", "conversations": turns("What?", "a")},
    {"id": "no", "image": "no.png", "conversations": turns("What?", "a")},
    {"id": "order", "image": "a.png", "conversations": turns("a", "b")[::-1]},
    {"id": "marks", "image": "a.png", "conversations": turns("<image><image>?", "b")},
    {"id": "silent", "image": "a.png", "conversations": turns("What?", "")},
    "text",
)


def test_llava_first_turns(llava, tmp_path):
    file = write_llava(llava, *MIXED)
    report, found = import_all(
        LlavaJson(file, llava / "images", False, "llava"), tmp_path / "q.parquet"
    )
    assert [(q.id, q.question, q.answer, len(q.images), q.source) for q in found] == [
        ("1", "What?", "a cat", 1, "llava"),
        ("1#2", "<image> or <image>?", "b", 2, "llava"),
        ("3", "What?", "dog", 1, "chartqa"),
    ]
    assert (report.rows, report.questions, report.skipped, report.renamed) == (12, 3, 9, 1)
    reasons = " ".join(report.examples)
    for words in ("entry 4: it has no image", "entry 5: the image 'gone.png' cannot be read"):
        assert words in reasons
    for words in (
        "leads out of",
        "truncated",
        "do not alternate",
        "2 <image>",
        "its answer",
        "not an object",
    ):
        assert words in reasons


def test_llava_all_turns(llava, tmp_path):
    file = write_llava(llava, *MIXED)
    _, found = import_all(LlavaJson(file, llava / "images", True, "llava"), tmp_path / "q.parquet")
    assert [(q.id, q.question, q.answer) for q in found[:2]] == [
        ("1", "What?", "a cat"),
        ("1.2", "Where?", "in"),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
TURN = st.dictionaries(
    st.sampled_from(["from", "value", "role", "content", "user", "assistant", "x"]),
    st.sampled_from(["human", "gpt", "system", "user", "<image>", "a <image> b", "\ud800"]) | JSON,
)
ENTRY = st.fixed_dictionaries(
    {"image": st.just("a.png") | st.just(["a.png"]) | JSON, "conversations": st.lists(TURN) | JSON},
    optional={"id": JSON, "data_source": JSON},
)


@given(ENTRY | JSON, st.booleans())
def test_any_entry_is_questions_or_refused(tmp_path_factory, entry, every):
    folder = tmp_path_factory.getbasetemp()
    (folder / "a.png").write_bytes(b"png")
    format_ = LlavaJson(folder / "none", folder, every, "s")
    try:
        found = format_.questions("entry 1", entry)
    except InvalidQuestionError:
        return
    assert found
    for each in found:
        each.id.encode(), each.question.encode(), each.answer.encode(), each.source.encode()


def hub(folder, rows, name="data/train-00000-of-00001.parquet"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder


def cell(shade=128):
    return {"bytes": picture(shade), "path": "a.png"}


def test_hub_with_columns_named(tmp_path):
    chart = {"image": cell(), "query": "How many?", "label": ["3"], "human_or_machine": 0}
    two = {"image": cell(9), "query": "Which?", "label": ["a", "b", "a"], "human_or_machine": 1}
    broken = {"image": {"bytes": b"x", "path": None}, "query": "?", "label": ["b"]}
    none = {"image": None, "query": "?", "label": ["b"]}
    folder = hub(tmp_path / "chart", [chart, two, {**broken, "human_or_machine": 0}, none])
    hub(folder, [chart], "data/test-00000-of-00001.parquet")
    report, found = import_all(
        HubParquet(folder, "train", {}, False, "chartqa"), tmp_path / "q.parquet"
    )
    assert [(q.question, q.answer, q.source) for q in found] == [
        ("How many?", "3", "chartqa"),
        ("Which?", "a<OR>b", "chartqa"),
    ]
    assert found[0].id == "data/train-00000-of-00001.parquet-1"
    assert (report.skipped, report.rows) == (2, 4)
    with pytest.raises(UserError, match=r"split 'dev' \(test, train\); give another --split"):
        HubParquet(folder, "dev", {}, False, "")
    with pytest.raises(UserError, match="no column for answer; name it with --columns"):
        HubParquet(
            hub(tmp_path / "x", [{"image": cell(), "question": "?"}]), "train", {}, False, ""
        )
    with pytest.raises(UserError, match="--columns ansver"):
        HubParquet(folder, "train", {"ansver": "label"}, False, "")


@pytest.mark.parametrize(
    ("answer", "right"),
    [("1", "B"), (1, "B"), ("B", "B"), ("cow", "B"), ("7", None), ("", None), (-1, None)],
)
def test_hub_options(tmp_path, answer, right):
    row = {"image": cell(), "question": "Which?", "options": ["cat", "cow"], "answer": answer}
    chosen = HubParquet(hub(tmp_path, [row]), "train", {"options": "options"}, False, "ai2d")
    ((place, values),) = chosen.rows()
    if right is None:
        with pytest.raises(InvalidQuestionError, match="not one of its options"):
            chosen.questions(place, values)
        return
    (found,) = chosen.questions(place, values)
    assert (found.question, found.answer) == ("Which?\nA. cat\nB. cow", right)


def test_hub_options_that_are_numbers(tmp_path):
    row = {"image": cell(), "question": "Which?", "options": ["2", "1", "5"], "answer": "1"}
    for options, right in ((["2", "1", "5"], "B"), (["1", "2", "5"], None), (["5", "6"], "B")):
        chosen = HubParquet(
            hub(tmp_path, [{**row, "options": options}]), "train", {"options": "options"}, False, ""
        )
        ((place, values),) = chosen.rows()
        if right is None:
            with pytest.raises(InvalidQuestionError, match="one option and the number of another"):
                chosen.questions(place, values)
        else:
            assert chosen.questions(place, values)[0].answer == right


def test_hub_conversations(tmp_path):
    cauldron = {"images": [cell(), cell(9)], "texts": [{"user": "Which?", "assistant": "A"}]}
    _, found = import_all(
        HubParquet(hub(tmp_path / "c", [cauldron]), "train", {}, True, "cauldron"),
        tmp_path / "c.parquet",
    )
    assert [(q.question, q.answer, len(q.images)) for q in found] == [("Which?", "A", 2)]
    onevision = {"id": "x", "image": cell(), "conversations": turns("<image>\nWhat?", "7")}
    _, found = import_all(
        HubParquet(hub(tmp_path / "o", [onevision]), "train", {}, False, "o"),
        tmp_path / "o.parquet",
    )
    assert [(q.id, q.question, q.answer) for q in found] == [("x", "What?", "7")]


def test_a_hub_file_that_was_cut(tmp_path):
    rows = [{"image": cell(i), "question": "?", "answer": "a"} for i in range(9)]
    folder = hub(tmp_path, rows)
    file = folder / "data/train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match="download it again"):
        HubParquet(folder, "train", {}, False, "")


def test_the_command(llava, tmp_path):
    write_llava(llava, *MIXED)
    images = ("--images", "llava/images")
    done = run(
        *("data", "import", "llava/data.json", "--from", "llava", "--out", "q.parquet", *images),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    words = "q.parquet: 3 questions of 12 rows, 9 skipped; 1 duplicate ids got a number"
    assert " ".join(done.stdout.split()) == words
    assert done.stderr.count("skipped entry") == 9
    none = write_llava(llava, *MIXED[3:])
    said = run(
        *("data", "import", str(none), "--from", "llava", "--out", "n.parquet", *images),
        cwd=tmp_path,
    )
    refused(said, "none of 9 rows")
    assert not (tmp_path / "n.parquet").exists()
    assert list(tmp_path.glob(".*")) == []


def test_json_lines_without_the_bad_ones(llava, tmp_path):
    good = {"id": 1, "question": "What?", "answer": 7, "image": "images/a.png"}
    (llava / "q.jsonl").write_text(json.dumps(good) + "\n{\n" + json.dumps({**good, "image": "x"}))
    arguments = ["data", "import", str(llava / "q.jsonl"), "--from", "jsonl"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "q.parquet")])
    assert done.exit_code == 0, done.exception
    (question,) = read_questions(tmp_path / "q.parquet")
    assert (question.id, question.answer, question.source) == ("1", "7", "q")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.json", "--from", "llava"], "not a file"),
        (["none", "--from", "hf"], "does not exist"),
        (["x.json", "--from", "coco"], "use llava, hf or jsonl"),
        (["x.json", "--from", "llava", "--turns", "last"], "first or all"),
        (["x.json", "--from", "llava", "--columns", "question=q"], "for --from hf"),
        (["x.json", "--from", "hf", "--columns", "question"], "field=column"),
        (["x.json", "--from", "hf"], "not a Parquet"),
        (["q.parquet", "--from", "jsonl"], "another file"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    (tmp_path / "q.parquet").write_text("")
    done = CliRunner().invoke(app, ["data", "import", *arguments, "--out", "q.parquet"])
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
