"""Recipe → verl's configuration. The only place that knows verl's keys.

Sources: verl 0.9.1's ``verl/trainer/config``. Hydra composes it, so verl's own validation runs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rilbench.config import Recipe
from rilbench.errors import UserError
from rilbench.train.step_config import StepConfig
from rilbench.train.verl.ray_devices import ray_cpus, storage_units
from rilbench.train.verl.teacher_config import distillation, name_teachers

FP32 = "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}"
"""Mixed precision that is none: verl computes in bf16 by default, even where weights are fp32."""

LAYOUTS = "pkg://rilbench.train.verl.model_families"
STUDENT_MODEL = "rilbench.train.verl.model_families.StudentModel"
SHARED_PROMPT_MODEL = "rilbench.train.verl.model_families.SharedPromptModel"
"""Our classes in the place of verl's, for students whose processor verl does not know."""

DATASETS_CACHE = "datasets-cache"
"""Folder beside ``data/train.parquet`` for what ``datasets`` writes of it while verl runs."""

OBJECT_STORE_BYTES = 500_000_000
"""Ray's shared memory on a CPU; its default is a third of the machine's."""


def overrides(recipe: Recipe, run_dir: Path, model: str, *, resume_from: Path | None) -> list[str]:
    """verl's settings for a recipe, as Hydra overrides."""
    rows = recipe.num_student_responses + recipe.num_teacher_responses
    cpu = recipe.hardware.device == "cpu"
    settings: dict[str, Any] = {
        **_data(recipe, run_dir),
        **_policy(recipe, model, rows),
        **_rollout(recipe, run_dir, rows),
        **_memory(recipe),
        "algorithm.adv_estimator": "grpo",
        "algorithm.rollout_correction.bypass_mode": False,  # teacher rows have no rollout log-probs
        "trainer.nnodes": recipe.hardware.nodes,
        "trainer.n_gpus_per_node": recipe.hardware.devices,
        "trainer.device": recipe.hardware.device,
        "trainer.total_training_steps": recipe.schedule.steps,
        "trainer.total_epochs": 1_000_000,  # steps decide
        # A saved step was scored when it was made, if it was due.
        "trainer.val_before_train": recipe.schedule.eval_every > 0 and not resume_from,
        "trainer.test_freq": recipe.schedule.eval_every or -1,
        "trainer.save_freq": recipe.schedule.save_every,
        "trainer.default_local_dir": run_dir / "steps",
        "trainer.resume_mode": "resume_path" if resume_from else "disable",
        "trainer.project_name": "rilbench",
        "trainer.experiment_name": Path(run_dir.name),
        "trainer.log_val_generations": 8,  # of the dev split, to trackers
        "reward.num_workers": 0,  # the agent loop asks the judge itself
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": storage_units(recipe),
        "critic.enable": recipe.method_spec.uses_discriminator,
    }
    if recipe.method_spec.uses_discriminator:
        settings |= _discriminator(recipe, model)
    if resume_from:
        settings["trainer.resume_from_path"] = resume_from
    if recipe.method_spec.uses_teacher_log_probs:
        settings |= distillation(recipe)
    if recipe.policy.freeze:
        settings["+actor_rollout_ref.frozen"] = recipe.policy.freeze
    # Logical: actors, not cores.
    settings["ray_kwargs.ray_init.num_cpus"] = max(os.cpu_count() or 1, 16, ray_cpus(recipe))
    if cpu:
        settings |= _cpu(recipe, recipe.method_spec.uses_discriminator)
    if recipe.hardware.ray_address:
        # What there is was decided where that cluster was started.
        settings = {key: v for key, v in settings.items() if "ray_kwargs." not in key}
        settings["+ray_kwargs.ray_init.address"] = Path(recipe.hardware.ray_address)
    return as_overrides(settings)


def picture_file(run_dir: Path) -> Path:
    """The run's pictures, each of them once."""
    return run_dir / "data" / "pictures.arrow"


def _data(recipe: Recipe, run_dir: Path) -> dict[str, Any]:
    return {
        "data.train_files": run_dir / "data" / "train.parquet",
        "data.val_files": run_dir / "data" / "dev.parquet",
        "data.image_key": "images",
        "data.custom_cls.path": LAYOUTS,
        "data.custom_cls.name": "RLDataset",
        "+data.picture_file": picture_file(run_dir),
        "data.train_batch_size": recipe.schedule.prompts_per_step,
        "data.max_prompt_length": recipe.data.max_prompt_tokens,
        "data.max_response_length": recipe.data.max_response_tokens,
        "data.dataloader_num_workers": 0,
        "data.filter_overlong_prompts_workers": 1,
        "data.seed": recipe.seed,
        "data.shuffle": True,
        "data.validation_shuffle": False,
    }


