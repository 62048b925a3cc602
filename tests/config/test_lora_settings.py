"""The settings of LoRA: what they mean, what does not fit together, what is fingerprinted."""

import pytest
import yaml

from rilbench.config import load_recipe, read_recipe
from rilbench.config.schema import ADDED_LATER
from rilbench.errors import UserError

RANK = "policy.lora_rank=8"


def test_the_discriminator_has_the_policys_rank_unless_it_has_its_own():
    assert load_recipe("both", "nano").discriminator_lora_rank == 0
    assert load_recipe("both", "nano", overrides=[RANK]).discriminator_lora_rank == 8
    for rank in (0, 2):
        own = [RANK, f"discriminator.lora_rank={rank}"]
        assert load_recipe("both", "nano", overrides=own).discriminator_lora_rank == rank


def test_targets_are_a_name_or_several():
    for text, expected in (("q_proj", ("q_proj",)), ("[q_proj,v_proj]", ("q_proj", "v_proj"))):
        recipe = load_recipe("both", "nano", overrides=[RANK, f"policy.lora_targets={text}"])
        assert recipe.policy.lora_targets == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["policy.lora_rank=-1"], "must not be negative"),
        ([RANK, "policy.lora_alpha=0"], "must be at least 1"),
        (["discriminator.lora_rank=-2"], "must be at least 0, or -1"),
        ([RANK, "policy.freeze=gate"], "policy.freeze=gate is for full training"),
        (["policy.lora_alpha=8"], "policy.lora_alpha changes nothing with policy.lora_rank=0"),
        (["policy.lora_targets=q_proj"], "policy.lora_targets changes nothing"),
        (["schedule.export_adapter=keep"], "there is no adapter with policy.lora_rank=0"),
        (["schedule.export_adapter=both"], "use one of merge, keep"),
        ([RANK, "policy.lora_targets=[]"], "give all-linear, or the names"),
        ([RANK, "policy.lora_targets=[all-linear,q_proj]"], "give all-linear, or the names"),
        ([RANK, "policy.lora_targets=q.*"], "'q.\\*' is no name of a layer"),
        ([RANK, "discriminator.lora_rank=4", "method=dr-grpo"], "changes nothing with method"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, words):
    with pytest.raises(UserError, match=words) as raised:
        load_recipe("both", "nano", overrides=settings)
    assert "\n" not in str(raised.value)


def test_alpha_and_targets_may_be_the_discriminators_alone():
    settings = ["discriminator.lora_rank=4", "policy.lora_alpha=8", "policy.lora_targets=q_proj"]
    assert load_recipe("both", "nano", overrides=settings).policy.lora_rank == 0


def test_only_what_is_not_the_default_is_fingerprinted(tmp_path):
    plain = load_recipe("both", "nano")
    prints = {plain.fingerprint}
    for more in ([], ["policy.lora_alpha=8"], ["policy.lora_targets=q_proj"]):
        prints.add(load_recipe("both", "nano", overrides=[RANK, *more]).fingerprint)
    prints.add(load_recipe("both", "nano", overrides=["discriminator.lora_rank=8"]).fingerprint)
    assert len(prints) == 5
    # As it was stored before there was LoRA.
    document = yaml.safe_load(plain.to_yaml())
    for group, name in (key.split(".") for key in (*ADDED_LATER, "schedule.export_adapter")):
        del document[group][name]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    assert read_recipe(tmp_path / "recipe.yaml").fingerprint == plain.fingerprint


def test_the_nano_recipe_keeps_its_fingerprint():
    assert load_recipe("both", "nano").fingerprint == "0fb8094869fa99d1"


def test_keeping_the_adapter_is_not_another_method():
    keep = load_recipe("both", "nano", overrides=[RANK, "schedule.export_adapter=keep"])
    assert keep.fingerprint == load_recipe("both", "nano", overrides=[RANK]).fingerprint
