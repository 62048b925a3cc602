"""What a name on the command line stands for."""

import dataclasses

import pytest
from report_place import Place, evaluation, outcomes, run

from rilbench.errors import UserError
from rilbench.ledger import Ledger
from rilbench.report.selection import Subject, find_subjects


def find(place: Place, *names: str, teachers: tuple[str, ...] = ()) -> list[Subject]:
    with Ledger.open_read(place.db) as ledger:
        return find_subjects(ledger, names, teachers)


def numbers(subject: Subject) -> tuple[list[int | None], ...]:
    sides = (subject.before, subject.reported, subject.teachers)
    return tuple([each.id for each in side] for side in sides)


def test_a_run_by_its_name_or_folder_with_its_start_and_its_teachers(place: Place) -> None:
    for name in ("first", str(place.run), f"{place.run}/"):
        (found,) = find(place, name)
        assert numbers(found) == ([1], [2], [3, 4])
        assert found.name == "first"
        assert found.folder == place.run


def test_an_evaluation_or_a_model_comes_with_its_run(place: Place) -> None:
    for name in ("2", "after1", f"{place.run}/checkpoint"):
        (found,) = find(place, name)
        assert numbers(found) == ([1], [2], [3, 4])
        assert found.run is not None


def test_a_model_that_was_not_trained_stands_alone_or_beside_those_that_are_named(
    place: Place,
) -> None:
    assert numbers(find(place, "5")[0]) == ([], [5], [])
    (found,) = find(place, "5", teachers=("3",))
    assert numbers(found) == ([], [5], [3])
    assert found.run is None
    assert found.folder is None


def test_the_newest_of_each_kit_is_taken(place: Place) -> None:
    old = evaluation(outcomes({}), fingerprint="after1", run="first", method="ril", teacher="both")
    place.add(dataclasses.replace(old, start_fingerprint="start1", path="/new"))
    place.add(evaluation(outcomes({})))
    assert numbers(find(place, "first")[0]) == ([7], [6], [3, 4])
    assert numbers(find(place, "2")[0]) == ([7], [2], [3, 4])


def test_another_recipe_of_the_same_name_is_another_run(place: Place) -> None:
    trained = {"run": "first", "method": "ril", "teacher": "both", "fingerprint": "else"}
    place.add(evaluation(outcomes({}), recipe_fingerprint="r2", **trained))
    assert numbers(find(place, "first")[0])[1] == [2]


def test_two_runs_of_one_name_have_to_be_told_apart(place: Place) -> None:
    with Ledger(place.db) as ledger:
        ledger.record_run(run(place.folder / "more" / "first"))
    with pytest.raises(UserError, match=r"several runs called 'first': .*; give a folder"):
        find(place, "first")
    assert numbers(find(place, str(place.run))[0])[1] == [2]


def test_a_name_twice_is_one(place: Place) -> None:
    assert len(find(place, "first", str(place.run), "2", "1")) == 2


@pytest.mark.parametrize(
    "name",
    ["nothing", "999", "../..", "a'b\"c", "a/b", "\x1b[31m", "a\0b", "<script>", "", "a" * 5000],
)
def test_a_name_that_stands_for_nothing_is_one_line(place: Place, name: str) -> None:
    with pytest.raises(UserError, match="has no evaluation") as found:
        find(place, name)
    assert "\n" not in str(found.value)
    assert "\x1b" not in str(found.value)
    assert "its runs are: first" in str(found.value)


@pytest.mark.parametrize("yaml", ["", "[]", "a: [", "teachers: 3", "teachers: {models: 3}"])
def test_a_recipe_that_cannot_be_read_names_no_teacher(place: Place, yaml: str) -> None:
    with Ledger(place.db) as ledger:
        ledger.record_run(run(place.run, recipe_yaml=yaml))
    assert numbers(find(place, "first")[0]) == ([1], [2], [])