def micro_batch(wanted: int, *batches: int) -> int:
    """The largest micro-batch up to ``wanted`` rows that divides every batch, as verl asks."""
    common = math.gcd(*batches)
    return max(size for size in range(1, min(wanted, common) + 1) if common % size == 0)


def _rows_per_rank(recipe: Recipe) -> int:
    """StepBatch of one optimiser step on one rank."""
    rows = recipe.num_student_responses + recipe.num_teacher_responses
    questions = recipe.schedule.prompts_per_step // recipe.policy.mini_batches
    ranks = recipe.hardware.ranks
    if questions * rows % ranks:
        near = ranks // math.gcd(rows, ranks)  # questions whose rows divide
        near *= max(1, round(questions / near)) * recipe.policy.mini_batches
        raise UserError(
            f"{questions * rows} rows of one update do not divide among {ranks} devices; "
            f"change schedule.prompts_per_step, e.g. to {near}"
        )
    return questions * rows // ranks


def _policy(recipe: Recipe, model: str, rows: int) -> dict[str, Any]:
    actor, ref = "actor_rollout_ref.actor", "actor_rollout_ref.ref"
    micro = micro_batch(recipe.policy.micro_batch_size, _rows_per_rank(recipe))
    return {
        "actor_rollout_ref.model._target_": STUDENT_MODEL,
        "actor_rollout_ref.model.path": Path(model),
        "actor_rollout_ref.model.trust_remote_code": False,
        f"{actor}.strategy": "fsdp2",
        f"{actor}.ppo_epochs": recipe.policy.mu,
        f"{actor}.ppo_mini_batch_size": recipe.schedule.prompts_per_step
        // recipe.policy.mini_batches,
        f"{actor}.ppo_micro_batch_size_per_gpu": micro,
        f"{actor}.shuffle": False,
        f"{actor}.use_kl_loss": recipe.uses_reference,
        f"{actor}.kl_loss_coef": recipe.policy.kl_coef,
        f"{actor}.clip_ratio": recipe.policy.clip_eps,
        f"{actor}.optim.lr": recipe.policy.lr,
        f"{actor}.optim.weight_decay": recipe.policy.weight_decay,
        f"{actor}.calculate_entropy": True,  # measured, not part of the loss
        # … without keeping what only its gradient would need.
        f"{actor}.fsdp_config.entropy_checkpointing": True,
        f"{actor}.checkpoint.save_contents": "[model,optimizer,extra]",
        f"{actor}.data_loader_seed": recipe.seed,
        **lora(recipe, recipe.policy.lora_rank, "actor_rollout_ref.model", f"{actor}.fsdp_config"),
        **adapter_files(recipe, f"{actor}.checkpoint"),
        f"{ref}.log_prob_micro_batch_size_per_gpu": micro,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": micro,
    }


def _rollout(recipe: Recipe, run_dir: Path, rows: int) -> dict[str, Any]:
    rollout = "actor_rollout_ref.rollout"
    cpu = recipe.hardware.device == "cpu"
    return {
        f"{rollout}.name": _engine(recipe),
        f"{rollout}.n": rows,
        f"{rollout}.temperature": recipe.sampling.temperature,
        f"{rollout}.top_p": recipe.sampling.top_p,
        f"{rollout}.top_k": recipe.sampling.top_k,
        f"{rollout}.calculate_log_probs": False,
        f"{rollout}.tensor_model_parallel_size": recipe.hardware.rollout_tensor_parallel,
        f"{rollout}.gpu_memory_utilization": recipe.hardware.rollout_memory,
        f"{rollout}.max_model_len": recipe.max_sequence_tokens,
        f"{rollout}.val_kwargs.n": 1,
        f"{rollout}.val_kwargs.temperature": 0,
        f"{rollout}.val_kwargs.do_sample": False,
        f"{rollout}.agent.num_workers": 1 if cpu else 8,
        f"{rollout}.agent.default_agent_loop": "ril",
        f"{rollout}.agent.agent_loop_config_path": run_dir / "data" / "agent_loop.yaml",
        f"{rollout}.router_config_path": Path(__file__).with_name("load_balancer.yaml"),
    }


def _engine(recipe: Recipe) -> str:
    if recipe.hardware.device != "cpu":
        return "vllm"
    return "vllm_cpu" if recipe.hardware.rollout_engine == "vllm" else "transformers"


