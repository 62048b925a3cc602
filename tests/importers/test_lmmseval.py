"""Folders of lmms-eval, most of them written by the kit itself."""

import json
import shutil
from collections import Counter

import pytest
from kit_folders import run_lmmseval

from rilbench.evaluate.kits import base as adapter
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.prompts import PromptSet
from rilbench.evaluate.suite import LMMSEVAL, find_suite
from rilbench.importers.folder import files_below, read_folder
from rilbench.judge.proxy import JudgeProxy

NANO = find_suite("nano")


def read(folder):
    return read_folder(files_below(folder), NANO)


def only(folder):
    (model,) = read(folder).models
    return model


def why(found):
    return {skipped.file.name: skipped.why for skipped in found.skipped}


@pytest.fixture
def copy(lmmseval, tmp_path):
    return shutil.copytree(lmmseval, tmp_path / "copy")


def results_of(folder):
    (file,) = folder.rglob("*_results.json")
    return file


def change(file, edit):
    values = json.loads(file.read_text())
    edit(values)
    file.write_text(json.dumps(values))


def test_scores_are_the_kits_own(lmmseval, lmms_answers):
    found = read(lmmseval)
    assert found.skipped == []
    (model,) = found.models
    assert (model.kit, model.model) == ("lmms-eval", "lab/tiny")
    assert set(model.datasets) == set(lmms_answers)
    totals = json.loads(results_of(lmmseval).read_text())["results"]
    expected = {
        "ai2d": 100 * totals["ai2d"]["exact_match,flexible-extract"],
        "chartqa": 100 * totals["chartqa"]["relaxed_overall,none"],
        "mmstar": 100 * totals["mmstar"]["average,none"],
        "mmvet": totals["mmvet"]["gpt_eval_score,none"],
    }
    for name, result in model.datasets.items():
        assert 0 < result.value <= 100
        assert result.kit_version == "unknown"
        assert {q.question_id: q.response for q in result.questions} == lmms_answers[name]
        if name != "mmvet":
            assert result.value == pytest.approx(expected[name], abs=1e-9)
            assert result.notes == ()
            assert result.judge is None


def test_a_grade_that_nobody_gave_is_left_out(lmmseval, lmms_answers):
    """The judge of the fixture says nothing of use about a hopeless response: the kit counts 0."""
    result = only(lmmseval).datasets["mmvet"]
    given = {q.question_id: q.score for q in result.questions}
    hopeless = [row for row, text in lmms_answers["mmvet"].items() if text == "hopeless"]
    assert hopeless
    assert {given[row] for row in given if row not in hopeless} == {0.5}
    assert all(q.judged for q in result.questions)


def test_questions_say_what_was_asked(lmmseval):
    datasets = only(lmmseval).datasets
    for result in datasets.values():
        assert all(q.stem and q.gold and len(q.prompt_hash) == 16 for q in result.questions)
        assert len(result.asked) == 16
    assert len({result.asked for result in datasets.values()}) == len(datasets)
    assert {q.stratum for q in datasets["mmstar"].questions} > {"largest"}


def test_without_samples_there_is_the_total(copy):
    for file in copy.rglob("*_samples_*.jsonl"):
        file.unlink()
    datasets = only(copy).datasets
    assert {name: (r.questions, r.count, r.judge) for name, r in datasets.items()} == {
        **dict.fromkeys(("ai2d", "chartqa", "mmstar"), ((), 14, None)),
        "mmvet": ((), 14, "unknown"),
    }
    assert datasets["ai2d"].asked == "unknown"
    assert datasets["ai2d"].notes == ("ai2d: the total alone, as no file has its questions",)


def test_a_sample_file_cut_short_costs_its_questions(copy):
    (file,) = copy.rglob("*_samples_ai2d.jsonl")
    file.write_bytes(file.read_bytes()[:-20])
    found = read(copy)
    (model,) = found.models
    assert why(found)[file.name].startswith("is no JSON lines, or cut short")
    assert model.datasets["ai2d"].questions == ()
    assert len(model.datasets["mmstar"].questions) == 14


