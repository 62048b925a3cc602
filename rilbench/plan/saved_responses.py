"""How many of the collected responses a schedule can use, and what collecting fewer saves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rilbench.config.schema import Recipe
from rilbench.errors import UserError
from rilbench.plan.architecture import Architecture, find_architecture
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.compute_cost import collect_hours
from rilbench.plan.numbers import short

STUDENT = "student"


@dataclass(frozen=True)
class Collected:
    """The responses of one model."""

    asked: int  # to collect
    used: int  # at most, by the whole schedule
    enough: int  # for each question, so that none has to be used twice


def plan_collection(recipe: Recipe, assumed: Assumptions) -> dict[str, Collected]:
    """Return the responses to collect, by model, and how many of them the schedule can use."""
    questions, settings = assumed.questions, recipe.collection
    draws = 0  # of D's pretraining, from the student and from all teachers together
    if recipe.method_spec.uses_discriminator:
        pretraining = recipe.discriminator
        draws = pretraining.pretrain_steps * (pretraining.pretrain_batch_size // 2)
    found: dict[str, Collected] = {}
    if recipe.uses_saved_responses:
        share = visits = sft = 0
        if recipe.method_spec.uses_saved_responses:
            share = recipe.teacher_share
            visits = recipe.schedule.steps * recipe.schedule.prompts_per_step
        if recipe.sft_on_teachers:
            sft = recipe.sft.steps * recipe.sft.batch_size
        others = math.ceil((draws + sft) / len(recipe.teachers.names))
        if recipe.teachers.mix == "routed":  # no source is known yet: as if all were as large
            questions = math.ceil(questions / len(recipe.teachers.names))
            visits = math.ceil(visits / len(recipe.teachers.names))
        limit = min(recipe.max_saved_responses, settings.teacher_responses)
        teacher = Collected(
            asked=questions * settings.teacher_responses,
            used=min(visits * share + others, questions * limit),
            enough=min(
                math.ceil(share * math.ceil(visits / questions) + others / questions), limit
            ),
        )
        found = dict.fromkeys(recipe.teachers.names, teacher)
    if draws:
        questions, limit = assumed.questions, settings.student_responses
        found[STUDENT] = Collected(
            asked=questions * limit,
            used=min(draws, questions * limit),
            enough=min(math.ceil(draws / questions), limit),
        )
    return found


def collection_hours(
    recipe: Recipe, student: Architecture, counts: Mapping[str, int], assumed: Assumptions
) -> dict[str, float]:
    """Return the GPU-hours to collect, by model; served models use GPUs like the recipe's.

    One with a price is paid for by tokens, and uses none of the user's.

    Args:
        recipe: the run.
        student: its student.
        counts: responses to each question, by model.
        assumed: lengths and speeds.
    """
    hours: dict[str, float] = {}
    for name, count in counts.items():
        if name in recipe.collection.price:
            continue
        try:
            model = student if name == STUDENT else find_architecture(recipe.teachers.models[name])
        except UserError:
            continue  # a teacher of the user's own behind an address
        hours[name] = collect_hours(recipe, model, count, assumed)
    return hours


def note_on_collection(recipe: Recipe, student: Architecture, assumed: Assumptions) -> str:
    """Return a note if the recipe collects more responses than its schedule can ever use."""
    collected = plan_collection(recipe, assumed)
    asked = {name: one.asked // assumed.questions for name, one in collected.items()}
    enough = {name: one.enough for name, one in collected.items()}
    if asked == enough:
        return ""
    parts, settings = [], []
    for whose, names in (
        ("teachers'", [name for name in collected if name != STUDENT]),
        ("student's", [name for name in collected if name == STUDENT]),
    ):
        if any(asked[name] > enough[name] for name in names):
            used = sum(collected[name].used for name in names)
            total = sum(collected[name].asked for name in names)
            parts.append(f"{used:,} of the {whose} {total:,} responses")
            setting = "student_responses" if names == [STUDENT] else "teacher_responses"
            settings.append(f"collection.{setting}={enough[names[0]]}")
    before = sum(collection_hours(recipe, student, asked, assumed).values())
    after = sum(collection_hours(recipe, student, enough, assumed).values())
    hours = f"saves {short(before - after)} of {short(before)} GPU-hours of collecting"
    return (
        f"the schedule can use at most {' and '.join(parts)}; --set {' --set '.join(settings)} "
        f"{hours if before else 'saves the price of the others'}, and no response is used twice"
    )
