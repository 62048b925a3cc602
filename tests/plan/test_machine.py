"""The host's memory, against transformers' own weights."""

import json
import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from rilbench.plan.architecture import find_architecture
from rilbench.plan.machine import pinned
from rilbench.resources import resource


@pytest.mark.parametrize("student", ["qwen2.5-vl-3b", "internvl3-1b"])
def test_pinned_memory_is_a_power_of_two_for_each_weights_share(student):
    """As `CachingHostAllocator` rounds; the count by layers is near the count by weights."""
    values = json.loads(resource(f"recipes/models/{student}.json").read_text())["config"]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model(values.pop("model_type"), **values)
        )
    architecture = find_architecture(student, student)
    for ranks in (1, 4, 8):
        shares = [
            4 * math.ceil(weight.shape[0] / ranks) * math.prod(weight.shape[1:])
            for weight in model.parameters()
        ]
        rounded = sum(2 ** math.ceil(math.log2(share)) for share in shares)
        assert pinned(architecture, ranks) == pytest.approx(rounded / sum(shares), rel=0.02)
