"""A judge before the training: gold answers that it cannot match, a sample, what it is."""

import json
from pathlib import Path

import pytest
from collected import save
from fake_judge import fake_judge, says

from rilbench.config import load_recipe
from rilbench.data.question import Question, StoredQuestion
from rilbench.errors import UserError
from rilbench.judge.server import serve_judge
from rilbench.train.pipeline.collect_stage import teacher_collections
from rilbench.train.pipeline.judge_check import check_on_sample, notes_on_golds
from rilbench.train.pipeline.prepare_data import prepare_data
from rilbench.train.pipeline.run_folder import open_run


def questions(*answers):
    asked = [Question(f"q{i}", (), "What?", answer, "test") for i, answer in enumerate(answers)]
    return [StoredQuestion(question, Path("no.arrow"), 0) for question in asked]


def recipe(model, *more):
    return load_recipe("both", "nano", overrides=[f"judge.model={model}", *more])


def test_golds_that_the_rules_read_word_for_word_are_told_with_the_remedy():
    golds = questions(r"\boxed{3}", "A. West Virginia", "<answer>B</answer>", "42 apples", "7")
    (note,) = notes_on_golds(recipe("rule"), golds)
    assert note.startswith("judge.model=rule reads 4 of 5 reference answers word for word")
    assert r"'\\boxed{3}': '3' is wrong; use judge.model=parser" in note
    assert notes_on_golds(recipe("parser"), golds) == []


def test_golds_that_are_long_need_a_language_model():
    long = "because the man holds an umbrella and the street is wet"
    for judge in ("rule", "parser"):
        (note,) = notes_on_golds(recipe(judge), questions(long, "7"))
        assert note.startswith("1 of 2 reference answers have more than 8 words")
        assert "use a language model (judge.model, judge.url)" in note
    assert notes_on_golds(recipe("judge", "judge.url=http://a/v1"), questions(long)) == []


def test_plain_golds_are_not_remarked_on():
    plain = questions("7", "-3", "45%", "1,200", "Red car", "cat<OR>kitty", "7<AND>8", "(B)", "B")
    assert notes_on_golds(recipe("rule"), plain) == []
    assert notes_on_golds(recipe("rule", "method=imitation"), questions(r"\boxed{3}")) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("pass", "returns None for each of 2 reference answers .*; let it return 1 or 0"),
        ("return {}[question] if '1 + 1' not in question else 1", "raised KeyError.*: fix "),
        ("return 7 if '1 + 1' not in question else 1", "returned 7; a judge returns 1, 0 or None"),
    ],
)
def test_a_function_that_is_no_judge_of_these_questions_is_refused(tmp_path, code, words):
    (tmp_path / "mine.py").write_text(f"def judge(question, gold, response):\n    {code}\n")
    with pytest.raises(UserError, match=words) as told:
        notes_on_golds(recipe(f"{tmp_path}/mine.py:judge"), questions("7", r"\boxed{3}"))
    assert "\n" not in str(told.value)


def test_a_function_that_finds_right_answers_wrong_is_remarked_on(tmp_path):
    (tmp_path / "mine.py").write_text("def judge(question, gold, response):\n    return 0\n")
    judge = recipe(f"{tmp_path}/mine.py:judge")
    (note,) = notes_on_golds(judge, questions("7", r"\boxed{3}"))
    assert "finds 2 of 2 reference answers wrong as responses, such as '7' for '7'" in note
    (tmp_path / "mine.py").write_text("def judge(question, gold, response):\n    return 1.0\n")
    assert notes_on_golds(judge, questions("7")) == []


@pytest.fixture
def run(tmp_path):
    """A run with its data prepared: each teacher's responses are ``TEACHER QUESTION SAMPLE``."""

    def prepared(chosen, golds):
        from rilbench.checkpoint import inspect_checkpoint
        from rilbench.paths import locate

        run = open_run(tmp_path / "r", chosen, resume=False)
        asked = questions(*golds)
        collections = teacher_collections(run)
        for one in collections:
            save(one.plan, asked, one.folder)
        (run.folder / "data").mkdir(exist_ok=True)
        student = inspect_checkpoint(locate("nano:restyled"))
        prepare_data(run, student, collections, asked, [])
        return run

    return prepared


def test_a_judge_by_code_is_compared_with_the_rules_on_saved_responses(run, tmp_path):
    # The parser finds no number in "72b q0 0": it has several.
    (tmp_path / "mine.py").write_text("def judge(question, gold, response):\n    return 1\n")
    chosen = recipe(f"{tmp_path}/mine.py:judge", "schedule.prompts_per_step=2")
    found = run(chosen, ["72b q0 0", "78b q1 0", "other"])
    with serve_judge(chosen.judge.model) as url:
        (note,) = check_on_sample(chosen, found.folder, url, is_first=True)
        assert check_on_sample(chosen, found.folder, url, is_first=False) == []
    assert "mine.py:judge-" in note
    assert "and the rules agree on 2 of 3 responses; the judge alone finds 1 right" in note
    assert "the rules alone 0, such as '72b q2 0' for 'other' (judge: right)" in note
    assert not (found.folder / "judge.jsonl").exists()


def test_a_judge_that_never_decides_stops_the_run_before_the_training(run, tmp_path):
    (tmp_path / "mine.py").write_text("def judge(*texts):\n    pass\n")
    chosen = recipe(f"{tmp_path}/mine.py:judge", "schedule.prompts_per_step=2")
    found = run(chosen, ["a", "b"])
    with (
        serve_judge(chosen.judge.model) as url,
        pytest.raises(UserError, match=r"no verdict on any of 2 responses .*; fix it, or use an"),
    ):
        check_on_sample(chosen, found.folder, url, is_first=True)


def test_verdicts_of_another_model_under_the_same_name_are_put_aside(run):
    with fake_judge(lambda _: says("<answer>1</answer>")) as judge:
        chosen = recipe(
            "judge", f"judge.url={judge.url}", "method=dr-grpo", "schedule.prompts_per_step=2"
        )
        found = run(chosen, [r"\boxed{3}", "7"])
        folder = found.folder
        # Without teachers the reference answers stand in: 3 for \boxed{3}.
        (note,) = check_on_sample(chosen, folder, judge.url, is_first=True)
        assert "agree on 1 of 2 responses" in note
        assert json.loads((folder / "judge.json").read_text())["served"] == "judge-2026-01"
        assert len((folder / "judge.jsonl").read_text().splitlines()) == 2
        asked = len(judge.seen)
        assert check_on_sample(chosen, folder, judge.url, is_first=False) == []
        assert len(judge.seen) == asked + 1, "who it is, and nothing else"

        content = {"model": "judge", "served": "judge-2025-01"}
        (folder / "judge.json").write_text(json.dumps(content))
        (note,) = check_on_sample(chosen, folder, judge.url, is_first=False)
        assert "another model than before (served judge-2025-01 → judge-2026-01)" in note
        assert (folder / "judge-1.jsonl").exists()
        assert not (folder / "judge.jsonl").exists()
