"""Log-probabilities, logits and gradients by verl's engines: ``… MODEL OUT MODE``.

``packed``: as verl's on GPUs, rows one after another through ``flash_attention_2``, which is the
adapter; ``padded``: as verl's on CPUs; ``shared`` and ``shared-checkpointed``: each prompt once.
The same rows with pictures, the discriminator on their text. A process of its own, because verl
replaces methods of transformers' classes.
"""

import asyncio
import os
import sys
from pathlib import Path

import torch
from gpu_attention import pretend_gpu
from minimal_parity import verl_gradient
from omegaconf import OmegaConf
from policy_rows import configuration, log_probs, make_rows
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import TrainingWorkerConfig

from rilbench.train.discriminator_trainer import discriminator_batch
from rilbench.train.losses import discriminator_loss_fn, last_logit
from rilbench.train.verl.config import SHARED_PROMPT_MODEL, STUDENT_MODEL
from rilbench.train.verl.workers import DiscriminatorWorker, PolicyWorker

ROWS_IN_A_MICRO_BATCH = 4


MODES = ("padded", "packed", "shared", "shared-checkpointed")


def set_mode(config, mode):
    """The values of `rilbench.train.verl.config` that differ between the modes."""
    for model in (config.actor_rollout_ref.model, config.critic.model):
        model._target_ = SHARED_PROMPT_MODEL if mode.startswith("shared") else STUDENT_MODEL
        model.enable_gradient_checkpointing = mode in ("packed", "shared-checkpointed")
    OmegaConf.resolve(config)


def as_on_a_gpu(config):
    """The values of `rilbench.train.verl.config` that differ between the devices."""
    for model in (config.actor_rollout_ref.model, config.critic.model):
        model.override_config.attn_implementation = "flash_attention_2"
        model.use_remove_padding = True
    OmegaConf.resolve(config)


def discriminator_worker(config):
    """The worker in verl's critic slot, as verl's trainer makes it."""
    critic = omega_conf_to_dataclass(config.critic)
    worker = DiscriminatorWorker(
        TrainingWorkerConfig(
            model_type="value_model",
            model_config=critic.model,
            engine_config=critic.engine,
            optimizer_config=critic.optim,
            checkpoint_config=critic.checkpoint,
        )
    )
    worker.reset()
    return worker


def discriminator_gradient(worker, texts, pad, *, update=False):
    """Logits of texts, and the gradients of Equation 1, after a step if ``update``."""
    engine = worker.engine
    batch = discriminator_batch(
        worker.model_config.tokenizer, texts, torch.arange(len(texts)) % 2 == 0
    )
    tu.assign_non_tensor(batch, temperature=1.0, compute_loss=True, pad_token_id=pad)
    tu.assign_non_tensor(batch, global_batch_size=len(texts), use_dynamic_bsz=False)
    tu.assign_non_tensor(batch, micro_batch_size_per_gpu=ROWS_IN_A_MICRO_BATCH)
    tu.assign_non_tensor(batch, use_remove_padding=engine.use_remove_padding)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(batch.clone(), discriminator_loss_fn, forward_only=False)
        gradients = gradients_of(engine)
        if update:
            engine.optimizer_step()
    tu.assign_non_tensor(batch, compute_loss=False)
    return last_logit(worker.infer_batch(batch)["values"]), gradients


def gradients_of(engine):
    """The gradients of an engine's model by name, whole."""
    return {
        name: (p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad).clone()
        for name, p in engine.module.named_parameters()
        if p.grad is not None
    }


def main(model, out, mode):
    """Write what the policy and the discriminator make of a few rows."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    assert mode in MODES
    config, questions = configuration(model, "ril")
    set_mode(config, mode)
    if mode == "packed":
        pretend_gpu()
        as_on_a_gpu(config)
    worker = PolicyWorker(config.actor_rollout_ref, "actor")
    worker.init_model()
    pad = worker.actor.model_config.tokenizer.pad_token_id
    asked = [question for question in questions for _ in range(3)]
    texts = [f"{q.answer}{' 7' * i}" for i, q in enumerate(asked)]
    rows = asyncio.run(make_rows(config, list(zip(asked, texts, strict=True)), blank=False))
    if mode.startswith("shared"):  # as `RolloutWorker` hands them on
        rows = [(*row, pictures if i % 3 == 0 else {}) for i, (*row, pictures) in enumerate(rows)]
    found = {"log_probs": log_probs(worker, rows, pad)}
    advantages = torch.linspace(-1, 1, len(rows))
    ref = [torch.full((len(r[0].response_ids),), -2.0) for r in rows]
    is_student = torch.arange(len(rows)) % 2 == 0
    found["policy"], found["policy_gradients"] = verl_gradient(
        worker, rows, advantages, is_student, ref, pad
    )
    judge = discriminator_worker(config)
    assert judge.engine.module.is_gradient_checkpointing == (mode in MODES[1::2])
    found["logits"], found["discriminator_gradients"] = discriminator_gradient(judge, texts, pad)
    for engine in (worker.actor.engine, judge.engine):
        decoder, _ = engine.parts(engine.module)
        attention = decoder.config._attn_implementation
        expected = {"packed": "flash_attention_2", "padded": "sdpa"}.get(mode, "shared_prompts")
        assert attention == expected, attention
    torch.save(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
