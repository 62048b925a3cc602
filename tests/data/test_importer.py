"""The import of a data set: its files, its rows, its images, and what is refused."""

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
from rilbench.data.importer import Options, import_questions
from rilbench.data.jsonl import ImageRoot
from rilbench.data.layouts import column_names, recognise, row_questions
from rilbench.data.question_files import read_questions, write_questions
from rilbench.data.row_files import as_written
from rilbench.errors import InvalidQuestionError, UserError


def picture(shade=128, kind="PNG", size=(40, 30)):
    stream = io.BytesIO()
    Image.linear_gradient("L").resize(size).point(lambda v: v * shade // 255).save(stream, kind)
    return stream.getvalue()


def turns(*texts):
    speakers = ("human", "gpt")
    return [{"from": speakers[i % 2], "value": text} for i, text in enumerate(texts)]


def import_all(place, out, **options):
    report = import_questions([place], out, Options(**options), lambda *_: None)
    return report, read_questions(out)


def questions_of(row, root, **options):
    """The questions of one row, as the importer finds them."""
    columns = recognise(tuple(column_names(row)), options.pop("columns", {}))
    return row_questions(
        columns, row, ImageRoot(root), default_id="r", default_source="s", **options
    )


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
        file, tmp_path / "q.parquet", images=llava / "images", source="llava"
    )
    assert [(q.id, q.question, q.answer, len(q.images), q.source) for q in found] == [
        ("1", "What?", "a cat", 1, "llava"),
        ("1#2", "<image> or <image>?", "b", 2, "llava"),
        ("data.json-3", "What?", "dog", 1, "chartqa"),
    ]
    assert (report.rows, report.questions, report.skipped, report.renamed) == (12, 3, 9, 1)
    reasons = " ".join(report.examples)
    for words in ("row 4: it has no image", "row 5: the image 'gone.png' cannot be read"):
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


def test_rows_of_text_are_taken_if_asked(llava, tmp_path):
    file = write_llava(llava, *MIXED)
    out = tmp_path / "q.parquet"
    options = {"images": llava / "images", "source": "llava"}
    before, _ = import_all(file, out, **options)
    report, found = import_all(file, out, text_only=True, **options)
    assert report.without_image == report.questions - before.questions > 0
    assert report.skipped == before.skipped - report.without_image
    assert sum(not q.images for q in found) == report.without_image
    assert read_questions(out) == found


def test_a_file_without_a_column_of_images_is_taken_if_asked(tmp_path):
    folder = hub(tmp_path / "s", [{"question": "?", "answer": "a"}], "text/train.parquet")
    with pytest.raises(UserError, match="or take it as text with --text-only"):
        import_all(folder, tmp_path / "q.parquet")
    report, (question,) = import_all(folder, tmp_path / "q.parquet", text_only=True)
    assert (question.images, question.answer, report.without_image) == ((), "a", 1)


def test_llava_all_turns(llava, tmp_path):
    file = write_llava(llava, *MIXED)
    _, found = import_all(file, tmp_path / "q.parquet", images=llava / "images", all_turns=True)
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
    {"image": st.just("a.png") | st.just(["a.png"]) | JSON},
    optional={
        "conversations": st.lists(TURN) | JSON,
        "prompt": st.lists(TURN) | JSON,
        "question": JSON,
        "answer": JSON,
        "options": JSON,
        "reward_model": JSON,
        "id": JSON,
        "data_source": JSON,
    },
)


@given(ENTRY, st.booleans())
def test_any_entry_is_questions_or_refused(tmp_path_factory, entry, every):
    folder = tmp_path_factory.getbasetemp()
    (folder / "a.png").write_bytes(b"png")
    try:
        found = questions_of(entry, folder, all_turns=every)
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


