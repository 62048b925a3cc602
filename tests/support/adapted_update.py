"""A few updates of a policy and a discriminator with LoRA by verl's engines: ``… MODEL OUT MODE``.

As the trainer does it: the reference's log-probabilities, then an update, and again. Writes what
the tests compare, and the policy's saved step into the folder ``actor``. A process of its own,
because verl replaces methods of transformers' classes.
"""

import asyncio
import os
import sys
from pathlib import Path

import torch
from minimal_parity import verl_gradient
from packed_update import discriminator_gradient, discriminator_worker, set_mode
from policy_rows import configuration, log_probs, make_rows
from verl.utils import tensordict_utils as tu

from rilbench.train.verl.workers import PolicyWorker

SETTINGS = ("policy.lora_rank=4", "policy.lora_alpha=8", "policy.lr=0.01", "seed=5")
UPDATES = 3


class WithoutAdapter:
    """A policy whose batches ask for the base alone, as the trainer's do for the reference."""

    def __init__(self, worker):
        self.actor = self
        self.worker = worker

    def infer_batch(self, batch):
        tu.assign_non_tensor(batch, no_lora_adapter=True)
        return self.worker.actor.infer_batch(batch)


def built(config):
    """The policy's worker."""
    worker = PolicyWorker(config.actor_rollout_ref, "actor")
    worker.init_model()
    return worker


def sent(worker):
    """What the rollout engine gets."""
    weights, config = worker.actor.engine.get_per_tensor_param(base_sync_done=True)
    assert config is None, "the rollout engine would expect an adapter"
    return {name: weight.detach().clone() for name, weight in weights}


def state(worker):
    """The engine's weights, whole."""
    weights = worker.actor.engine.module.state_dict()
    return {name: weight.full_tensor().clone() for name, weight in weights.items()}


def main(model, out, mode):
    """Write what policy and discriminator are before, between and after the updates."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    config, questions = configuration(model, "ril", more=SETTINGS)
    set_mode(config, mode)
    worker = built(config)
    engine = worker.actor.engine
    pad = worker.actor.model_config.tokenizer.pad_token_id
    asked = [question for question in questions for _ in range(3)]
    texts = [f"{q.answer}{' 7' * i}" for i, q in enumerate(asked)]
    rows = asyncio.run(make_rows(config, list(zip(asked, texts, strict=True)), blank=False))
    if mode.startswith("shared"):
        rows = [(*row, pictures if i % 3 == 0 else {}) for i, (*row, pictures) in enumerate(rows)]
    advantages = torch.linspace(-1, 1, len(rows))
    is_student = torch.arange(len(rows)) % 2 == 0

    def update(worker, ref):
        return verl_gradient(worker, rows, advantages, is_student, ref, pad, update=True)

    found = {"sent_before": sent(worker), "reference": [], "policy": [], "trained": []}
    for _ in range(UPDATES):
        found["reference"].append(log_probs(WithoutAdapter(worker), rows, pad))
        found["policy"].append(log_probs(worker, rows, pad))
        ref = [torch.tensor(values) for values in found["reference"][-1]]
        losses, gradients = update(worker, ref)
        found.setdefault("kl", []).append(losses["kl"])
        found["trained"].append(sorted(gradients))
    found["reference"].append(log_probs(WithoutAdapter(worker), rows, pad))
    found["policy"].append(log_probs(worker, rows, pad))
    found["state"], found["sent_after"] = state(worker), sent(worker)
    found["moments"] = len(engine.optimizer.state)
    worker.save_checkpoint(str(Path("actor").resolve()), global_step=1)

    other = built(config)
    other.load_checkpoint(str(Path("actor").resolve()))
    found["loaded"] = state(other)
    for each in (worker, other):  # one more of both
        update(each, ref)
    found["next"], found["next_loaded"] = state(worker), state(other)

    judge = discriminator_worker(config)
    before = {n: p.full_tensor().clone() for n, p in judge.engine.module.state_dict().items()}
    found["logits"], gradients = discriminator_gradient(judge, texts, pad, update=True)
    found["discriminator_trained"] = sorted(gradients)
    after = {n: p.full_tensor() for n, p in judge.engine.module.state_dict().items()}
    found["discriminator_changed"] = sorted(n for n in after if not after[n].equal(before[n]))
    judge.save_checkpoint(str(Path("critic").resolve()), global_step=1)
    again = discriminator_worker(config)
    again.load_checkpoint(str(Path("critic").resolve()))
    loaded = {n: p.full_tensor() for n, p in again.engine.module.state_dict().items()}
    found["discriminator_loads"] = all(loaded[n].equal(after[n]) for n in after)
    torch.save(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
