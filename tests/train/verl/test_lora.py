"""LoRA through verl's engines: what trains, what the rollout engine gets, what is saved.

On the nano student's two layouts, with whole rows and with shared prompts. Through a whole run:
`tests/train/test_lora_run.py`.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from direct import log_probs
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config.lora_targets import layers_to_adapt
from rilbench.data.question_files import read_questions, write_questions
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.train.verl.lora import adapt, linear_layers
from rilbench.train.verl.saved_weights import dtype_of, write_adapter, write_model

SCRIPT = Path(__file__).parents[2] / "support" / "adapted_update.py"
SCALE = 8 / 4  # of the script's settings
CASES = [
    ("restyled", "shared-checkpointed"),
    # Half a minute each.
    pytest.param(("restyled", "padded"), marks=pytest.mark.integration),
    pytest.param(("internvl", "shared"), marks=pytest.mark.integration),
]


@cache
def questions():
    """Four questions, one with two pictures."""
    asked = read_questions(locate("nano:prompts.parquet"))
    return [
        next(q for q in asked if q.source == source)
        for source in ("MMStar", "BLINK", "ChartQA", "MM-Vet")
    ]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def made(request, tmp_path_factory):
    """What the script found, its folder, and the student that it adapted."""
    layout, mode = request.param
    place, student = tmp_path_factory.mktemp(mode), locate(f"nano:{layout}")
    write_questions(place / "questions.parquet", questions())
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(student), "out.pt", mode],
        cwd=place,
        env={**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(place / "out.pt"), place, student


def plain(student):
    return AutoModelForImageTextToText.from_pretrained(student, dtype=torch.float32).eval()


def said_by(model, student):
    """Log-probabilities of the script's responses, by transformers alone."""
    processor = AutoProcessor.from_pretrained(student)
    end = processor.tokenizer.eos_token
    return [
        log_probs(model, processor, q, f"{q.answer}{' 7' * i}{end}")[0]
        for i, q in enumerate(q for q in questions() for _ in range(3))
    ]


def assert_close(found, expected, **tolerance):
    for one, another in zip(found, expected, strict=True):
        assert one == pytest.approx(another, **tolerance)


pytestmark = pytest.mark.timeout(900)


