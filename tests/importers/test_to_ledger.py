"""Evaluations of what was read, without a kit."""

import dataclasses
import threading

import pytest

from rilbench.errors import UserError
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, find_suite, suite_columns
from rilbench.importers.to_ledger import ImportLabels, plain, record, to_evaluation
from rilbench.importers.types import (
    DatasetResult,
    ImportedQuestion,
    ModelResult,
    UnreadableError,
    settled,
)
from rilbench.ledger import Ledger
from rilbench.table.measured_rows import Settings, measured_rows

PAPER, NANO = find_suite("paper"), find_suite("nano")
WHEN = "2026-01-01T00:00:00+00:00"


def dataset(name, suite=PAPER):
    (found,) = [each for each in suite.datasets if each.name == name]
    return found


def question(number, score, counted=None, **more):
    counted = (score or 0.0) if counted is None else counted
    return ImportedQuestion(str(number), score, counted, "A", "B", **more)


@pytest.fixture
def model(tmp_path):
    """A model with some datasets, {name: scores of its questions}, or a total alone."""

    def make(kit=VLMEVALKIT, name="org/model", /, place="", created=WHEN, **scores):
        home = tmp_path / place / kit
        home.mkdir(parents=True, exist_ok=True)
        datasets = {}
        for own, values in scores.items():
            file = home / f"{own}.csv"
            file.write_text(f"{own} {values}")
            alone = isinstance(values, float)
            asked = () if alone else tuple(question(n, v) for n, v in enumerate(values))
            value = values if alone else 100 * sum(v or 0 for v in values) / len(values)
            found = dataset(own, PAPER.by(kit))
            bare = DatasetResult(found, value, asked, len(asked), None, "unknown", (file,))
            datasets[own] = settled(bare, "as no file has its questions", None)
        return ModelResult(kit, name, home, created, datasets)

    return make


def test_a_score_says_what_it_does_not_know(model):
    evaluation, notes = to_evaluation(model(MMStar=[1.0, 0.0]), PAPER, ImportLabels())
    (score,) = evaluation.scores
    assert (score.kit, score.kit_version, score.judge) == ("ms-vlmeval", "unknown", None)
    assert (score.data_state, score.asked) == ("unverified", "unknown")
    assert (score.value, score.questions, score.sampled, score.partial) == (50, 2, 2, True)
    assert notes == ("MMStar: 2 of the 1500 published questions",)
    assert evaluation.settings["imported"]["files"][0]["file"] == "MMStar.csv"
    assert (evaluation.student, evaluation.method, evaluation.teacher) == (
        *("org/model", "base", "none"),
    )


def test_the_same_questions_are_comparable_and_others_are_not(model):
    first, second, third = (
        to_evaluation(model(VLMEVALKIT, name, MMStar=scores), PAPER, ImportLabels())[0].scores[0]
        for name, scores in (("a", [1.0, 0.0]), ("b", [0.0, 0.0]), ("a", [1.0, 0.0, 1.0]))
    )
    assert first.comparability == second.comparability != third.comparability


def test_a_total_alone_is_like_no_other(model):
    one, two = (
        to_evaluation(model(MMStar=value), PAPER, ImportLabels())[0].scores[0]
        for value in (50.0, 51.0)
    )
    assert one.comparability != two.comparability
    assert (one.value, one.questions, one.answered, one.partial) == (50, 0, 0, False)


def test_a_missing_verdict_is_not_counted(model):
    evaluation, _ = to_evaluation(model(MMStar=[1.0, None, 0.0, 1.0]), PAPER, ImportLabels())
    (score,) = evaluation.scores
    assert score.value == pytest.approx(200 / 3)
    assert score.missing == 1
    assert [each.score for each in evaluation.samples] == [1, None, 0, 1]


