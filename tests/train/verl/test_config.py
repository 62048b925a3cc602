from pathlib import Path

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.workers.config import HFModelConfig

from rilbench.config import METHODS, load_recipe
from rilbench.errors import UserError
from rilbench.train.step_config import StepConfig
from rilbench.train.verl.config import (
    agent_loop_part,
    compose,
    micro_batch,
    overrides,
)

RUN = Path("runs/r")


def composed(recipe, resume_from=None):
    return compose(recipe, RUN, "model", resume_from=resume_from)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "sft"])
def test_verl_composes_the_nano_recipe_with_our_values(method):
    recipe = load_recipe("both", "nano", method)
    config = composed(recipe)
    rollout = config.actor_rollout_ref.rollout
    assert rollout.n == 8
    assert (rollout.name, rollout.temperature, rollout.top_p) == ("transformers", 1.0, 0.95)
    assert config.actor_rollout_ref.actor.strategy == "fsdp2"
    assert config.critic.enable == (method in ("ril", "imitation", "gad"))
    assert config.distillation.enabled == (method == "opd")
    assert config.algorithm.rollout_correction.bypass_mode is False
    mixes = method in ("ril", "imitation", "teacher-bonus", "teacher-rows")
    assert config.ril.num_student_responses == (4 if mixes else 8)
    assert config.actor_rollout_ref.actor.calculate_entropy is True
    assert config.trainer.resume_mode == "disable"


@pytest.mark.parametrize("student", ["qwen2.5-vl-7b", "internvl3-1b"])  # all in test_matrix.py
def test_verl_composes_the_papers_students(student):
    config = composed(load_recipe("72b", student))
    assert config.actor_rollout_ref.rollout.name == "vllm"
    assert config.trainer.n_gpus_per_node == 8
    assert config.ril.length_scale == config.data.max_response_length == 2048


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        (["discriminator.micro_batch_size=2"], 2 * (96 + 64)),
        (["discriminator.micro_batch_size=2", "discriminator.micro_batch_tokens=999"], 999),
    ],
)
def test_a_forward_pass_of_the_discriminator_is_as_large_as_the_recipe_says(settings, tokens):
    """By the number that verl's trainer hands to its engine (`PPOTrainer._setup`)."""
    settings = ["data.max_response_tokens=96", *settings]
    config = composed(load_recipe("72b", "nano", "ril", settings))
    assert config.critic.ppo_infer_max_token_len_per_gpu == tokens


@pytest.mark.parametrize("share", ["true", "false"])
def test_verls_vllm_server_reads_the_models_configuration(share):
    """It reads it as verl's own class (``vLLMHttpServer._init_model_config``), whatever ours is."""
    recipe = load_recipe("72b", "qwen2.5-vl-7b", None, [f"hardware.share_prompts={share}"])
    model = composed(recipe).actor_rollout_ref.model
    assert OmegaConf.merge(OmegaConf.structured(HFModelConfig), model).path == "model"
    assert hydra.utils.get_class(model._target_).share_prompts is (share == "true")


@pytest.mark.parametrize(
    ("student", "hardware", "nodes", "units"),
    [
        ("nano", None, 1, 1),
        ("qwen2.5-vl-7b", "1x8-80gb", 1, 8),
        ("qwen2.5-vl-7b", "1x8-80gb", 8, 16),
    ],
)
def test_the_queue_has_storage_units_for_the_hardware(student, hardware, nodes, units):
    settings = [f"hardware.nodes={nodes}", "schedule.prompts_per_step=32"]
    recipe = load_recipe("both", student, None, settings, hardware)
    found = [line for line in overrides(recipe, RUN, "m", resume_from=None) if "units" in line]
    assert found == [f"transfer_queue.backend.SimpleStorage.num_data_storage_units={units}"]


def test_resuming_names_the_step():
    config = composed(load_recipe("both", "nano"), resume_from=Path("steps/global_step_3"))
    assert config.trainer.resume_mode == "resume_path"
    assert config.trainer.resume_from_path.endswith("global_step_3")


def test_remote_code_and_bypass_mode_are_off():
    text = "\n".join(overrides(load_recipe("both"), RUN, "m", resume_from=None))
    assert "trust_remote_code=True" not in text
    assert "bypass_mode=False" in text


def test_length_scale_is_the_longest_response_unless_given():
    assert StepConfig.from_recipe(load_recipe("both"), RUN).length_scale == 2048.0
    assert StepConfig.from_recipe(load_recipe("both", "nano"), RUN).length_scale == 20.0


@given(st.integers(1, 300), st.integers(1, 600), st.integers(1, 600))
def test_micro_batches_divide_every_batch(wanted, first, second):
    size = micro_batch(wanted, first, second)
    assert 1 <= size <= wanted
    assert first % size == second % size == 0


def test_rows_that_do_not_divide_among_devices_are_refused():
    recipe = load_recipe("both", "nano", overrides=["hardware.devices=5"])
    with pytest.raises(UserError, match=r"schedule\.prompts_per_step"):
        overrides(recipe, RUN, "m", resume_from=None)


def test_settings_of_the_ablations_reach_trainer_and_agent_loop():
    changed = load_recipe(
        "both",
        "nano",
        overrides=[
            *("reward.similarity=continuous", "policy.teachers_in_loss=false"),
            *("judge.false_positive_rate=0.2", "judge.false_negative_rate=0.1"),
        ],
    )
    step = StepConfig.parse(composed(changed).ril)
    plain = StepConfig.parse(composed(load_recipe("both", "nano")).ril)
    assert (step.similarity, step.teachers_in_loss) == ("continuous", False)
    assert (plain.similarity, plain.teachers_in_loss) == ("binary", True)
    loop = StepConfig.parse(agent_loop_part(changed, RUN, ("u", "v"), "m", None)[0]["ril"])
    assert (loop.false_positive_rate, loop.false_negative_rate) == (0.2, 0.1)
    assert (loop.judge_urls, loop.judge_model, loop.judge_fields) == (("u", "v"), "m", "{}")


@pytest.mark.parametrize("name", ["a=b+c", "it's", "with space", "[x]", "{y}", "a,b", "ü"])
def test_a_run_may_have_any_name(name):
    settings = overrides(load_recipe("both", "nano"), Path("runs") / name, "m", resume_from=None)
    parsed = OverridesParser.create().parse_overrides(settings)
    found = {override.key_or_group: override.value() for override in parsed}
    assert str(found["trainer.experiment_name"]) == name
    assert Path(found["trainer.default_local_dir"]) == Path("runs") / name / "steps"
