"""The preflight: judge, paths."""

import json

import pytest
from fake_judge import fake_judge, says
from layouts import write_layout

from rilbench.config import load_recipe
from rilbench.data.manifest import digest_of, manifest_of
from rilbench.data.question_files import read_questions, write_questions
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.train.pipeline.preflight import (
    check_judge,
    probe_judge,
    read_inputs,
)
from rilbench.train.pipeline.run_folder import Run


def recipe(url, *more, model="judge"):
    settings = [f"judge.url={url}", f"judge.model={model}", *more]
    return load_recipe("both", "nano", None, settings)


def test_a_judge_by_name_needs_its_address():
    with pytest.raises(UserError, match=r"judge\.url"):
        check_judge(recipe("", model="Qwen/Qwen2.5-32B-Instruct"))


def test_a_judge_that_answers_is_asked_for_one_verdict():
    with fake_judge(lambda _: says("Right. <answer>1</answer>")) as judge:
        probe_judge(recipe(judge.url))
        assert len(judge.seen) == 1
        probe_judge(recipe(judge.url, "method=sft", "sft.steps=1"))
        assert len(judge.seen) == 1, "SFT needs none"
    probe_judge(load_recipe("both", "nano"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: says("I would rather not."), "I would rather not"),
        (lambda _: (404, json.dumps({"error": "no such model"}).encode()), "HTTP 404.*no such"),
    ],
)
def test_a_judge_without_a_verdict_is_refused(answer, words):
    with fake_judge(answer) as judge, pytest.raises(UserError, match=words) as told:
        probe_judge(recipe(judge.url))
    assert "judge.url" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_judge_that_is_down_is_refused():
    for model in ("judge", "rule"):
        with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1"):
            probe_judge(recipe("http://127.0.0.1:9/v1", model=model))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data.train=trian.jsonl", r"there is .*train\.jsonl\); .* --set data\.train=PATH"),
        ("data.dev=nowhere.parquet", r"nowhere\.parquet does not exist; .* --set data\.dev=PATH"),
        ("data.train=.", "is a folder; give the Parquet or JSONL file"),
        ("data.train=list.json", r"is JSON.* an object a line into list\.jsonl"),
    ],
)
def test_a_wrong_path_of_data_is_told_as_such(tmp_path, monkeypatch, setting, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").touch()
    (tmp_path / "list.json").write_text("[]")
    run = Run(tmp_path / "r", load_recipe("both", "nano", "dr-grpo", [setting]))
    with pytest.raises(UserError, match=words):
        read_inputs(run)


def test_experts_are_refused_on_a_cpu(tmp_path):
    student = write_layout("qwen3_vl_moe", tmp_path / "student")
    run = Run(tmp_path / "r", load_recipe("both", "nano", None, [f"student.model={student}"]))
    with pytest.raises(UserError, match=r"cannot be sampled on a CPU.*; train it on GPUs"):
        read_inputs(run)


def test_a_training_set_that_its_manifest_is_not_of_is_refused(tmp_path):
    questions = read_questions(locate("nano:dev.parquet"))[:4]
    file = tmp_path / "set.parquet"
    write_questions(file, questions)
    manifest = {"questions_sha256": digest_of(questions), "sources": {}}
    manifest_of(file).write_text(json.dumps({**manifest, "recipe": {"sources": {}}}))
    run = Run(tmp_path / "run", load_recipe("both", "nano", None, [f"data.dev={file}"]))
    assert len(read_inputs(run).dev) == 4
    write_questions(file, questions[:3])
    with pytest.raises(UserError, match="its questions were changed after it was built"):
        read_inputs(run)


def test_a_source_that_no_teacher_answers_is_refused(tmp_path):
    settings = ["teachers.mix=routed", "teachers.routes={AI2D: 72b, BLINK: 78b}"]
    run = Run(tmp_path, load_recipe("both", "nano", None, settings))
    with pytest.raises(
        UserError, match=r"source 'ChartQA' \(\d+\), .*teachers\.routes\.\*=TEACHER"
    ):
        read_inputs(run)
    settings[1] = "teachers.routes={AI2D: 72b, '*': 78b}"
    read_inputs(Run(tmp_path, load_recipe("both", "nano", None, settings)))


def test_a_teacher_that_no_source_names_is_refused(tmp_path):
    """Its file would never be written, and would be missing days later."""
    settings = ["teachers.mix=routed", "teachers.routes={chartqa: 78b, '*': 72b}"]
    run = Run(tmp_path, load_recipe("both", "nano", None, settings))
    with pytest.raises(UserError, match=r"no question to 78b; the sources are 'AI2D', .*routes"):
        read_inputs(run)
