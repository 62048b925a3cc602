"""Files as earlier releases of the kits wrote them, and as a spreadsheet saved them again."""

import csv
from pathlib import Path

import pytest
from small_results import CACHED, write_blink, write_realworldqa

from rilbench.errors import UserError
from rilbench.evaluate.suite import find_suite
from rilbench.importers.folder import files_below, read_folder
from rilbench.importers.read_tables import number, read_table
from rilbench.importers.to_ledger import plain, read_labels, to_evaluation
from rilbench.importers.types import FolderResults, ModelResult

PAPER = find_suite("paper")
FIRST, TOO_OLD = ("results.json", "ai2d.json"), "is of lmms-eval 0.1 or 0.2"


def read(folder: Path) -> FolderResults:
    return read_folder(files_below(folder), PAPER)


def test_realworldqa_with_its_old_filter_is_another_metric(tmp_path: Path) -> None:
    write_realworldqa(tmp_path / "old", "exact_match,flexible-extract")
    write_realworldqa(tmp_path / "new", "exact_match,none")
    found = read(tmp_path)
    assert found.skipped == []
    by_place = {model.folder.name: model for model in found.models}
    scores = {}
    for name, model in by_place.items():
        (scores[name],) = to_evaluation(model, PAPER, read_labels((), "base", "none", [model]))[
            0
        ].scores
    assert {name: score.value for name, score in scores.items()} == {"old": 50.0, "new": 50.0}
    assert scores["old"].metric == "exact_match,flexible-extract"
    assert scores["new"].metric == "exact_match"
    assert scores["old"].comparability != scores["new"].comparability
    assert len(by_place["old"].datasets["realworldqa"].questions) == 4


def test_a_path_in_the_hubs_cache_is_the_repositorys_name(tmp_path: Path) -> None:
    write_realworldqa(tmp_path / "m", "exact_match,none")
    (model,) = read(tmp_path).models
    evaluation, _ = to_evaluation(model, PAPER, read_labels((), "base", "none", [model]))
    assert evaluation.student == "Qwen/Qwen2-VL-2B-Instruct"
    assert plain(CACHED.replace("/", "__")) == "Qwen/Qwen2-VL-2B-Instruct"
    assert plain("/data/models--of-mine/x") == "/data/models--of-mine/x"


@pytest.mark.parametrize("split", ["none", "dev"])
def test_blink_of_kits_that_did_not_name_its_split(tmp_path: Path, split: str) -> None:
    write_blink(tmp_path / "Qwen", split)
    found = read(tmp_path)
    if split != "none":
        assert "has no single Overall" in found.skipped[0].why
        return
    (model,) = found.models
    evaluation, _ = to_evaluation(model, PAPER, read_labels((), "base", "none", [model]))
    (score,) = evaluation.scores
    assert (score.value, score.questions) == (75.0, 4)
    assert [s.category for s in evaluation.samples] == ["Jigsaw", "Counting"] * 2


def test_the_first_versions_of_lmms_eval_are_too_old(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"results": {"ai2d": {}}, "versions": {}}')
    (tmp_path / "ai2d.json").write_text('{"args": {}, "model_configs": {}, "logs": []}')
    found = read(tmp_path)
    assert found.models == []
    assert {s.file.name: s.why.partition(",")[0] for s in found.skipped} == dict.fromkeys(
        FIRST, TOO_OLD
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_a_spreadsheet_saved(tmp_path: Path, encoding: str, separator: str) -> None:
    rows = [["index", "prediction", "hit"], ["1", "a, b; c\td\nü", "0,5"], ["2", "", "1"]]
    with (tmp_path / "t.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    found = read_table(tmp_path / "t.csv")
    assert [row["prediction"] for row in found] == ["a, b; c\td\nü", None]
    assert [number(row["hit"]) for row in found] == [0.5, 1.0]


def labels(*students: str, names: tuple[str, ...] = ("org/a", "b=c")) -> list[str]:
    models = [ModelResult("vlmevalkit", name, Path(), None, {}) for name in names]
    found = read_labels(students, "base", "none", models)
    return [found.of(name) for name in names]


def test_each_of_several_models_gets_its_label() -> None:
    assert labels() == ["org/a", "b=c"]
    assert labels("org/a=Qwen", "b=c=Intern") == ["Qwen", "Intern"]
    assert labels("b=c=Intern") == ["org/a", "Intern"]
    assert labels("Qwen", names=("a", "a")) == ["Qwen", "Qwen"]
    assert labels("lr=1", names=("a",)) == ["lr=1"]


@pytest.mark.parametrize(
    ("students", "why"),
    [
        (("Qwen",), r"there is b=c, org/a; give --student MODEL=NAME for each"),
        (("a=Qwen",), r"no model is called 'a'; there is b=c, org/a"),
        (("org/a=Qwen", "Intern"), r"'Intern' names one model"),
        (("org/a=",), r"empty or has control characters"),
    ],
)
def test_labels_that_fit_no_model_are_refused(students: tuple[str, ...], why: str) -> None:
    with pytest.raises(UserError, match=why):
        labels(*students)
