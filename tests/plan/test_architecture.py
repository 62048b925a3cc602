"""Parameter counts against transformers' own classes, built without memory from the same config."""

import json

import pytest
import torch
from layouts import BUILDERS
from PIL import Image

from rilbench.errors import UserError
from rilbench.model.inputs import picture_inputs
from rilbench.paths import nano_folder
from rilbench.plan.architecture import find_architecture, read_architecture
from rilbench.plan.counted import EXPERTS, PATCHES
from rilbench.plan.counted import count as count_architecture
from rilbench.resources import resource

KEPT = {path.stem: json.loads(path.read_text()) for path in resource("recipes/models").glob("*")}
NANO = ("restyled", "72b", "78b")
PUBLISHED = {  # the parameter counts of the checkpoints, in millions
    "internvl3-1b": 938.2,
    "internvl3-2b": 2089.0,
    "internvl3-8b": 7944.4,
    "internvl3-78b": 78408.3,
    "qwen2.5-vl-3b": 3754.6,
    "qwen2.5-vl-7b": 8292.2,
    "qwen2.5-vl-72b": 73410.8,
    "qwen2.5-32b": 32763.9,
}


def built(config):
    """transformers' model of a config, on the meta device."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    fields = {key: value for key, value in config.items() if key != "model_type"}
    found = AutoConfig.for_model(config["model_type"], **fields)
    auto = AutoModelForCausalLM if config["model_type"] == "qwen2" else AutoModelForImageTextToText
    with torch.device("meta"):
        return auto.from_config(found)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", sorted(KEPT))
def test_counts_are_those_of_transformers(name):
    document = KEPT[name]
    found = read_architecture(document["config"], name)
    model = built(document["config"])
    assert found.parameters == count(model)
    assert round(found.parameters / 1e6, 1) == PUBLISHED[name]
    if found.vision is not None:
        decoder = model.get_decoder()
        assert found.decoder == count(decoder)
        assert found.vision_parameters == count(model.model) - count(decoder)
        assert found.discriminator == count(decoder) + found.text.hidden
        assert found.text.layer_parameters == count(decoder.layers[0])
    assert document["source"]
    assert find_architecture(document["models"][0]) == found


@pytest.mark.parametrize("name", NANO)
def test_nano_models(name):
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(nano_folder() / name)
    assert find_architecture(f"nano:{name}").parameters == count(model)


def test_every_student_teacher_and_judge_is_kept():
    from rilbench.config import known, load_recipe

    for student in known("students"):
        recipe = load_recipe("both", student)
        find_architecture(recipe.student.model)
        for model in recipe.teachers.models.values():
            find_architecture(model)
        if recipe.judge.model != "rule":
            find_architecture(recipe.judge.model)


def test_the_named_repository_is_a_students():
    """The one that a user of an original InternVL repository is sent to."""
    with pytest.raises(UserError) as raised:
        read_architecture({"model_type": "internvl_chat"}, "mine")
    assert find_architecture(str(raised.value).split()[-1]).layout == "internvl"


def test_a_models_folder_wins_over_the_recipes_name(tmp_path):
    config = KEPT["internvl3-1b"]["config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert find_architecture(str(tmp_path), "qwen2.5-vl-7b").parameters == 938_193_024
    assert find_architecture("models/not-there", "qwen2.5-vl-7b").name == "qwen2.5-vl-7b"


def test_every_layout_of_students_is_known():
    from rilbench.config.layouts import LAYOUTS

    assert LAYOUTS.keys() == {*PATCHES, *EXPERTS}


@pytest.mark.parametrize("name", [name for name in BUILDERS if not name.endswith("_moe")])
def test_other_layouts_are_counted_on_transformers_classes(name):
    """Each part of a tiny student's, and what its vision tower makes of a picture."""
    if name == "smolvlm":
        pytest.importorskip("num2words")
    made, processor = BUILDERS[name]()
    config = json.loads(json.dumps(made.to_dict()))
    if name == "qwen2_5_vl":  # has formulas too, which need every field
        assert count_architecture(config, name).parameters == count(built(config))
        return
    found = read_architecture(config, name)
    model = built(config)
    decoder = model.get_decoder()
    assert found.parameters == count(model)
    assert found.decoder == count(decoder)
    assert found.vision_parameters == count(model.model) - count(decoder)
    assert found.discriminator == count(decoder) + found.text.hidden
    assert found.vision.layers == 2
    assert 0 < found.vision.layer_parameters * 2 < found.vision_parameters
    picture = picture_inputs(processor, [Image.new("RGB", (84, 56))])["pixel_values"]
    assert found.patch_values in (picture.shape[-1], 3 * found.patch_pixels)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "llava"}, "plan a student of qwen2_vl, .*smolvlm$"),
        ({"model_type": "internvl_chat"}, "-hf, such as OpenGVLab/InternVL3-8B-hf"),
        ({"model_type": "qwen3_vl_moe"}, "can be trained, but .* experts"),
        ({"model_type": "gemma3", "text_config": {"hidden_size": "wide"}}, "makes no model"),
        ({"model_type": "qwen2", "tie_word_embeddings": True}, "lacks"),
        ({}, "None"),
    ],
)
def test_an_unsupported_model_is_refused(config, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read_architecture(config, "mine")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        find_architecture(str(tmp_path))
    with pytest.raises(UserError, match=r"student\.model"):
        find_architecture("nobody/nothing")
