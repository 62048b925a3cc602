"""The plan of LoRA: adapters counted exactly, a frozen base, no reference beside the policy."""

import json

import pytest
import torch
from layouts import BUILDERS
from saved_memory import size
from transformers import AutoConfig, AutoModelForImageTextToText

from rilbench.config import load_recipe
from rilbench.config.lora_targets import layers_to_adapt
from rilbench.errors import UserError
from rilbench.paths import nano_folder
from rilbench.plan import check_fit, find_architecture, make_plan
from rilbench.plan.assumptions import assume
from rilbench.plan.fit import refusals
from rilbench.plan.memory import GIB
from rilbench.plan.states import linear_layers as planned_layers
from rilbench.resources import resource
from rilbench.train.verl.discriminator_model import Discriminator
from rilbench.train.verl.lora import adapt, linear_layers

RANK = "policy.lora_rank=8"


def built(student):
    """On the meta device, with its real shape."""
    if student.startswith("nano"):
        layout = "internvl" if student == "nano-internvl" else "restyled"
        config = AutoConfig.from_pretrained(nano_folder() / layout)
    else:
        fields = json.loads(resource(f"recipes/models/{student}.json").read_text())["config"]
        config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, dtype=torch.float32)


@pytest.mark.parametrize(
    "student", ["nano", "nano-internvl", "qwen2.5-vl-3b", "qwen2.5-vl-7b", "internvl3-1b"]
)
def test_the_layers_are_the_models(student):
    recipe = load_recipe("both", student)
    found = find_architecture(recipe.student.model, student)
    assert planned_layers(found) == layers_of(built(student))


def layers_of(model):
    """The model's linear layers, with their inputs and outputs."""
    return {
        name: (layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if name in linear_layers(model, model.get_output_embeddings())
    }


@pytest.mark.parametrize("targets", ["all-linear", "[q_proj,v_proj]", "language_model"])
def test_states_are_exact(targets):
    recipe = load_recipe("both", "nano", overrides=[RANK, f"policy.lora_targets={targets}"])
    plan = make_plan(recipe, assume(recipe))
    model = built("nano")
    layers = linear_layers(model, model.get_output_embeddings())
    adapted = adapt(
        model, layers_to_adapt(layers, recipe.policy.lora_targets), rank=8, alpha=32, seed=0
    )
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert plan.memory.policy.weights == size(adapted.parameters())
    assert plan.memory.policy.gradients == size(trained)
    assert plan.memory.policy.optimiser == 2 * size(trained)
    numbers = plan.as_dict()["parameters"]
    assert numbers["adapter"] == sum(p.numel() for p in trained)

    model = Discriminator(built("nano").get_decoder())
    own = {name: f"language_model.{name}" for name in linear_layers(model, model.score)}
    chosen = layers_to_adapt(own.values(), recipe.policy.lora_targets)
    adapted = adapt(model, [n for n in own if own[n] in chosen], rank=8, alpha=32, seed=0)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert numbers["discriminator_adapter"] == sum(p.numel() for p in trained)
    head = model.score.weight.numel() * 4
    assert plan.memory.discriminator.weights == size(adapted.parameters())
    assert plan.memory.discriminator.gradients == size(trained) + head


def test_a_base_on_a_gpu_is_in_bf16_and_there_is_no_reference():
    plans = []
    for more in ([], [RANK]):
        recipe = load_recipe("both", "qwen2.5-vl-3b", overrides=more, hardware="1-gpu-80gb")
        plans.append(make_plan(recipe, assume(recipe)))
    full, lora = plans
    student = lora.student
    adapter = lora.as_dict()["parameters"]["adapter"]
    assert lora.memory.policy.weights == 2 * student.parameters + 4 * adapter
    assert 0.002 < adapter / student.parameters < 0.01
    assert "reference" in full.host
    assert "reference" not in lora.host
    assert lora.host_total < full.host_total
    assert lora.disk_total < full.disk_total / 3
    assert lora.step.total_seconds < full.step.total_seconds


@pytest.mark.parametrize(
    ("hardware", "students"),
    [
        ("1-gpu-16gb", ["internvl3-1b"]),
        ("1-gpu-24gb", ["internvl3-1b", "internvl3-2b", "qwen2.5-vl-3b"]),
        (
            "1-gpu-48gb",
            ["internvl3-1b", "internvl3-2b", "qwen2.5-vl-3b", "qwen2.5-vl-7b", "internvl3-8b"],
        ),
    ],
)
def test_what_the_small_cards_hold(hardware, students):
    for student in students:
        recipe = load_recipe("both", student, overrides=["policy.lora_rank=32"], hardware=hardware)
        plan = make_plan(recipe, assume(recipe))
        assert plan.memory.peak < 0.92 * recipe.hardware.memory_gib * GIB
        assert not [line for line in plan.refused if not line.startswith("teacher")]


def test_a_refusal_names_the_adapter_where_it_helps():
    recipe = load_recipe("both", "qwen2.5-vl-3b", "dr-grpo", hardware="1-gpu-24gb")
    with pytest.raises(UserError, match=r"offload=always, train an adapter \(policy.lora_rank=32"):
        check_fit(recipe)
    adapted = load_recipe(
        "both", "qwen2.5-vl-3b", "dr-grpo", ["policy.lora_rank=32"], hardware="1-gpu-24gb"
    )
    check_fit(adapted)


def test_unknown_targets_are_refused_before_anything_is_loaded():
    recipe = load_recipe("both", "nano", overrides=[RANK, "policy.lora_targets=query"])
    (line,) = refusals(recipe, find_architecture(recipe.student.model))
    assert "no linear layer is named query" in line
    assert "q_proj" in line
    with pytest.raises(UserError, match="is named query"):
        check_fit(recipe)


@pytest.mark.parametrize("target", ["visual", "model.visual.blocks"])
def test_targets_of_the_policy_alone_need_a_whole_discriminator(target):
    settings = [RANK, f"policy.lora_targets=[{target}]"]
    (line,) = refusals(*_with_student(load_recipe("both", "nano", overrides=settings)))
    assert "no layer of the discriminator" in line
    settings.append("discriminator.lora_rank=0")
    assert refusals(*_with_student(load_recipe("both", "nano", overrides=settings))) == []


def _with_student(recipe):
    return recipe, find_architecture(recipe.student.model)


def test_other_layouts_have_the_names_of_their_own_layers(tmp_path):
    """Qwen3-VL's vision tower is called visual, though its MLP is not gated."""
    config = BUILDERS["qwen3_vl"]()[0]
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    found = find_architecture(str(tmp_path))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert planned_layers(found) == layers_of(model)
    settings = [RANK, f"student.model={tmp_path}", "student.name=mine"]
    for target, refused in (("[visual,q_proj]", 0), ("qkv", 1), ("vision_tower", 1)):
        recipe = load_recipe("both", "nano", overrides=[*settings, f"policy.lora_targets={target}"])
        assert len(refusals(recipe, found)) == refused, target
