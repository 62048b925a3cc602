"""Parts that keep their weights: by name on every layout. Through verl: test_session."""

import json

import pytest
import torch

from rilbench.config import load_recipe
from rilbench.config.schema import PARTS
from rilbench.errors import UserError
from rilbench.paths import nano_folder
from rilbench.resources import resource
from rilbench.train.verl.freeze import freeze


def built(student):
    """On the meta device; the names are those of the whole model."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    if student.startswith("nano:"):
        config = AutoConfig.from_pretrained(nano_folder() / student.removeprefix("nano:"))
    else:
        fields = json.loads(resource(f"recipes/models/{student}.json").read_text())["config"]
        kind = fields.pop("model_type")
        config = AutoConfig.for_model(kind, **fields)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


@pytest.mark.parametrize(
    "student",
    [
        "nano:restyled",
        "nano:internvl",
        "qwen2.5-vl-3b",
        "qwen2.5-vl-7b",
        "internvl3-1b",
        "internvl3-8b",
    ],
)
def test_the_parts_are_the_language_model(student):
    model = built(student)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tied = model.config.tie_word_embeddings
    seen = []
    for part in PARTS[1:]:
        model.requires_grad_(True)
        if part == "head" and tied:
            with pytest.raises(UserError, match="the head is the embedding"):
                freeze(model, part)
            continue
        count = freeze(model, part)
        frozen = [names[id(p)] for p in model.parameters() if not p.requires_grad]
        assert len(frozen) == count > 0
        seen += frozen
    of_language = {n for n in names.values() if ".language_model." in n or n.startswith("lm_head")}
    assert sorted(seen) == sorted(of_language)  # each in exactly one part, and nothing else


def test_a_part_that_nobody_knows_is_refused():
    with pytest.raises(UserError, match="one of embedding, attention, gate"):
        load_recipe("both", "nano", overrides=["policy.freeze=vision"])