def test_questions_that_do_not_come_to_the_total(copy):
    (file,) = copy.rglob("*_samples_ai2d.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    result = only(copy).datasets["ai2d"]
    assert result.questions == ()
    assert "is not the mean of its questions" in result.notes[0]
    file.write_text("".join([*lines, lines[0]]))
    result = only(copy).datasets["ai2d"]
    assert "one of them twice" in result.notes[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"results": 1}', '{"results": {}}', "\0"])
def test_a_broken_result_is_named(copy, text):
    file = results_of(copy)
    file.write_text(text)
    found = read(copy)
    assert found.models == []
    reasons = ("is no JSON", "has no results of lmms-eval", "has no task of the suite nano")
    assert why(found)[file.name].startswith(reasons)


@pytest.mark.parametrize(
    ("total", "reason"),
    [("N/A", "no number"), (None, "no number"), (True, "no number"), (1.5, "out of range")],
)
def test_a_total_that_is_none(copy, total, reason):
    file = results_of(copy)
    key = "exact_match,flexible-extract"
    change(file, lambda values: values["results"]["ai2d"].update({key: total}))
    found = read(copy)
    assert "ai2d" not in found.models[0].datasets
    assert reason in why(found)[file.name]


def test_the_newest_run_of_a_task_counts(copy):
    old = results_of(copy)
    new = old.with_name("29990101_000000_results.json")
    new.write_text(old.read_text())

    def worse(values):
        values["results"] = {"ai2d": {"exact_match,flexible-extract": 0.25}}
        values["lmms_eval_version"] = "main@1a2b3c4d"

    change(new, worse)
    model = only(copy)
    assert (model.datasets["ai2d"].value, model.datasets["ai2d"].questions) == (25, ())
    assert model.datasets["ai2d"].kit_version == "main@1a2b3c4d"
    assert len(model.datasets["mmstar"].questions) == 14
    assert model.notes == (f"ai2d of {old.name} is older and not imported",)


@pytest.mark.parametrize("name", ["../../etc", "a'b\"c", "x\x1b[0m", None, ""])
def test_any_name_of_a_model(copy, name):
    change(results_of(copy), lambda values: values.update(model_name=name))
    assert only(copy).model == (name or "lab__tiny")


@pytest.mark.slow
def test_every_task_as_rilbench_scores_it(tmp_path, hub, judge):
    """The kit's own folder of all tasks beside rilbench's evaluation of the same answers."""
    suite, kit = NANO.by(LMMSEVAL), find_kit(LMMSEVAL)
    out = tmp_path / "ours"
    out.mkdir()
    file = tmp_path / "replies.jsonl"
    with JudgeProxy(judge.url, "judge", file, "", retries=1, backoff=0.01) as proxy:
        python = ensure_environment(LMMSEVAL)
        with kit.start(python, tmp_path / "log", lambda: (proxy.url, "judge")) as process:
            prompts = PromptSet(suite.datasets, hub, tmp_path / "p", "env", None, LMMSEVAL)
            prompts.submit(process)
            prompts.finish(process)
            ours, theirs = texts(prompts)
            who = (proxy.url, "judge", True)
            process.run("score", adapter.score_job(prompts.job(), out, ours, who))
        folder = run_lmmseval(tmp_path / "theirs", hub, theirs, list(ours), proxy.url)
    _, scores = adapter.read_scores(kit, out / "result.json", suite.datasets)
    datasets = only(folder).datasets
    assert set(datasets) == set(scores)
    for name, result in datasets.items():
        assert result.value == pytest.approx(scores[name].value, abs=1e-9), name
        if not result.questions:
            assert result.notes
            continue
        assert {q.question_id: q.score for q in result.questions} == {
            o.question_id: o.value for o in scores[name].outcomes
        }, name
    without = {name for name, result in datasets.items() if not result.questions}
    assert without <= {"mmbench_en_dev", "mmbench_cn_dev", "mmmu_val"}
    assert {result.count for result in datasets.values()} == {14}


def texts(prompts):
    """Answers by question for rilbench and by the kit's own rows; none that the kit would guess."""
    ours, theirs, counts = {}, {}, Counter()
    for number, question in enumerate(prompts.questions):
        truth = question.truth.strip("()").replace("<AND>", ", ")
        text = [truth, "B", f"Answer: {truth}"][number % 3]
        ours.setdefault(question.dataset, {})[question.question_id] = text
        part, _, row = question.question_id.rpartition("/")
        task = f"{question.dataset}_{part}" if part else question.dataset
        if question.dataset.startswith("mmbench"):  # Rows by their place; ours by their index.
            row = str(counts[task])
        counts[task] += 1
        theirs.setdefault(task, {})[row] = text
    return ours, theirs
