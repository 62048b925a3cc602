"""Every student × recipe × hardware × method of the paper's size: resolved, and verl's own checks.

In one process, on a machine without GPUs. A profile for one GPU and a large student is refused; see
`tests/plan`.
"""

import itertools
from pathlib import Path

import pytest

from rilbench.config import METHODS, known, load_recipe
from rilbench.errors import UserError
from rilbench.paths import nano_folder
from rilbench.train.verl.config import compose, overrides, validate
from rilbench.train.verl.sft_config import compose_sft

RUN = Path("runs/r")
MODEL = str(nano_folder() / "restyled")  # verl's dataclasses open a model's folder
STUDENTS = [name for name in known("students") if not name.startswith("nano")]
PROFILES = [name for name in known("hardware") if name != "cpu"]
LOOPS = [method for method in METHODS if method != "sft"]


def resolved(recipe, student, hardware, method, *more):
    more = [*more, "sft.steps=10"] if method == "sft" else [*more]
    if method == "opd":  # its teachers must be on the machine
        models = [f"teachers.models.{name}=nano:{name}" for name in ("72b", "78b")]
        more += ["hardware.teacher_devices=2", *models]
    return load_recipe(recipe, student, method, more, hardware)


def test_every_combination_resolves_and_its_rows_divide():
    combinations = list(itertools.product(known("recipes"), STUDENTS, PROFILES, METHODS))
    assert len(combinations) == 3 * 5 * 8 * len(METHODS)
    for recipe, student, hardware, method in combinations:
        built = resolved(recipe, student, hardware, method)
        assert built.student.name == student
        assert built.hardware.profile == hardware
        if built.method_spec.is_rl:
            assert built.responses_per_step == 288, "the paper's 36 questions of 4 + 4 rows"
            assert built.responses_per_step % built.hardware.ranks == 0
            overrides(built, RUN, MODEL, resume_from=None)


@pytest.mark.parametrize("hardware", PROFILES)
def test_verl_accepts_every_combination(hardware):
    """Composed once for each different text: the students and teachers share most.

    Without a discriminator on the first profile alone: that is no matter of the hardware.
    """
    seen = set()
    methods = LOOPS if hardware == PROFILES[0] else ("ril", "imitation")
    for recipe, student, method in itertools.product(known("recipes"), STUDENTS, methods):
        built = resolved(recipe, student, hardware, method)
        text = tuple(overrides(built, RUN, MODEL, resume_from=None))
        if text in seen:
            continue
        seen.add(text)
        config = compose(built, RUN, MODEL, resume_from=None)
        validate(config)
        actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
        assert (
            actor.ppo_max_token_len_per_gpu
            == built.policy.micro_batch_tokens
            >= built.max_sequence_tokens
        )
        assert rollout.log_prob_use_dynamic_bsz is actor.use_dynamic_bsz is True
        assert rollout.gpu_memory_utilization == built.hardware.rollout_memory
    # With a discriminator, without one, with teachers that are served.
    assert len(seen) == (3 if methods is LOOPS else 1), "students differ in their folder only"


@pytest.mark.parametrize("hardware", PROFILES)
def test_verls_dataclasses_accept_the_sft_stage(hardware):
    from verl.utils.config import omega_conf_to_dataclass

    built = resolved("both", "qwen2.5-vl-7b", hardware, "sft")
    config = compose_sft(built, RUN, MODEL)
    assert config.data.use_dynamic_bsz is True
    assert config.data.max_token_len_per_gpu >= config.data.max_length
    engine = omega_conf_to_dataclass(config.engine)
    assert engine.param_offload == (built.hardware.offload == "idle")
    omega_conf_to_dataclass(config.optim)


def test_offload_reaches_verl():
    for offload, expected in (("none", (0, 0)), ("idle", (1, 0)), ("always", (0, 1))):
        built = load_recipe(
            "both", hardware="1-gpu-80gb", overrides=[f"hardware.offload={offload}"]
        )
        config = compose(built, RUN, MODEL, resume_from=None)
        for engine in (config.actor_rollout_ref.actor.fsdp_config, config.critic.fsdp):
            assert (engine.param_offload, engine.offload_policy) == expected
            assert engine.optimizer_offload == engine.param_offload
        assert (
            config.critic.ppo_infer_max_token_len_per_gpu == built.discriminator.micro_batch_tokens
        )
        validate(config)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["teachers.mix=each"], "e.g. to 32"),
        (["method=grpo", "num_samples=4"], "e.g. to 32"),
        (["schedule.prompts_per_step=30"], "e.g. to 32"),
    ],
)
def test_rows_that_do_not_divide_are_refused_with_a_number_that_does(more, words):
    built = load_recipe("both", hardware="4x8-80gb", overrides=more)
    with pytest.raises(UserError, match=words):
        overrides(built, RUN, MODEL, resume_from=None)
    number = words.rsplit(" ", 1)[1]
    built = load_recipe(
        "both", hardware="4x8-80gb", overrides=[*more, f"schedule.prompts_per_step={number}"]
    )
    overrides(built, RUN, MODEL, resume_from=None)


def test_verls_refusal_is_a_users_error():
    config = compose(load_recipe("both"), RUN, MODEL, resume_from=None)
    config.actor_rollout_ref.actor.loss_agg_mode = "median"
    with pytest.raises(UserError, match="verl refuses the recipe: Invalid loss_agg_mode: median"):
        validate(config)


def test_lora_reaches_verl():
    lora = [
        "policy.lora_rank=16",
        "policy.lora_targets=[q_proj,v_proj]",
        "discriminator.lora_rank=4",
    ]
    built = load_recipe("both", "qwen2.5-vl-3b", overrides=lora, hardware="1-gpu-24gb")
    config = compose(built, RUN, MODEL, resume_from=None)
    validate(config)
    policy, critic = config.actor_rollout_ref, config.critic
    assert (policy.model.lora_rank, critic.model.lora_rank) == (16, 4)
    assert list(policy.model.target_modules) == list(critic.model.target_modules)
    assert list(policy.model.target_modules) == ["q_proj", "v_proj"]
    # vLLM starts without adapters and gets merged weights.
    assert policy.model.lora.merge is True
    assert policy.actor.checkpoint.save_lora_only is True
    assert not critic.get("checkpoint", {}).get("save_lora_only"), "its head is no adapter"
    sft = compose_sft(
        load_recipe("both", "qwen2.5-vl-3b", "sft", [*lora[:2], "sft.steps=9"]), RUN, MODEL
    )
    assert sft.model.lora_rank == 16
    # The engine casts the base's parameters; verl would round its buffers as well.
    for engine in (policy.actor.fsdp_config, critic.fsdp, sft.engine):
        assert engine.model_dtype == "fp32"
    assert sft.checkpoint.save_lora_only is True
    full = compose(load_recipe("both"), RUN, MODEL, resume_from=None)
    assert full.actor_rollout_ref.model.lora_rank == full.critic.model.lora_rank == 0
    assert full.actor_rollout_ref.actor.fsdp_config.model_dtype == "fp32"