def test_hub_with_alternatives_and_splits(tmp_path):
    chart = {"image": cell(), "query": "How many?", "label": ["3"], "human_or_machine": 0}
    two = {"image": cell(9), "query": "Which?", "label": ["a", "b", "a"], "human_or_machine": 1}
    broken = {"image": {"bytes": b"x", "path": None}, "query": "?", "label": ["b"]}
    none = {"image": None, "query": "?", "label": ["b"]}
    folder = hub(tmp_path / "chart", [chart, two, {**broken, "human_or_machine": 0}, none])
    hub(folder, [chart], "data/test-00000-of-00001.parquet")
    report, found = import_all(folder, tmp_path / "q.parquet")
    assert [(q.question, q.answer, q.source) for q in found] == [
        ("How many?", "3", "chart"),
        ("Which?", "a<OR>b", "chart"),
    ]
    assert found[0].id == "data/train-00000-of-00001.parquet-1"
    assert (report.skipped, report.rows) == (2, 4)
    with pytest.raises(UserError, match=r"split 'dev' \(test, train\); give another --split"):
        import_all(folder, tmp_path / "q.parquet", split="dev")
    with pytest.raises(UserError, match=r"no answer .*name the column with --columns answer=NAME"):
        import_all(
            hub(tmp_path / "x", [{"image": cell(), "question": "?"}]), tmp_path / "q.parquet"
        )
    with pytest.raises(UserError, match="--columns ansver"):
        import_all(folder, tmp_path / "q.parquet", columns={"ansver": "label"})
    with pytest.raises(UserError, match="no column 'gold', named for the answer"):
        import_all(folder, tmp_path / "q.parquet", columns={"answer": "gold"})


@pytest.mark.parametrize(
    "names",
    [
        ("chartqa_train.jsonl", "chartqa_test.jsonl"),
        ("geo.train.jsonl", "geo.val.jsonl"),
        ("train/part0/0.jsonl", "test/part0/0.jsonl"),
    ],
)
def test_no_file_of_another_split_is_read(tmp_path, names):
    place = tmp_path / "set"
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(json.dumps({"image": "a.png", "question": "?", "answer": name}))
    (place / "a.png").write_bytes(picture())
    _, found = import_all(place, tmp_path / "q.parquet")
    assert [q.answer for q in found] == [names[0]]
    with pytest.raises(UserError, match=r"no file of the split 'dev' \((train, )?(test|val)"):
        import_all(place, tmp_path / "q.parquet", split="dev")


