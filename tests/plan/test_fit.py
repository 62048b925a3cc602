"""What cannot fit is refused, in one line, by `rilbench train` too; what helps does help."""

import itertools

import pytest

from rilbench.errors import UserError
from rilbench.plan import check_fit, find_architecture
from rilbench.plan.fit import refusals
from rilbench.recipe import METHODS, known, load_recipe

STUDENTS = [name for name in known("students") if not name.startswith("nano")]
SERVED = [f"collection.endpoints.{name}=http://teacher:8000/v1" for name in ("72b", "78b")]
TOO_LARGE = ("qwen2.5-vl-7b", "internvl3-8b")
"""For one GPU with what is not at work in the machine's memory."""


@pytest.mark.parametrize("hardware", ["1x8-80gb", "1x8-141gb", "4x8-80gb", "1-gpu-80gb"])
def test_which_combinations_fit(hardware):
    for recipe, student, method in itertools.product(known("recipes"), STUDENTS, METHODS):
        more = [*SERVED, "sft.steps=10"] if method == "sft" else SERVED
        built = load_recipe(recipe, student, method, more, hardware)
        if hardware == "1-gpu-80gb" and student in TOO_LARGE:
            with pytest.raises(UserError, match=r"does not fit.*set hardware\.offload=always"):
                check_fit(built)
            check_fit(
                load_recipe(recipe, student, method, [*more, "hardware.offload=always"], hardware)
            )
        else:
            check_fit(built)


@pytest.mark.parametrize(
    ("student", "hardware", "more", "words"),
    [
        ("qwen2.5-vl-3b", "1-gpu-80gb", [], "teacher 72b cannot be served here"),
        ("qwen2.5-vl-3b", "1-gpu-80gb", SERVED[:1], "teacher 78b cannot be served here"),
        ("internvl3-8b", "1-gpu-80gb", ["hardware.offload=none", *SERVED], "offload=always"),
        ("qwen2.5-vl-3b", "1-gpu-80gb", ["hardware.offload=none", *SERVED], "offload=between"),
        ("qwen2.5-vl-7b", "cpu", [], "take other hardware"),
        ("internvl3-1b", "1x8-80gb", ["hardware.rollout_tensor_parallel=4"], "14 attention heads"),
        ("qwen2.5-vl-7b", "1x8-80gb", ["hardware.rollout_memory=0.1"], "cannot be sampled"),
        ("internvl3-8b", "1x8-80gb", ["hardware.memory_gib=16"], "GiB on a device of 16"),
    ],
)
def test_refusals_are_one_line_with_the_setting_that_helps(student, hardware, more, words):
    with pytest.raises(UserError, match=words) as raised:
        check_fit(load_recipe("both", student, overrides=more, hardware=hardware))
    assert "\n" not in str(raised.value)


def test_methods_without_teachers_need_no_address():
    check_fit(load_recipe("both", "internvl3-1b", "dr-grpo", hardware="1-gpu-80gb"))


def test_nano_fits_and_an_unknown_layout_is_left_to_verl(tmp_path):
    for student in ("nano", "nano-independent"):
        check_fit(load_recipe("both", student))
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    check_fit(load_recipe("both", overrides=[f"student.model={tmp_path}"]))


def test_all_that_is_wrong_is_listed():
    recipe = load_recipe("both", "internvl3-8b", hardware="1-gpu-80gb")
    found = refusals(recipe, find_architecture(recipe.student.model))
    assert [line.split()[0] for line in found] == ["internvl3-8b", "teacher", "teacher"]
