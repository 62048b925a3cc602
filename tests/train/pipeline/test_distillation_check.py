"""A teacher whose tokens are others is refused before anything is spent."""

import pytest

from rilbench.config import load_recipe
from rilbench.data.question_files import read_questions
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.train.pipeline.distillation_check import check_teachers_tokens


def check(student, *settings):
    recipe = load_recipe("72b", "nano", "opd", settings)
    check_teachers_tokens(recipe, locate(student), read_questions(locate("nano:dev.parquet"))[:2])


def test_a_teacher_of_the_same_family_passes():
    check("nano:restyled")


def test_a_teacher_with_another_tokenizer_or_other_picture_tokens_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"72b \(nano:72b\) .*; use a teacher of the student's"):
        check("nano:internvl")


def test_on_vllm_only_qwens_pictures_reach_a_teacher():
    check("nano:restyled", "hardware.rollout_engine=vllm")
    with pytest.raises(UserError, match="Qwen-VL's layouts alone"):
        check("nano:internvl", "hardware.rollout_engine=vllm")


def test_a_teacher_that_is_not_here_is_named():
    with pytest.raises(UserError, match="Big/Teacher"):
        check("nano:restyled", "teachers.models.72b=Big/Teacher")
