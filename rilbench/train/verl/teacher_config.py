"""verl's configuration of the servers that score samples in on-policy distillation."""

from __future__ import annotations

from typing import Any

from rilbench.config import Recipe
from rilbench.paths import locate
from rilbench.plan.fit import SCORING_SHARE


def distillation(recipe: Recipe) -> dict[str, Any]:
    """verl's settings of its teacher servers; `name_teachers` adds the teachers."""
    return {
        "distillation.enabled": True,
        "distillation.nnodes": 1,
        "distillation.n_gpus_per_node": _teacher_devices(recipe),
        "distillation.distillation_loss.loss_mode": "k1",
        "distillation.distillation_loss.use_policy_gradient": True,
        "distillation.distillation_loss.use_task_rewards": False,
    }


def _teacher_devices(recipe: Recipe) -> int:
    """Devices of all teachers; on a CPU they are counted and no more."""
    if recipe.hardware.device == "cpu":
        return len(recipe.teachers.names)
    return recipe.hardware.teacher_devices


def name_teachers(config: Any, recipe: Recipe) -> None:
    """Give each teacher an entry in verl's configuration, and its share of the devices."""
    from omegaconf import OmegaConf, open_dict

    names = recipe.teachers.names
    with open_dict(config):
        models = config.distillation.teacher_models
        template = models.teacher_model
        for name in names:
            # verl drops this entry where there are several, and fills it where it is alone.
            entry = template if len(names) == 1 else template.copy()
            entry.key, entry.num_replicas = name, 1
            entry.model_path = str(locate(recipe.teachers.models[name], f"teachers.models.{name}"))
            entry.inference.tensor_model_parallel_size = _teacher_devices(recipe) // len(names)
            entry.inference.max_num_seqs = recipe.responses_per_step
            # vLLM would make room for one sequence of the model's own length, which may be 128k.
            entry.inference.max_model_len = recipe.max_sequence_tokens + 1
            entry.inference.gpu_memory_utilization = SCORING_SHARE
            if len(names) > 1:
                models[name] = OmegaConf.create(OmegaConf.to_container(entry, resolve=False))
