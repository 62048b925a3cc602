"""One odd file costs its data set, and never the others of a folder."""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import run
from hypothesis import given
from hypothesis import strategies as st
from small_results import write_blink, write_realworldqa

from rilbench.evaluate.suite import find_suite
from rilbench.importers.folder import files_below, read_folder
from rilbench.importers.to_ledger import ImportLabels, record
from rilbench.importers.types import FolderResults
from rilbench.ledger import Evaluation, Ledger

PAPER = find_suite("paper")
HUGE = 10**400
TASK, METRIC = "realworldqa", "exact_match"


def imported(folder: Path) -> tuple[FolderResults, list[Evaluation]]:
    """What a folder has, and what the ledger has of it."""
    found = read_folder(files_below(folder), PAPER)
    with Ledger(folder / "ledger.db") as ledger:
        record(found.models, PAPER, ImportLabels(), ledger)
        return found, ledger.evaluations()


def samples(folder: Path) -> list[Any]:
    with Ledger.open_read(folder / "ledger.db") as ledger:
        return [s for e in ledger.evaluations() for s in ledger.samples(e.id or 0)]


def lmmseval(folder: Path, edit: Callable[[Any, Any], None]) -> None:
    """Results and lines of lmms-eval, edited."""
    write_realworldqa(folder, model="odd")
    (results,), (lines,) = folder.glob("*_results.json"), folder.glob("*_samples_*.jsonl")
    values = json.loads(results.read_text())
    questions = [json.loads(line) for line in lines.read_text().splitlines()]
    edit(values, questions)
    results.write_text(json.dumps(values))
    lines.write_text("\n".join(map(json.dumps, questions)))


def vlmevalkit(folder: Path, edit: Callable[[Any, Any], None]) -> None:
    """The score as JSON and the tables of VLMEvalKit, edited."""
    write_blink(folder)
    (folder / "Qwen_BLINK_acc.csv").unlink()
    total = [{"split": "val", "Overall": 0.75}]
    files = [folder / "Qwen_BLINK.json", folder / "Qwen_BLINK_openai_result.json"]
    tables = [json.loads(file.read_text()) for file in files]
    for row in [*tables[0], *tables[1]]:
        row["split"] = "val"
    edit(total, tables)
    (folder / "Qwen_BLINK_acc.json").write_text(json.dumps(total))
    for file, table in zip(files, tables, strict=True):
        file.write_text(json.dumps(table))


def without_questions(values: Any, questions: Any, **more: Any) -> None:
    """A total that has to take its number of questions from elsewhere."""
    questions.clear()
    values.update(more)


def in_rows(tables: Any, **more: Any) -> None:
    for table in tables:
        table[0].update(more)


