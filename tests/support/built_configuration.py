"""Builds what the GPU recipes of the paper's students name, tiny and on a CPU: ``… OUT STUDENT…``.

verl's configuration is that of ``recipes/hardware/1x8-80gb.yaml``: flash_attention_2 in the vision
tower, each prompt once, bf16 compute over float32 weights, gradient checkpointing, entropy in
pieces. The models have the student's layout, ties and ratio of heads, and random weights. Left out:
torch.compile, vLLM, NCCL.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import torch
from gpu_attention import pretend_gpu
from minimal_parity import verl_gradient
from omegaconf import open_dict
from packed_update import discriminator_gradient, discriminator_worker
from policy_rows import configuration, make_rows
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from verl.utils.config import omega_conf_to_dataclass

from rilbench.paths import locate
from rilbench.resources import resource
from rilbench.train.verl.config import validate
from rilbench.train.verl.workers import PolicyWorker

HEAD = 16


def write_tiny(student, out):
    """A student's layout with the nano model's widths, and the nano model's processor."""
    real = json.loads(resource(f"recipes/models/{student}.json").read_text())["config"]
    nano = locate("nano:internvl" if real["model_type"] == "internvl" else "nano:restyled")
    config = AutoConfig.from_pretrained(nano)
    text = config.text_config
    text.num_key_value_heads = 2
    text.num_attention_heads = (
        2 * real["text_config"]["num_attention_heads"] // real["text_config"]["num_key_value_heads"]
    )
    text.hidden_size = HEAD * text.num_attention_heads
    if "mrope_section" in text.rope_parameters:
        text.rope_parameters["mrope_section"] = [2, 3, 3]
        config.vision_config.out_hidden_size = text.hidden_size
    config.tie_word_embeddings = text.tie_word_embeddings = real["tie_word_embeddings"]
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(out)
    AutoProcessor.from_pretrained(nano).save_pretrained(out)
    return real


def build(student):
    """Build everything, compute one update of policy and discriminator, and say what was built."""
    real = write_tiny(student, Path("model"))
    config, questions = configuration(Path("model").resolve(), "ril", student)
    validate(config)
    parts = config.actor_rollout_ref
    built = [parts.actor, parts.rollout, parts.model, config.critic, config.algorithm]
    found = {"classes": sorted(type(omega_conf_to_dataclass(part)).__name__ for part in built)}
    with open_dict(config):
        for fsdp in (parts.actor.fsdp_config, parts.ref.fsdp_config, config.critic.fsdp):
            fsdp.use_torch_compile = False
    worker, frozen = (PolicyWorker(parts, role) for role in ("actor", "ref"))
    worker.init_model()
    frozen.init_model()
    judge = discriminator_worker(config)
    policy, reference = worker.actor.engine, frozen.ref.engine
    texts = [f"{q.answer}{' 7' * i}" for i, q in enumerate(questions)]
    rows = asyncio.run(make_rows(config, list(zip(questions, texts, strict=True)), blank=False))
    advantages = torch.linspace(-1, 1, len(rows))
    log_probs = [torch.full((len(row[0].response_ids),), -6.0) for row in rows]
    pad = worker.actor.model_config.tokenizer.pad_token_id
    is_student = torch.arange(len(rows)) % 2 == 0
    loss, gradients = verl_gradient(worker, rows, advantages, is_student, log_probs, pad)
    logits, discriminator_gradients = discriminator_gradient(judge, texts, pad)
    found |= {
        "tied": real["tie_word_embeddings"],
        "attention": [
            engine.parts(engine.module)[0].config._attn_implementation
            for engine in (policy, reference, judge.engine)
        ],
        "vision": [
            engine.module.config.vision_config._attn_implementation
            for engine in (policy, reference)
        ],
        "checkpointing": [m.module.is_gradient_checkpointing for m in (policy, judge.engine)],
        "packed by verl": [e.use_remove_padding for e in (policy, reference, judge.engine)],
        "compute": str(policy._autocast_dtype),
        "weights": sorted({str(p.dtype) for p in policy.module.parameters()}),
        "entropy": policy.compute_entropy_from_logits.__name__,
        "loss": float(loss["policy_loss"]),
        "logits": logits.float().tolist(),
        "gradients": [
            all(bool(g.isfinite().all()) for g in found.values()) and len(found) > 10
            for found in (gradients, discriminator_gradients)
        ],
    }
    return found


def main(out, students):
    """Students of one layout, each in a folder of its own; verl keeps a tokenizer for a process."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    pretend_gpu(cast=True)
    place, found = Path.cwd(), {}
    for student in students:
        folder = place / student
        folder.mkdir()
        (folder / "questions.parquet").symlink_to(place / "questions.parquet")
        os.chdir(folder)
        found[student] = build(student)
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
