"""The synthetic questions as the real kit asks and scores them."""

from pathlib import Path

import pytest

from rilbench.data.question_files import PLACEHOLDER
from rilbench.data.question_files import Question as TrainingQuestion
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.base import read_scores, score_job
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.prompts import PromptSet
from rilbench.evaluate.suite import find_suite
from rilbench.judge.server import RULE_JUDGE, serve_judge
from rilbench.nano.data import BENCHMARK_FILES, benchmark_questions, write_benchmarks

QUESTIONS = 12
KIT = find_kit("vlmevalkit")


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """The kit, with the synthetic files already read."""
    folder = tmp_path_factory.mktemp("kit")
    write_benchmarks(folder / "data", "dev", QUESTIONS)
    datasets = find_suite("nano").datasets
    assert {d.name for d in datasets} == set(BENCHMARK_FILES)
    python = ensure_environment(KIT.name)
    with KIT.start(python, folder / "log", lambda: ("", "")) as process:
        prompts = PromptSet(datasets, folder / "data", folder / "prompts", "env", None)
        prompts.submit(process)
        prompts.finish(process)
        yield process, prompts


def as_trained(picture, question):
    """The prompt as a training run shows it to the student."""
    images = picture.images
    return TrainingQuestion("q", images, question.prompt, question.accepted, "").marked


def as_asked(question):
    return "".join(p["text"] if p["type"] == "text" else PLACEHOLDER for p in question.parts)


@pytest.mark.parametrize("name", BENCHMARK_FILES)
def test_training_prompts_are_the_kits_word_for_word(kit, name):
    _, prompts = kit
    asked = {q.question_id: as_asked(q) for q in prompts.questions if q.dataset == name}
    assert len(asked) == QUESTIONS * (2 if BENCHMARK_FILES[name].circular else 1)
    for index, (picture, question) in enumerate(benchmark_questions(name, "dev", QUESTIONS)):
        assert asked[str(index)] == as_trained(picture, question)


def answers(prompts, form):
    """Every question answered by its gold answer in a form: ``worked`` or ``bare``."""
    out = {}
    for name, file in BENCHMARK_FILES.items():
        gold = benchmark_questions(name, "dev", QUESTIONS)
        texts = {}
        for question in prompts.questions:
            if question.dataset != name:
                continue
            _, own = gold[int(question.group)]
            text = getattr(own, form)
            if file.circular and question.truth != own.truth:  # the other rotation
                text = text.replace(f"({own.truth})", f"({question.truth})")
                text = text.replace(f"Answer: {own.truth}", f"Answer: {question.truth}")
            texts[question.question_id] = text
        out[name] = texts
    return out


def scores(kit, form, folder):
    process, prompts = kit
    folder.mkdir()
    with serve_judge() as url:
        texts = answers(prompts, form)
        datasets = find_suite("nano").datasets
        process.run("score", score_job(prompts.job(), folder, texts, (url, RULE_JUDGE, False)))
    _, found = read_scores(KIT, folder / "result.json", datasets)
    return {name: score.value for name, score in found.items()}


def test_worked_answers_get_full_marks_from_the_kit(kit, tmp_path: Path):
    assert scores(kit, "worked", tmp_path / "worked") == dict.fromkeys(BENCHMARK_FILES, 100.0)


def test_right_bare_answers_get_full_marks_but_where_the_default_leaves_something_out(
    kit, tmp_path: Path
):
    found = scores(kit, "bare", tmp_path / "bare")
    lacking = {name for name, value in found.items() if value < 100}
    assert lacking == {"ChartQA_TEST", "MMVet", "MMVetV2"}