def test_a_question_without_an_answer_is_missing_as_in_an_evaluation(model):
    found = model(MMStar=[1.0, 0.0])
    whole = found.datasets["MMStar"]
    lost = [question(n, None, 0.0, no_answer="no response") for n in (2, 3)]
    unread = question(1, 0.0, unread=True)
    asked = (whole.questions[0], unread, *lost)
    bare = dataclasses.replace(whole, value=25.0, questions=asked, count=4)
    result = settled(bare, "as no file has its questions", None)
    evaluation, notes = to_evaluation(
        dataclasses.replace(found, datasets={"MMStar": result}), PAPER, ImportLabels()
    )
    (score,) = evaluation.scores
    assert (score.value, score.questions, score.answered, score.missing) == (50.0, 4, 2, 2)
    assert score.is_incomplete
    reading = evaluation.reading("MMStar")
    assert (reading.no_answer, reading.unread) == ({"no response": 2}, 1)
    assert "MMStar: 2 questions without an answer are left out" in notes


def test_a_column_of_two_datasets_needs_both(model):
    half, notes = to_evaluation(model(MMMU_Pro_V=[1.0]), PAPER, ImportLabels())
    assert half.scores == ()
    assert notes == ("MMMU-Pro lacks MMMU_Pro_10c and is not imported",)
    both, _ = to_evaluation(model(MMMU_Pro_V=[1.0], MMMU_Pro_10c=[0.0, 0.0]), PAPER, ImportLabels())
    assert both.scores[0].value == 50  # the mean of the two, whatever their sizes
    assert {(each.question_id, each.stratum) for each in both.samples} == {
        ("MMMU_Pro_10c/0", "MMMU_Pro_10c"),
        ("MMMU_Pro_10c/1", "MMMU_Pro_10c"),
        ("MMMU_Pro_V/0", "MMMU_Pro_V"),
    }


