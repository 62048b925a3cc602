"""The plan against what torch's FSDP2 tracker counted of all students (`make bench-plan`)."""

import json
from pathlib import Path

import pytest

from rilbench.config import known, load_recipe
from rilbench.plan import find_architecture
from rilbench.plan.assumptions import assume
from rilbench.plan.memory import GIB, plan_memory

RESULTS = Path(__file__).parents[2] / "results" / "bench"
TRACKED = json.loads((RESULTS / "plan-memory.json").read_text())
STUDENTS = [name for name in known("students") if not name.startswith("nano")]


def test_all_students_were_tracked():
    assert set(TRACKED["students"]) == set(STUDENTS)


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("model", ["policy", "discriminator"])
def test_the_plan_is_within_a_tenth(student, model):
    recipe = load_recipe("both", student, hardware=TRACKED["hardware"])
    memory = plan_memory(recipe, find_architecture("", student), assume(recipe))
    planned = getattr(memory, model)
    tracked = TRACKED["students"][student][model]
    assert planned.at_work / GIB == pytest.approx(tracked["update"]["gib"], rel=0.1)
    assert planned.forward / GIB == pytest.approx(tracked["forward"]["gib"], rel=0.1)


def test_the_3b_student_with_lora_fits_on_24_gb():
    tracked = json.loads((RESULTS / "plan-memory-lora.json").read_text())
    recipe = load_recipe(
        "both", "qwen2.5-vl-3b", overrides=tracked["settings"], hardware=tracked["hardware"]
    )
    assert (recipe.policy.lora_rank, recipe.hardware.memory_gib) == (32, 24)
    memory = plan_memory(recipe, find_architecture("", "qwen2.5-vl-3b"), assume(recipe))
    for model, phases in tracked["students"]["qwen2.5-vl-3b"].items():
        planned = getattr(memory, model)
        assert planned.at_work / GIB == pytest.approx(phases["update"]["gib"], rel=0.1)
        assert planned.forward / GIB == pytest.approx(phases["forward"]["gib"], rel=0.1)
        assert all(phase["gib"] + memory.reserved / GIB < 24 for phase in phases.values())
