"""What cannot fit is refused, in one line, by `rilbench train` too; what helps does help."""

import itertools

import pytest

from rilbench.config import METHODS, known, load_recipe
from rilbench.errors import UserError
from rilbench.plan import check_fit, find_architecture, make_plan
from rilbench.plan.assumptions import assume
from rilbench.plan.fit import devices_of_server, refusals

STUDENTS = [name for name in known("students") if not name.startswith("nano")]
SERVED = [f"collection.endpoints.{name}=http://teacher:8000/v1" for name in ("72b", "78b")]
ONE_TEACHER = ["teachers.names=[72b]"]
TOO_LARGE = ("qwen2.5-vl-7b", "internvl3-8b")
"""For one GPU with what is not at work in the machine's memory."""


@pytest.mark.parametrize("hardware", ["1x8-80gb", "1x8-141gb", "4x8-80gb", "1-gpu-80gb"])
def test_which_combinations_fit(hardware):
    for recipe, student, method in itertools.product(known("recipes"), STUDENTS, METHODS):
        more = [*SERVED, "sft.steps=10"] if method == "sft" else SERVED
        more = ["hardware.teacher_devices=8"] if method == "opd" else more
        built = load_recipe(recipe, student, method, more, hardware)
        if hardware == "1-gpu-80gb" and student in TOO_LARGE:
            with pytest.raises(UserError, match=r"does not fit.*set hardware\.offload=always"):
                check_fit(built)
            check_fit(
                load_recipe(recipe, student, method, [*more, "hardware.offload=always"], hardware)
            )
        else:
            check_fit(built)


@pytest.mark.parametrize("student", TOO_LARGE)
@pytest.mark.parametrize("hardware", ["1x8-80gb", "1x8-80gb-judge", "1x8-141gb", "4x8-80gb"])
def test_the_largest_students_need_no_more_than_a_profile_has(hardware, student):
    recipe = load_recipe("both", student, "ril", [], hardware)
    plan = make_plan(recipe, assume(recipe))
    assert [warning for warning in plan.warnings if "needs about" in warning] == []


@pytest.mark.parametrize(
    ("student", "hardware", "more", "words"),
    [
        ("qwen2.5-vl-3b", "1-gpu-80gb", [], "teacher 72b cannot be served here"),
        ("qwen2.5-vl-3b", "1-gpu-80gb", SERVED[:1], "teacher 78b cannot be served here"),
        ("internvl3-8b", "1-gpu-80gb", ["hardware.offload=none", *SERVED], "offload=always"),
        ("qwen2.5-vl-3b", "1-gpu-80gb", ["hardware.offload=none", *SERVED], "offload=idle"),
        ("qwen2.5-vl-7b", "cpu", [], "take other hardware"),
        ("internvl3-1b", "1x8-80gb", ["hardware.rollout_tensor_parallel=4"], "14 attention heads"),
        ("qwen2.5-vl-7b", "1x8-80gb", ["hardware.rollout_memory=0.1"], "cannot be sampled"),
        ("qwen2.5-vl-3b", "1x8-80gb", ["policy.freeze=head"], "is its embedding"),
        (
            *("qwen2.5-vl-3b", "1x8-80gb", ["method=opd", "hardware.teacher_devices=2"]),
            "72b cannot be served here: .* leave it 1 of 80 GiB, .* raise it",
        ),
        (
            *("qwen2.5-vl-3b", "1x8-80gb"),
            ["method=opd", "hardware.teacher_devices=6", *ONE_TEACHER],
            "72b cannot be divided among 6 devices .64 attention heads.; set",
        ),
        (
            # 137 GiB fit on 160, but not on the share that leaves room for log-probabilities.
            *("qwen2.5-vl-3b", "1x8-80gb"),
            ["method=opd", "hardware.teacher_devices=2", *ONE_TEACHER],
            "72b cannot be served here",
        ),
        ("internvl3-8b", "1x8-80gb", ["hardware.memory_gib=16"], "GiB on a device of 16"),
    ],
)
def test_refusals_are_one_line_with_the_setting_that_helps(student, hardware, more, words):
    with pytest.raises(UserError, match=words) as raised:
        check_fit(load_recipe("both", student, overrides=more, hardware=hardware))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "devices"),
    [
        ("internvl3-1b", 2),  # 14 heads
        ("internvl3-2b", 4),  # 12 heads
        ("internvl3-8b", 4),  # 28 heads
        ("internvl3-78b", 8),
        ("qwen2.5-vl-3b", 4),  # 3,420 wide MLPs in the vision tower
        ("qwen2.5-vl-7b", 4),
        ("qwen2.5-vl-72b", 8),
        ("qwen2.5-32b", 8),
    ],
)
def test_a_server_takes_as_many_devices_as_the_model_divides_among(model, devices):
    assert devices_of_server(find_architecture("", model), 8) == devices
    assert devices_of_server(find_architecture("", model), 1) == 1


def test_methods_without_teachers_need_no_address():
    check_fit(load_recipe("both", "internvl3-1b", "dr-grpo", hardware="1-gpu-80gb"))


def test_nano_fits_and_an_unknown_layout_is_left_to_verl(tmp_path):
    for student in ("nano", "nano-internvl"):
        check_fit(load_recipe("both", student))
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl_moe"}')
    check_fit(load_recipe("both", overrides=[f"student.model={tmp_path}"]))


def test_all_refusals_are_listed():
    recipe = load_recipe("both", "internvl3-8b", hardware="1-gpu-80gb")
    found = refusals(recipe, find_architecture(recipe.student.model))
    assert [line.split()[0] for line in found] == ["internvl3-8b", "teacher", "teacher"]
