from pathlib import Path

import pytest

from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.train.verl.sft_config import compose_sft, sft_overrides

RUN = Path("runs/r")


def test_verl_composes_the_sft_stage_with_our_values():
    recipe = load_recipe("both", "nano", "sft", ["sft.steps=7", "sft.batch_size=24", "sft.lr=3e-4"])
    config = compose_sft(recipe, RUN, "model")
    assert config.data.train_batch_size == 24
    assert 24 % config.data.micro_batch_size_per_gpu == 0
    assert (config.trainer.total_training_steps, config.optim.lr) == (7, 3e-4)
    assert config.optim.optimizer == "AdamW"
    assert config.trainer.device == "cpu"
    assert config.engine.mixed_precision.param_dtype == "fp32"
    assert config.model.trust_remote_code is False


def test_rows_that_do_not_divide_among_devices_are_refused():
    recipe = load_recipe("both", "qwen2.5-vl-7b", "sft", ["sft.steps=1", "sft.batch_size=12"])
    with pytest.raises(UserError, match=r"sft\.batch_size"):
        sft_overrides(recipe, RUN, "m")
    compose_sft(load_recipe("both", "qwen2.5-vl-7b", "sft", ["sft.steps=1"]), RUN, "m")


@pytest.mark.parametrize("name", ["a=b+c", "it's", "with space", "[x]"])
def test_a_run_and_a_model_may_have_any_name(name):
    recipe = load_recipe("both", "nano", "sft", ["sft.steps=1"])
    config = compose_sft(recipe, Path("runs") / name, f"models/{name}")
    assert config.trainer.experiment_name == name
    assert config.model.path == f"models/{name}"
