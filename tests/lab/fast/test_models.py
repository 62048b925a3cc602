"""How the models of a regime are made, and their responses collected."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import load_recipe
from rilbench.judge.rules import is_right
from rilbench.lab.fast import models
from rilbench.lab.fast.prompts import Student
from rilbench.lab.regimes import REGIMES, Made
from rilbench.nano.digits import pools
from rilbench.nano.tasks import STAND_INS, make_question
from rilbench.paths import locate


def test_a_rephrased_answer_is_right_and_written_otherwise():
    rng = np.random.default_rng(3)
    for benchmark in STAND_INS:
        for _ in range(20):
            _, question = make_question(benchmark, pools()["pretrain"], rng)
            other = models.styled(question, "rephrased")
            assert is_right(question.accepted, other), (question.worked, other)
            if ". " in question.worked or "。" in question.worked:
                assert other != question.worked
                assert ". " not in other.removesuffix(".")


def test_noise_changes_the_decoders_matrices_alone():
    student = Student(locate("nano:72b"))
    before = {name: p.detach().clone() for name, p in student.model.named_parameters()}
    models._add_noise(student, 0.5, seed=1)
    for name, parameter in student.model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == ("language_model.layers" in name and parameter.ndim == 2), name
        if changed:
            share = (parameter.detach() - before[name]).std() / before[name].std()
            assert share == pytest.approx(0.5, rel=0.1)


def test_a_student_with_fewer_layers_is_a_whole_checkpoint(tmp_path):
    models.make_model(Made("72b", layers=2), tmp_path / "small", "small")
    whole, small = Student(locate("nano:72b")), Student(tmp_path / "small")
    kept = dict(small.model.named_parameters())
    assert small.model.config.text_config.num_hidden_layers == 2
    assert not any("language_model.layers.2" in name for name in kept)
    for name, parameter in whole.model.named_parameters():
        if "language_model.layers.2" not in name:
            assert torch.equal(parameter, kept[name]), name


def test_a_regimes_digest_says_how_it_is_made():
    paper = REGIMES["paper"]
    other = replace(paper, about="other words")
    assert other.digest == paper.digest
    for changed in (
        replace(paper, student=replace(paper.student, noise=0.31)),
        replace(paper, judge={"judge.false_positive_rate": 0.1}),
        replace(paper, teachers={**paper.teachers, "78b": Made("72b")}),
        REGIMES["judge-errs-30"],
    ):
        assert changed.digest != paper.digest


def test_a_blind_benchmark_has_answers_to_other_pictures():
    seeing = list(models._batches(Made("72b", steps=2)))
    blind = list(models._batches(Made("72b", steps=2, blind=tuple(STAND_INS))))
    assert all(len(questions) == len(answers) for questions, answers in [*seeing, *blind])
    for question in [q for questions, _ in blind for q in questions]:
        assert question.question.count("<image>") in (0, question.num_images)
    assert seeing[0][1] != blind[0][1]


@pytest.fixture
def small(monkeypatch):
    """A regime whose models are made in a moment."""
    monkeypatch.setattr(models, "EACH", 1)
    monkeypatch.setattr(models, "BATCH_SIZE", 4)
    regime = REGIMES["paper"]
    return replace(regime, student=replace(regime.student, steps=1))


def test_a_regime_is_made_once_and_its_responses_collected_once(tmp_path, small, monkeypatch):
    said = []
    folder = models.regime_folder(small, tmp_path, said.append)
    assert said == [f"paper: making {name}" for name in ("student", "72b", "78b")]
    assert models.regime_folder(small, tmp_path, said.append) == folder
    assert len(said) == 3
    fingerprint = inspect_checkpoint(folder / "student").fingerprint
    models.make_model(small.student, tmp_path / "again", "paper")
    assert inspect_checkpoint(tmp_path / "again").fingerprint == fingerprint
    recipe = load_recipe("both", "nano", "ril", settings=small.recipe_settings(folder))
    assert recipe.student.model == str(folder / "student")
    assert recipe.teachers.models == {name: str(folder / name) for name in ("72b", "78b")}
    data, cost = models.training_data(small, folder, recipe, said.append)
    assert len(data.questions) == len(STAND_INS)
    assert all(len(data.saved[q.id][name]) == 4 for q in data.questions for name in ("72b", "78b"))
    assert {id_: len(own) for id_, own in data.student_saved.items()} == dict.fromkeys(
        data.saved, 2
    )
    again, _ = models.training_data(small, folder, recipe, said.append)
    assert (again.saved, again.student_saved) == (data.saved, data.student_saved)
    assert len(said) == 6
    assert set(cost) == {"student", "72b", "78b"}
    assert all(each["tokens"] > 0 for each in cost.values())
    # What is sampled or made otherwise is not taken for the same.
    settings = ["collection.teacher_responses=2"]
    fewer = load_recipe("both", "nano", "ril", settings, settings=small.recipe_settings(folder))
    other, _ = models.training_data(small, folder, fewer, said.append)
    assert len(said) == 9
    assert {len(r) for by in other.saved.values() for r in by.values()} == {2}
    changed = replace(small, student=replace(small.student, seed=12))
    assert models.regime_folder(changed, tmp_path, said.append) != folder
