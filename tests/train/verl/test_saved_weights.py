"""What is exported says what it is, and is the model that the ranks saved."""

import json

import pytest
import torch
from layouts import write_layout
from safetensors.torch import load_file
from save_shares import save_shares
from transformers import AutoModelForImageTextToText, AutoProcessor

from rilbench.checkpoint import inspect_checkpoint
from rilbench.paths import locate
from rilbench.train.verl.saved_weights import dtype_of, write_model

STUDENTS = [
    ("tied", "restyled", torch.float32),
    ("internvl", "internvl", torch.bfloat16),
    ("untied", "restyled", torch.bfloat16),  # as Qwen2.5-VL-7B
]


@pytest.fixture(scope="module", params=STUDENTS, ids=lambda param: param[0])
def student(request, tmp_path_factory):
    """A student in float32 or bf16, and what two ranks save of it."""
    name, nano, dtype = request.param
    place = tmp_path_factory.mktemp(name)
    source = locate(f"nano:{nano}")
    model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype)
    if name == "untied":
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + 0.5)
    model.save_pretrained(place / "student")
    AutoProcessor.from_pretrained(source).save_pretrained(place / "student")
    save_shares(place / "student", place / "actor", ranks=2)
    return place, dtype


@pytest.mark.timeout(400)
def test_the_export_is_the_student_in_its_own_dtype(student, capfd):
    place, dtype = student
    assert dtype_of(place / "student") == dtype
    out = place / "out"
    write_model(place / "actor", out, dtype)
    assert capfd.readouterr().err == "", "neither bars nor torch's remarks disturb the screen"
    inspect_checkpoint(out)
    config = json.loads((out / "config.json").read_text())
    name = str(dtype).removeprefix("torch.")
    assert {config["dtype"], config["text_config"]["dtype"], config["vision_config"]["dtype"]} == {
        name
    }
    exported, original = (load_file(p / "model.safetensors") for p in (out, place / "student"))
    assert exported.keys() == original.keys(), "names as on the hub, tied weights once"
    assert {weight.dtype for weight in exported.values()} == {dtype}
    assert all(torch.equal(weight, original[key]) for key, weight in exported.items())
    size = sum(weight.nbytes for weight in exported.values())
    assert (out / "model.safetensors").stat().st_size < size + 20_000
    one, other = (
        AutoModelForImageTextToText.from_pretrained(p).eval() for p in (out, place / "student")
    )
    assert one.dtype == dtype
    assert one.generation_config.to_dict() == other.generation_config.to_dict()
    ids = torch.randint(10, 300, (2, 12))
    with torch.no_grad():
        assert torch.equal(one(input_ids=ids).logits, other(input_ids=ids).logits)


@pytest.mark.parametrize("name", ["gemma3", "llava_onevision"])
def test_an_export_has_the_names_of_published_checkpoints(name, tmp_path):
    """vLLM knows no others: transformers 5.8 took a level out of SigLIP's vision tower."""
    model = AutoModelForImageTextToText.from_pretrained(write_layout(name, tmp_path / "student"))
    save_shares(tmp_path / "student", tmp_path / "actor", ranks=1)
    write_model(tmp_path / "actor", tmp_path / "out", torch.float32)
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert "vision_tower.vision_model.embeddings.patch_embedding.weight" in names
    again, told = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    found = again.state_dict()
    assert all(torch.equal(found[key], weight) for key, weight in model.state_dict().items())