def _discriminator(recipe: Recipe, model: str) -> dict[str, Any]:
    ranks = recipe.hardware.ranks
    step = _rows_per_rank(recipe) * recipe.policy.mini_batches
    first = 2 * (recipe.discriminator.pretrain_batch_size // 2)
    if first % ranks:
        raise UserError(
            f"discriminator.pretrain_batch_size={first} do not divide among {ranks} devices"
        )
    micro = micro_batch(recipe.discriminator.micro_batch_size, step, first // ranks)
    tokens = recipe.discriminator.micro_batch_tokens
    return {
        "critic.strategy": "fsdp2",
        "critic.model._target_": STUDENT_MODEL,
        "critic.model.path": Path(model),
        "critic.model.trust_remote_code": False,
        "critic.optim.lr": recipe.discriminator.lr,
        "critic.ppo_mini_batch_size": recipe.schedule.prompts_per_step,
        "critic.ppo_micro_batch_size_per_gpu": micro,
        "critic.forward_micro_batch_size_per_gpu": micro,
        "critic.use_dynamic_bsz": tokens > 0,
        **engine_memory(recipe, "critic.fsdp", "critic.model"),
        **lora(recipe, recipe.discriminator_lora_rank, "critic.model", "critic.fsdp"),
        **_share_prompts(recipe, "critic.model"),
        # verl's trainer passes on this alone, for training too, and cuts by tokens in any case.
        "+critic.ppo_infer_max_token_len_per_gpu": tokens
        or recipe.discriminator.micro_batch_size * recipe.max_discriminator_tokens,
        **_by_tokens(
            tokens, "critic.ppo_max_token_len_per_gpu", "critic.forward_max_token_len_per_gpu"
        ),
    }


def _memory(recipe: Recipe) -> dict[str, Any]:
    """How policy, reference and sampling fit on a device."""
    actor, tokens = "actor_rollout_ref.actor", recipe.policy.micro_batch_tokens
    settings: dict[str, Any] = {
        f"{actor}.use_dynamic_bsz": tokens > 0,  # reference and rollout follow it
        **_by_tokens(tokens, f"{actor}.ppo_max_token_len_per_gpu"),
        **engine_memory(recipe, f"{actor}.fsdp_config", "actor_rollout_ref.model"),
    }
    if recipe.hardware.device == "cuda":
        # The entropy is only measured: in pieces, or it would need more than the logits do. It is
        # all that verl compiles, again for each number of tokens until torch gives it up.
        settings[f"{actor}.fsdp_config.entropy_from_logits_with_chunking"] = True
        settings[f"{actor}.fsdp_config.use_torch_compile"] = False
    return settings | _share_prompts(recipe, "actor_rollout_ref.model")


def _share_prompts(recipe: Recipe, model: str) -> dict[str, Any]:
    """It packs rows itself; verl's packing replaces the attention of Qwen2.5-VL."""
    share = recipe.hardware.share_prompts
    return {
        f"{model}._target_": SHARED_PROMPT_MODEL if share else STUDENT_MODEL,
        f"{model}.use_remove_padding": recipe.hardware.remove_padding and not share,
    }


def _by_tokens(tokens: int, *keys: str) -> dict[str, Any]:
    return dict.fromkeys(keys, tokens) if tokens else {}


def engine_memory(recipe: Recipe, fsdp: str, model: str) -> dict[str, Any]:
    """Offload, packing and attention of one trained model."""
    hardware = recipe.hardware
    return {
        # On GPUs flash-attn, or `rilbench.train.verl.flash_attention` in its place.
        f"+{model}.override_config.attn_implementation": (
            "sdpa" if hardware.device == "cpu" else "flash_attention_2"
        ),
        f"{fsdp}.param_offload": hardware.offload == "idle",
        f"{fsdp}.optimizer_offload": hardware.offload == "idle",
        f"{fsdp}.offload_policy": hardware.offload == "always",
        f"{model}.enable_gradient_checkpointing": hardware.gradient_checkpointing,
        f"{model}.use_remove_padding": hardware.remove_padding,
    }


def lora(recipe: Recipe, rank: int, model: str, fsdp: str) -> dict[str, Any]:
    """The adapter of one trained model; none with rank 0."""
    if not rank:
        return {}
    targets, policy = recipe.policy.lora_targets, recipe.policy
    return {
        f"{model}.lora_rank": rank,
        f"{model}.lora_alpha": policy.lora_alpha,
        f"{model}.target_modules": targets[0] if len(targets) == 1 else f"[{','.join(targets)}]",
        f"{model}.lora.merge": True,  # the rollout engine gets merged weights
        f"{fsdp}.seed": recipe.seed,
    }


def adapter_files(recipe: Recipe, checkpoint: str) -> dict[str, Any]:
    """What a step of an adapted policy saves: not the base, which is on the disk."""
    return {f"+{checkpoint}.save_lora_only": True} if recipe.policy.lora_rank else {}


def _cpu(recipe: Recipe, discriminator: bool) -> dict[str, Any]:
    """What a CPU lacks (compilation, half precision) or needs less of."""
    settings: dict[str, Any] = {
        "actor_rollout_ref.rollout.free_cache_engine": False,
        "+actor_rollout_ref.rollout.enable_sleep_mode": False,
        "actor_rollout_ref.rollout.enforce_eager": True,
        "actor_rollout_ref.rollout.dtype": "float32",
        # Each rank's server waits for this many, so that batches are the same in every run.
        "actor_rollout_ref.rollout.max_num_seqs": math.ceil(
            recipe.schedule.prompts_per_step * recipe.num_student_responses / recipe.hardware.ranks
        ),
        "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes": 16,
        "+ray_kwargs.ray_init.num_gpus": recipe.hardware.devices
        + recipe.method_spec.uses_teacher_log_probs * len(recipe.teachers.names),
        "+ray_kwargs.ray_init.include_dashboard": False,
        "+ray_kwargs.ray_init.object_store_memory": OBJECT_STORE_BYTES,
    }
    actor, ref = "actor_rollout_ref.actor", "actor_rollout_ref.ref"
    engines = [f"{actor}.fsdp_config", f"{ref}.fsdp_config"]
    settings |= {f"{actor}.use_torch_compile": False, f"{ref}.use_torch_compile": False}
    if discriminator:
        engines.append("critic.fsdp")
    for fsdp in engines:
        settings[f"{fsdp}.model_dtype"] = "fp32"
        settings[f"{fsdp}.use_torch_compile"] = False
        settings[f"+{fsdp}.mixed_precision"] = FP32
    return settings


def compose(recipe: Recipe, run_dir: Path, model: str, **options: Any) -> Any:
    """Compose and validate verl's configuration, with the recipe's own part under ``ril``.

    Raises:
        UserError: verl refuses the settings.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_module("verl.trainer.config", version_base=None):
        try:
            config = hydra_compose("ppo_trainer", overrides(recipe, run_dir, model, **options))
        except (HydraException, OmegaConfBaseException) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"verl refuses the recipe: {reason}") from error
    if recipe.method_spec.uses_teacher_log_probs:
        name_teachers(config, recipe)
    with open_dict(config):
        config.ril = OmegaConf.create(StepConfig.from_recipe(recipe, run_dir).as_dict())
    return config


def validate(config: Any) -> None:
    """verl's own checks of a composed configuration, and its dataclasses built from it.

    Raises:
        UserError: verl refuses the settings.
    """
    import contextlib
    import io

    from hydra.errors import HydraException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    critic = need_critic(config)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # verl prints that all is well
            validate_config(
                config=config,
                use_reference_policy=need_reference_policy(config),
                use_critic=critic,
            )
        # The actor's and the discriminator's were built by it.
        policy = config.actor_rollout_ref
        for part in (policy.model, policy.rollout, config.algorithm):
            omega_conf_to_dataclass(part)
    except (HydraException, AssertionError, ValueError, TypeError, NotImplementedError) as error:
        cause = error.__cause__ or error  # Hydra's own text begins with a class of verl's
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise UserError(f"verl refuses the recipe: {reason}") from error


def agent_loop_part(
    recipe: Recipe,
    run_dir: Path,
    judge_urls: Sequence[str],
    judge_model: str,
    judge_cache: Path | None,
    *,
    full_length: bool = False,
) -> list[dict[str, Any]]:
    """verl's agent loop file: our group of sampled and saved responses, and who judges them.

    ``judge_cache`` keeps the verdicts; None where asking again costs nothing. ``full_length`` is
    for a rehearsal: every response is as long as it may be.
    """
    step = StepConfig.from_recipe(recipe, run_dir, judge_urls, judge_model, judge_cache)
    step = replace(step, full_length=full_length)
    return [
        {"name": "ril", "_target_": "rilbench.train.rollout.RILAgentLoop", "ril": step.as_dict()}
    ]


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as Hydra reads them on a command line."""
    return [f"{key}={_text(value)}" for key, value in settings.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, Path):  # a name of the user's, which Hydra must not read
        escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