@pytest.mark.parametrize("images", [["images/a.png", "images/b.jpg"], []])
def test_a_mark_of_an_image_that_is_not_there_is_refused(llava, images):
    row = {"id": "1", "images": images, "problem": "<image> What?", "answer": "x"}
    (llava / "q.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=f"has 1 <image> in its text and {len(images)} images"):
        import_all(llava / "q.jsonl", llava / "q.parquet", text_only=True)


@pytest.mark.parametrize(
    ("answer", "right"),
    [("1", "B"), (1, "B"), ("B", "B"), ("cow", "B"), ("7", None), ("", None), (-1, None)],
)
def test_options(tmp_path, answer, right):
    row = {"image": cell(), "question": "Which?", "options": ["cat", "cow"], "answer": answer}
    if right is None:
        with pytest.raises(InvalidQuestionError, match="not one of its options"):
            questions_of(row, tmp_path)
        return
    (found,) = questions_of(row, tmp_path)
    assert (found.question, found.answer) == ("Which?\nA. cat\nB. cow", right)


def test_options_that_are_numbers(tmp_path):
    row = {"image": cell(), "question": "Which?", "answer": "1"}
    for options, right in ((["2", "1", "5"], "B"), (["1", "2", "5"], None), (["5", "6"], "B")):
        if right is None:
            with pytest.raises(InvalidQuestionError, match="one option and the number of another"):
                questions_of({**row, "options": options}, tmp_path)
        else:
            assert questions_of({**row, "options": options}, tmp_path)[0].answer == right


def test_options_that_are_in_the_question_or_in_a_text(tmp_path):
    row = {"image": cell(), "question": "Which?\n(A) cat\n(B) cow", "answer": 1}
    (found,) = questions_of({**row, "options": ["cat", "cow"]}, tmp_path)
    assert (found.question, found.answer) == (row["question"], "B")
    row |= {"question": "Which?", "answer": "B"}
    (found,) = questions_of({**row, "options": "['cat', 'cow']"}, tmp_path)
    assert (found.question, found.answer) == ("Which?\nA. cat\nB. cow", "B")
    (found,) = questions_of({**row, "options": "[]"}, tmp_path)
    assert (found.question, found.answer) == ("Which?", "B")
    row["options"] = "A: cat, B: cow"
    with pytest.raises(InvalidQuestionError, match="question=question"):
        questions_of(row, tmp_path)
    (found,) = questions_of(row, tmp_path, columns={"question": "question+options", "options": ""})
    assert (found.question, found.answer) == ("Which?\nA: cat, B: cow", "B")


def test_a_file_that_cannot_be_used_costs_itself_only(tmp_path):
    rows = [{"image": cell(i), "question": "?", "answer": "a"} for i in range(9)]
    folder = hub(tmp_path / "s", rows, "a/train-00000-of-00001.parquet")
    hub(folder, [{"question": "?", "answer": "a"}], "text/train-00000-of-00001.parquet")
    cut = hub(folder, rows, "z/train-00000-of-00001.parquet") / "z/train-00000-of-00001.parquet"
    cut.write_bytes(cut.read_bytes()[:-9])
    report, found = import_all(folder, tmp_path / "q.parquet")
    assert {q.source for q in found} == {"a"}
    assert len(found) == report.questions == 9
    text, damaged = report.unused_files
    assert "text/train" in text
    assert "it has no image (its columns: question, answer)" in text
    assert "z/train" in damaged
    assert "cannot be read as Parquet" in damaged
    with pytest.raises(UserError, match="download it again"):
        import_all(cut, tmp_path / "q.parquet")


def test_parquet_of_columns_that_are_structs(tmp_path):
    row = {"image": cell(), "meta": {"ask": {"text": "What?"}, "gold": 7.0}}
    folder = hub(tmp_path / "s", [row])
    columns = {"question": "meta.ask.text", "answer": "meta.gold"}
    report, found = import_all(folder, tmp_path / "q.parquet", columns=columns)
    assert [(q.question, q.answer) for q in found] == [("What?", "7")]
    (layout,) = report.layouts
    assert layout == "your columns (images=image, question=meta.ask.text, answer=meta.gold)"


def test_a_number_of_32_bits_is_as_it_was_written(tmp_path):
    table = pa.table(
        {
            "image": [cell(), cell()],
            "question": ["How much?", "And here?"],
            "answer": pa.array([3.14, 2.0], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "train.parquet")
    _, found = import_all(tmp_path / "train.parquet", tmp_path / "q.parquet")
    assert [q.answer for q in found] == ["3.14", "2"]


def test_nested_numbers_of_32_bits_are_as_they_were_written():
    one = pa.float32()
    kinds = {"list": pa.list_(one), "struct": pa.struct([("a", one), ("b", pa.list_(one))])}
    values = {"list": [[3.14, None], None], "struct": [{"a": 0.1, "b": [2.7]}, None]}
    made = pa.record_batch({name: pa.array(values[name], kinds[name]) for name in kinds})
    assert as_written(made).to_pydict() == values


@pytest.mark.parametrize(
    ("answer", "column", "gold"),
    [
        ("<think>1 + 2</think> <answer> 3 </answer>", "answer", "3"),
        ("<think>1 + 2 = 3", "answer", None),
        (r"\boxed{\frac{1}{2}}", "answer", r"\frac{1}{2}"),
        (r"$\boxed{3}$", "answer", "3"),
        (r"\boxed{1} or \boxed{2}", "answer", r"\boxed{1} or \boxed{2}"),
        ("So it is 3.\n**Final Answer:** 3", "solution", "3"),
        ("First 1, then 2.\n#### 12", "solution", "12"),
        (r"Hence \boxed{x_{1}}.", "solution", "x_{1}"),
        ("a cat", "solution", "a cat"),
        ("To find the answer, look\nat the map.", "solution", None),
        ("word " * 30, "lecture", None),
        ("word " * 30, "answer", ("word " * 30).strip()),
        ("['ride', 'bus']", "answer", None),
        ("{'a': 1}", "answer", None),
        ("[1, 2]", "answer", "[1, 2]"),
        ({"a": 1}, "answer", None),
        (True, "answer", None),
        (float("nan"), "answer", None),
        (3.0, "answer", "3"),
        (["a", "<answer>b</answer>"], "answer", "a<OR>b"),
    ],
)
def test_gold_answers(tmp_path, answer, column, gold):
    row = {"image": cell(), "question": "?", column: answer}
    if gold is None:
        with pytest.raises(InvalidQuestionError, match=";"):
            questions_of(row, tmp_path, columns={"answer": column})
        return
    assert questions_of(row, tmp_path, columns={"answer": column})[0].answer == gold


def test_whole_answers_are_kept_for_fine_tuning(tmp_path):
    said = "<think>1 + 2</think> <answer>3</answer>"
    row = {"images": [cell()], "messages": [{"role": "user", "content": "?"}], "solution": said}
    assert questions_of(row, tmp_path)[0].answer == "3"
    assert questions_of(row, tmp_path, whole_answers=True)[0].answer == said


def test_the_command(llava, tmp_path):
    write_llava(llava, *MIXED)
    images = ("--images", "llava/images")
    done = run(
        *("data", "import", "llava/data.json", "--out", "q.parquet", *images),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    layout, *samples, counts = done.stdout.splitlines()
    assert layout.startswith("layout LLaVA (id=id, images=image, conversation=conversations)")
    assert '  1#2 (2 images): "<image> or <image>?" answer "b"' in samples
    assert counts == "q.parquet: 3 questions of 12 rows, 9 skipped; 1 duplicate ids got a number"
    assert done.stderr.count("skipped data.json row") == 9
    none = write_llava(llava, *MIXED[3:])
    said = run(
        *("data", "import", str(none), "--out", "n.parquet", *images),
        cwd=tmp_path,
    )
    refused(said, "none of 9 rows")
    assert not (tmp_path / "n.parquet").exists()
    assert list(tmp_path.glob(".*")) == []


def test_json_lines_without_the_bad_ones(llava, tmp_path):
    good = {"id": 1, "question": "What?", "answer": 7, "image": "images/a.png"}
    (llava / "q.jsonl").write_text(json.dumps(good) + "\n{\n" + json.dumps({**good, "image": "x"}))
    arguments = ["data", "import", str(llava / "q.jsonl")]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "q.parquet")])
    assert done.exit_code == 0, done.exception
    (question,) = read_questions(tmp_path / "q.parquet")
    assert (question.id, question.answer, question.source) == ("1", "7", "q")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "does not exist"),
        (["x.json", "--turns", "last"], "first or all"),
        (["x.json", "--columns", "question"], "field=column"),
        (["x.json"], "none of 0 rows"),
        (["y.parquet"], "download it again"),
        (["y.csv"], "give Parquet, JSON or JSON lines"),
        (["ids.json"], "its columns: 0, 1, 2"),
        (["q.parquet"], "another file"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    by_id = {str(i): {"question": "What?", "answer": "x"} for i in range(500)}
    (tmp_path / "ids.json").write_text(json.dumps(by_id))
    for name in ("q.parquet", "y.parquet", "y.csv"):
        (tmp_path / name).write_text("")
    done = CliRunner().invoke(app, ["data", "import", *arguments, "--out", "q.parquet"])
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
    assert len(str(done.exception)) < 600


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("q.jsonl", "end its name in .parquet"),
        ("set.v1", "end its name in .parquet"),
        ("llava/q.parquet", "in the folder that is read"),
    ],
)
def test_a_file_that_would_be_misread_is_not_written(llava, tmp_path, monkeypatch, out, words):
    monkeypatch.chdir(tmp_path)
    write_llava(llava, MIXED[0])
    done = CliRunner().invoke(app, ["data", "import", "llava", "--out", out])
    assert words in str(done.exception)
    assert not (tmp_path / out).exists()
    with pytest.raises(UserError, match=r"end its name in \.parquet"):
        write_questions(tmp_path / "q.jsonl", [])