def test_the_policy_begins_as_the_reference_and_leaves_it(made):
    found, _, _ = made
    assert found["policy"][0] == found["reference"][0]
    assert abs(found["kl"][0]) < 1e-9
    assert found["kl"][-1] > 0
    moved = max(
        abs(a - b)
        for one, other in zip(found["policy"][-1], found["policy"][0], strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert moved > 0.1


def test_the_reference_is_the_student_whatever_was_trained(made):
    found, _, student = made
    expected = said_by(plain(student), student)
    for reference in found["reference"]:
        assert_close(reference, expected, abs=1e-4)
        assert reference == found["reference"][0]


def test_only_the_adapter_trains_and_all_of_it(made):
    found, _, student = made
    model = plain(student)
    layers = linear_layers(model, model.get_output_embeddings())
    expected = sorted(
        f"base_model.model.{layer}.lora_{part}.default.weight" for layer in layers for part in "AB"
    )
    assert any("vis" in layer for layer in layers), "the vision tower has one, too"
    # Also after the reference's log-probabilities, for which it was off.
    assert all(trained == expected for trained in found["trained"])
    assert found["moments"] == len(expected)
    original = model.state_dict()
    for name, weight in found["state"].items():
        if "lora_" not in name:
            base = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            assert torch.equal(weight, original[base]), name
    b = [weight for name, weight in found["state"].items() if "lora_B" in name]
    assert all(weight.abs().max() > 0 for weight in b)


def test_the_rollout_engine_gets_the_students_weights_and_then_merged_ones(made):
    found, _, student = made
    original = plain(student).state_dict()
    assert found["sent_before"].keys() == found["sent_after"].keys() == original.keys()
    for name, weight in original.items():
        assert torch.equal(found["sent_before"][name], weight), name
        layer = "base_model.model." + name.removesuffix(".weight")
        if f"{layer}.lora_A.default.weight" in found["state"]:
            a, b = (found["state"][f"{layer}.lora_{part}.default.weight"] for part in "AB")
            weight = weight + SCALE * b @ a
        assert torch.allclose(found["sent_after"][name], weight, atol=1e-6), name
        assert found["sent_after"][name].dtype == weight.dtype


def test_a_saved_step_goes_on_as_if_it_had_not_been_interrupted(made):
    found, place, _ = made
    saved = torch.load(place / "actor" / "model_world_size_1_rank_0.pt")
    assert all("lora_" in name for name in saved), "the base is on the disk already"
    for before, loaded in (("state", "loaded"), ("next", "next_loaded")):
        assert found[before].keys() == found[loaded].keys()
        assert all(torch.equal(found[before][name], found[loaded][name]) for name in found[before])


def test_the_export_is_an_ordinary_checkpoint_of_merged_weights(made, tmp_path):
    found, place, student = made
    write_model(place / "actor", tmp_path / "merged", dtype_of(student), base=student)
    inspect_checkpoint(tmp_path / "merged")
    exported = plain(tmp_path / "merged")
    for name, weight in exported.state_dict().items():
        assert torch.allclose(weight, found["sent_after"][name], atol=1e-5), name
    assert_close(said_by(exported, student), found["policy"][-1], abs=1e-3)


def test_the_exported_files_are_laid_out_as_the_students(made, tmp_path):
    """vLLM reads a checkpoint by its tensors' names and shapes, and its configuration."""
    import json

    from safetensors.torch import load_file

    _, place, student = made
    write_model(place / "actor", tmp_path / "merged", dtype_of(student), base=student)
    one, other = (load_file(p / "model.safetensors") for p in (tmp_path / "merged", student))
    assert {n: (w.shape, w.dtype) for n, w in one.items()} == {
        n: (w.shape, w.dtype) for n, w in other.items()
    }
    one, other = (
        json.loads((p / "config.json").read_text()) for p in (tmp_path / "merged", student)
    )
    assert one["architectures"] == other["architectures"]


def test_the_kept_adapter_is_pefts(made, tmp_path):
    found, place, student = made
    write_adapter(place / "actor", tmp_path / "adapter", base=student)
    adapted = PeftModel.from_pretrained(plain(student), tmp_path / "adapter")
    assert adapted.peft_config["default"].base_model_name_or_path == str(student.resolve())
    for name, weight in adapted.merge_and_unload().state_dict().items():
        assert torch.allclose(weight, found["sent_after"][name], atol=1e-5), name


def test_the_discriminator_trains_its_adapter_and_its_head(made):
    found, _, _ = made
    trained = found["discriminator_trained"]
    heads = [name for name in trained if "lora_" not in name]
    assert heads == ["base_model.model.score.weight"]
    assert all(".body." in name for name in trained if name not in heads)
    # A's gradient is 0 as long as B is.
    changed = {name for name in trained if "lora_A" not in name}
    assert changed <= set(found["discriminator_changed"]) <= set(trained)
    assert found["discriminator_loads"]
    assert found["logits"].unique().numel() == 12


def test_targets_name_layers_or_parts():
    names = ["model.language_model.layers.0.q_proj", "model.language_model.layers.0.o_proj"]
    names.append("model.visual.blocks.0.attn.q_proj")
    assert layers_to_adapt(names, ["all-linear"]) == names
    assert layers_to_adapt(names, ["q_proj"]) == [names[0], names[2]]
    assert layers_to_adapt(names, ["language_model"]) == names[:2]
    assert layers_to_adapt(names, ["language_model.layers.0.q_proj", "visual"]) == names[::2]
    with pytest.raises(UserError, match=r"named proj.*or some of attn, blocks"):
        layers_to_adapt(names, ["proj"])


def test_the_seed_makes_the_adapter():
    def first(seed):
        model = torch.nn.Sequential(torch.nn.Linear(4, 6))
        before = torch.get_rng_state()
        adapted = adapt(model, ["0"], rank=2, alpha=4, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        return adapted.state_dict()["base_model.model.0.lora_A.default.weight"]

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