def test_an_import_is_not_written_twice(model, tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:

        def new(*models, labels=None, **more):
            labels = labels or ImportLabels()
            before = len(ledger.evaluations())
            done = record(models, PAPER, labels, ledger, **more)
            return [each.known for each in done], len(ledger.evaluations()) - before

        first = model(MMStar=[1.0, 0.0])
        assert new(first, write=False) == ([False], 0)
        assert new(first, first) == ([False, True], 1)
        assert new(first) == ([True], 0)
        moved = dataclasses.replace(first, created="2027-01-01T00:00:00+00:00")
        assert new(moved) == ([True], 0)
        assert new(model(MMStar=[1.0, 0.0], BLINK=[1.0])) == ([False], 1)
        assert new(first, labels=ImportLabels("s", "ril", "both")) == ([False], 1)
        assert new(model(LMMSEVAL, mmstar=[1.0])) == ([False], 1)
        assert new(model(MMMU_Pro_V=[1.0])) == ([False], 0)  # no whole column: nothing to write
        rows = measured_rows(ledger.evaluations(), Settings(suite_columns))
    assert [(row.student, row.method) for row in rows].count(("org/model", "base")) == 2
    assert {row.evaluation.kit for row in rows} == {"ms-vlmeval", "lmms-eval"}


def fingerprints(ledger, *models):
    """The fingerprint under which each was recorded, and the notes on models of equal names."""
    done = [each for model in models for each in record([model], PAPER, ImportLabels(), ledger)]
    notes = [note for each in done for note in each.notes if "called" in note]
    return [each.evaluation.fingerprint for each in done], notes


def test_both_kits_of_a_model_have_one_fingerprint(model, tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        models = (
            model(MMStar=[1.0]),
            model(LMMSEVAL, mmstar=[1.0]),
            model(VLMEVALKIT, "b", BLINK=0.5),
        )
        (one, two, other), notes = fingerprints(ledger, *models)
    assert one == two != other
    assert notes == []


def test_two_models_of_one_name_have_rows_of_their_own(model, tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        first = model(place="one", MMStar=[1.0, 0.0])
        second = model(place="two", BLINK=[0.0, 1.0])
        (one, two), notes = fingerprints(ledger, first, second)
        assert one != two
        assert notes == [
            f"evaluation 1 is of another model that is called org/model too, from {first.folder}: "
            "they have rows of their own; --student NAME tells them apart"
        ]
        rows = measured_rows(ledger.evaluations(), Settings(suite_columns))
        assert [(row.value("MMStar"), row.value("BLINK")) for row in rows] == [
            *((50.0, None), (None, 50.0)),
        ]
        assert [e.path for e in ledger.evaluations()] == [str(second.folder), str(first.folder)]
        # Moved, and with one more data set: the files tell that it is the first model.
        grown = model(place="moved", MMStar=[1.0, 0.0], BLINK=[1.0, 1.0])
        (three,), notes = fingerprints(ledger, grown)
        assert three == one
        assert notes == []


def test_files_without_a_date_are_dated_by_the_import(model, tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        (done,) = record([model(created=None, MMStar=[1.0])], PAPER, ImportLabels(), ledger)
        assert "its files do not say when they were made: it is dated by this import" in done.notes
        assert ledger.evaluations()[0].created > WHEN


def test_two_imports_at_once_record_each_model_once(model, tmp_path):
    models = [model(place=str(i), MMStar=[1.0, float(i % 2)]) for i in range(6)]
    Ledger(tmp_path / "l.db").close()

    def work():
        with Ledger(tmp_path / "l.db") as ledger:
            record(models, PAPER, ImportLabels(), ledger)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Ledger.open_read(tmp_path / "l.db") as ledger:
        assert len(ledger.evaluations()) == 2, "six folders with two contents"


def test_an_error_records_nothing(model, tmp_path, monkeypatch):
    with Ledger(tmp_path / "l.db") as ledger:
        write = ledger.record
        monkeypatch.setattr(ledger, "record", lambda e: write(e) if e.student == "a" else 1 / 0)
        models = [model(VLMEVALKIT, name, MMStar=[1.0]) for name in ("a", "b")]
        with pytest.raises(ZeroDivisionError):
            record(models, PAPER, ImportLabels(), ledger)
        assert ledger.evaluations() == []


def test_synthetic_stand_ins_have_no_published_number(model):
    evaluation, notes = to_evaluation(model(MMStar=[1.0, 0.0]), NANO, ImportLabels())
    assert (evaluation.suite, evaluation.scores[0].sampled, notes) == ("nano", None, ())


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[0m", "\0"])
def test_labels_are_plain(name):
    with pytest.raises(UserError, match="control characters; give a plain name"):
        ImportLabels(student=name)


def test_a_models_name_is_one_line():
    assert plain("../a'\"b\x1b[0m\nc") == "../a'\"b [0m c"
    assert plain("\n") == "unnamed"


@pytest.mark.parametrize(
    ("total", "scores", "kept"),
    [
        (50.0, [(1.0, 1.0), (0.0, 0.0)], True),
        (50.0, [(1.0, 1.0), (None, 0.0)], True),
        (50.1, [(1.0, 1.0), (0.0, 0.0)], False),
        (float("nan"), [(1.0, 1.0), (None, float("nan"))], True),
        (50.0, [(1.0, 1.0), (None, float("nan"))], False),
    ],
)
def test_questions_are_kept_if_they_come_to_the_total(total, scores, kept):
    asked = tuple(question(n, *values) for n, values in enumerate(scores))
    bare = DatasetResult(dataset("MMStar"), total, asked, 2, "j", "unknown", ())
    found = settled(bare, "", "alone")
    assert bool(found.questions) is kept
    assert found.judge == ("j" if kept else "alone")
    if any(score is None for score, _ in scores) and kept:
        assert found.value == 100
    elif not kept:
        assert found.value == total


@pytest.mark.parametrize("total", [None, float("nan"), float("inf")])
def test_a_total_alone_must_be_a_number(total):
    bare = DatasetResult(dataset("MMStar"), total, (), 0, None, "unknown", ())
    with pytest.raises(UnreadableError, match="no number"):
        settled(bare, "", None)
