"""Responses that exist already, imported as a teacher's collection and used by a run."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collected import Notes
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.config import load_recipe
from rilbench.data.question_files import Question, read_questions, write_questions
from rilbench.data.response_store import read_manifest, read_responses
from rilbench.errors import UserError
from rilbench.train.pipeline.collect_stage import collect_all, teacher_collections
from rilbench.train.pipeline.run_folder import Run

PIXEL = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS"
    b"\xde\x00\x00\x00\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00"
    b"\x00\x00IEND\xaeB`\x82"
)


@pytest.fixture
def questions(tmp_path):
    file = tmp_path / "train.parquet"
    write_questions(file, [Question(f"{i}", (PIXEL,), f"{i}?", "7", "s") for i in range(4)])
    return file


def import_(questions, out, *files, more=()):
    command = ["data", "import-responses", *map(str, files), "--questions", str(questions)]
    result = CliRunner().invoke(app, [*command, "--teacher", "72b", "--out", str(out), *more])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def jsonl(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_what_is_missing_is_named_and_a_run_uses_the_rest(questions, tmp_path):
    file = jsonl(
        tmp_path / "r.jsonl",
        {"id": "0", "response": "zero", "model": "Big/72b"},
        {"id": 1, "response": "<think>hm</think>one", "model": "Big/72b"},
        {"id": "1", "response": "uno", "model": "Big/72b", "finish_reason": "length"},
        {"id": "9", "response": "nine", "model": "Big/72b"},
        {"id": "3", "response": " ", "model": "Big/72b"},
        {"id": "3", "response": "three"},
    )
    out = tmp_path / "saved"
    said = import_(questions, out, file)
    assert (
        f"{out / '72b.parquet'}: 4 responses of Big/72b to 3 of 4 questions, 1 to 2 to each" in said
    )
    assert "1 questions without a response: 2" in said
    assert "1 rows with an id that is no question's: 9" in said
    assert "1 rows without a response: r.jsonl line 5: it has no response" in said
    assert "1 responses with reasoning, which is left out" in said
    manifest = read_manifest(out / "72b.parquet")
    assert manifest["weights"] == "Big/72b"
    assert [each["name"] for each in manifest["imported"]] == ["r.jsonl"]

    # No address, no weights: the run takes what there is, and asks nobody for the rest.
    settings = [f"collection.folder={out}", f"data.train={questions}"]
    run = Run(tmp_path / "run", load_recipe("72b", "qwen2.5-vl-3b", None, settings))
    (one,) = teacher_collections(run)
    notes = Notes()
    asked = read_questions(questions)
    collect_all(run, [one], asked, notes)
    assert notes.said[0] == (
        "72b: 4 imported responses of Big/72b to 3 of 4 questions; no others are collected"
    )
    index = one.index(asked)
    texts = [
        [text for some in read_responses(one.file, rows) for text in some.to_pylist()]
        for rows in index.rows_by_question(16)
    ]
    assert texts == [["zero"], ["one", "uno"], [], ["three"]]


def test_parquet_with_lists_and_other_columns(questions, tmp_path):
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    for part, ids in enumerate(([0.0, 1.0], [2.0, None])):
        table = {"qid": ids, "outputs": [["a", "b"]] * 2, "generator": ["m"] * 2}
        pq.write_table(pa.table(table), folder / f"train-{part}.parquet")
    columns = ("--columns", "id=qid,response=outputs,model=generator")
    said = import_(questions, tmp_path / "saved", tmp_path / "hub", more=columns)
    assert "6 responses of m to 3 of 4 questions, 2 to each" in said
    assert "1 rows without a response: train-1.parquet row 2: its 'id' is null" in said
    with pytest.raises(UserError, match="exists; delete it"):
        import_(questions, tmp_path / "saved", tmp_path / "hub", more=columns)


def test_lists_keep_their_finish_reasons_and_lose_only_what_is_empty(questions, tmp_path):
    rows = [
        {"id": 0, "model": "m", "response": ["a", "b"], "finish_reason": ["stop", "length"]},
        {"id": 1, "model": "m", "response": ["c", "", None, "d"], "finish_reason": "length"},
        {"id": 2, "model": "m", "response": ["e", "f"], "finish_reason": ["stop"]},
    ]
    said = import_(questions, tmp_path / "saved", jsonl(tmp_path / "r.jsonl", *rows))
    assert "4 responses of m to 2 of 4 questions" in said
    assert "2 responses without a text, in lists with others" in said
    assert "r.jsonl line 3: it has 2 responses and 1 finish reasons" in said
    saved = pq.read_table(tmp_path / "saved" / "72b.parquet").to_pylist()
    assert [(row["response"], row["overlong"]) for row in saved] == [
        ("a", False),
        ("b", True),
        ("c", True),
        ("d", True),
    ]


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([{"id": "0", "response": "x"}], (), "names no model.*--model NAME"),
        (
            [{"id": str(i), "response": "x", "model": f"m{i}"} for i in range(2)],
            (),
            "several models.*m0, m1",
        ),
        (
            [{"id": "0", "text": "x", "model": "m"}],
            (),
            "no column for response.*columns are id, text",
        ),
        (
            [{"id": "x0", "response": "x", "model": "m"}],
            (),
            "none of 1 rows .* such as 'x0'; name their column",
        ),
        ([{"id": "0", "response": "x", "model": "m"}], ("--model", "n"), "of other models"),
        ([{"id": "0", "response": "x"}], ("--columns", "text=x"), "text=… is not known"),
    ],
)
def test_what_cannot_be_imported_says_what_would_help(questions, tmp_path, rows, more, words):
    out = tmp_path / "saved"
    with pytest.raises(UserError, match=words):
        import_(questions, out, jsonl(tmp_path / "r.jsonl", *rows), more=more)
    assert not list(out.glob("*.parquet"))


def test_a_model_may_be_chosen_or_named(questions, tmp_path):
    mixed = [{"id": str(i % 4), "response": "x", "model": f"m{i % 2}"} for i in range(8)]
    said = import_(
        questions, tmp_path / "a", jsonl(tmp_path / "r.jsonl", *mixed), more=("--model", "m1")
    )
    assert "4 responses of m1 to 2 of 4" in said
    assert "4 rows of other models" in said
    bare = jsonl(tmp_path / "s.jsonl", {"id": "0", "response": "x"})
    assert "1 responses of n to 1" in import_(
        questions, tmp_path / "b", bare, more=("--model", "n")
    )