ODD: dict[str, tuple[Callable[..., None], Callable[[Any, Any], None], str]] = {
    "null configs": (lmmseval, lambda v, q: v.update(configs={TASK: None}), "configs has 'None'"),
    "no effective": (
        lmmseval,
        lambda v, q: without_questions(v, q, **{"n-samples": {TASK: {"original": 4}}}),
        "n-samples has 'None' where a count",
    ),
    "null count": (
        lmmseval,
        lambda v, q: without_questions(v, q, **{"n-samples": {TASK: None}}),
        "n-samples has 'None' where a count",
    ),
    "negative count": (
        lmmseval,
        lambda v, q: without_questions(v, q, **{"n-samples": {TASK: {"effective": -4}}}),
        "n-samples has '-4' where a count",
    ),
    "huge count": (
        lmmseval,
        lambda v, q: without_questions(v, q, **{"n-samples": {TASK: {"effective": HUGE}}}),
        "n-samples has '1000",
    ),
    "huge total": (
        lmmseval,
        lambda v, q: v["results"].update({TASK: {f"{METRIC},none": HUGE}}),
        "out of range",
    ),
    "huge score": (vlmevalkit, lambda t, _: t[0].update(Overall=HUGE), "where a number should be"),
    "nested score": (vlmevalkit, lambda t, _: t[0].update(Overall=[1]), "where a number should be"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_data_set_is_skipped_and_the_others_are_imported(tmp_path: Path, name: str) -> None:
    write, edit, why = ODD[name]
    write_realworldqa(tmp_path / "good", model="good")
    write(tmp_path / "odd", edit)
    found, evaluations = imported(tmp_path)
    assert [evaluation.student for evaluation in evaluations] == ["good"]
    odd = [s.why for s in found.skipped if s.file.parent.name == "odd"]
    assert any(why in said for said in odd), odd


ODD_QUESTIONS: dict[str, tuple[Callable[..., None], Callable[[Any, Any], None]]] = {
    "huge verdict": (lmmseval, lambda v, q: q[0].update({METRIC: HUGE})),
    "verdict that is none": (lmmseval, lambda v, q: q[0].update({METRIC: float("nan")})),
    "huge hit": (vlmevalkit, lambda t, tables: in_rows(tables, hit=HUGE)),
    "long index": (vlmevalkit, lambda t, tables: in_rows(tables, index="9" * 5000)),
    "null index": (vlmevalkit, lambda t, tables: in_rows(tables, index=None)),
}


@pytest.mark.parametrize("name", ODD_QUESTIONS)
def test_odd_questions_leave_the_total(tmp_path: Path, name: str) -> None:
    write, edit = ODD_QUESTIONS[name]
    write(tmp_path / "odd", edit)
    _, (evaluation,) = imported(tmp_path)
    assert [score.value for score in evaluation.scores] == [50.0 if write is lmmseval else 75.0]
    assert samples(tmp_path) == []


@pytest.mark.parametrize("write", [lmmseval, vlmevalkit])
def test_half_a_surrogate_pair_is_recorded_as_eval_records_it(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    half = "\ud83d"

    def edit(_: Any, rows: Any) -> None:
        if write is lmmseval:
            rows[0].update(resps=[[f"A{half}"]], target=f"A{half}", input=half)
        else:
            in_rows(rows, prediction=f"A{half}", answer=f"A{half}", category=half, question=half)

    write(tmp_path / "odd", edit)
    _, (evaluation,) = imported(tmp_path)
    first, *_ = samples(tmp_path)
    assert (first.response, first.gold) == ("A?", "A?")
    assert len(evaluation.scores) == 1


def test_folders_whose_names_are_no_utf_8(tmp_path: Path) -> None:
    for name in ("m\udcff", "m\udcfe"):
        write_realworldqa(tmp_path / name, model="")
        (results,) = (tmp_path / name).glob("*_results.json")
        results.write_text(f"{results.read_text()}{' ' * ord(name[-1])}")  # files of their own
    vlmevalkit(tmp_path / "judge", lambda *_: None)
    for file in (tmp_path / "judge").glob("*_BLINK_*"):
        file.rename(file.with_name(file.name.replace("openai", "\udcff")))
    _, evaluations = imported(tmp_path)
    places = [evaluation.path for evaluation in evaluations if evaluation.kit == "lmms-eval"]
    assert places == [rf"{tmp_path}/m\xff", rf"{tmp_path}/m\xfe"]
    assert len(evaluations) == 3


@pytest.mark.parametrize("write", [lmmseval, vlmevalkit])
def test_json_may_begin_with_a_byte_order_mark(tmp_path: Path, write: Callable[..., None]) -> None:
    write(tmp_path / "bom", lambda *_: None)
    for file in (tmp_path / "bom").iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    found, (evaluation,) = imported(tmp_path)
    assert found.skipped == []
    assert len(samples(tmp_path)) == evaluation.scores[0].questions == 4


def test_a_run_result_that_no_ledger_takes_is_skipped(tmp_path: Path) -> None:
    place = Path(__file__).parents[2] / "results" / "nano" / "runs" / "headline" / "paper"
    text = (place / "untrained-0.json").read_text()
    (tmp_path / "good.json").write_text(text)
    (tmp_path / "half.json").write_text(text.replace('"name": "', '"name": "\\ud83d', 1))
    values = json.loads(text)
    benchmark = next(iter(values["scores"]))
    values["scores"][benchmark] = HUGE
    (tmp_path / "huge.json").write_text(json.dumps(values))
    done = run("import", ".", "--db", "l.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {line.split(":")[0] for line in done.stderr.splitlines()} == {
        "skipped half.json",
        "skipped huge.json",
    }
    assert "1 evaluations are new" in done.stdout


# ---- any value anywhere

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([HUGE, -1, 10**20, 1e308, "", "\ud83d", "A", "9" * 5000, "٣", "val", "none"]),
    st.sampled_from([[], {}, [[]], [None], {"score": None}, {"effective": HUGE}, "[1e999]"]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value of a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    paths = [path] if path else []
    for key, item in inner:
        paths += places(item, (*path, key)) if isinstance(item, list | dict) else [(*path, key)]
    return paths


def mutate(documents: list[Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(documents)))
    target = documents
    for key in path[:-1]:
        target = target[key]
    if data.draw(st.booleans()) and len(path) > 1:
        del target[path[-1]]
    else:
        target[path[-1]] = copy.deepcopy(data.draw(VALUES))


@given(data=st.data(), write=st.sampled_from([lmmseval, vlmevalkit]))
def test_any_value_anywhere_costs_its_data_set_at_most(
    data: st.DataObject, write: Callable[..., None]
) -> None:
    def edit(first: Any, second: Any) -> None:
        if write is lmmseval:
            more = {"generation_kwargs": {"until": ["x"]}}
            first |= {"n-samples": {TASK: {"effective": 4}}, "configs": {TASK: more}}
            first |= {"config": {"gen_kwargs": ""}, "group_subtasks": {"blink": [TASK]}}
        documents = [first, second]
        for _ in range(data.draw(st.integers(1, 3))):
            mutate(documents, data)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_realworldqa(folder / "good", model="good")
        try:
            write(folder / "odd", edit)
        except (TypeError, ValueError, AttributeError, KeyError):
            return  # the files could not even be written
        _, evaluations = imported(folder)
        assert "good" in {evaluation.student for evaluation in evaluations}
