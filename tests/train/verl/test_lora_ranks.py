"""Adapters on two ranks as on GPUs: a base in bf16, adapters in float32, weights from rank 0."""

from types import SimpleNamespace

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoConfig, AutoProcessor
from verl.utils.fsdp_utils import apply_fsdp2, fsdp2_load_full_state_dict

from rilbench.paths import locate
from rilbench.train.verl.lora import adapters_of, base_name, is_adapter
from rilbench.train.verl.workers import CpuPolicyEngine, DiscriminatorEngine

STUDENT = str(locate("nano:internvl"))
RANK, ALPHA = 4, 8


def built(kind, rank):
    """An engine with its adapted module on one of several ranks, before it is sharded."""
    engine = kind.__new__(kind)
    engine.engine_config = SimpleNamespace(
        model_dtype="fp32", forward_only=False, seed=3, mixed_precision=None
    )
    engine.device_mesh = SimpleNamespace(get_coordinate=lambda: (rank,))
    engine.use_remove_padding, engine.ulysses_sequence_parallel_size = False, 1
    engine._is_lora = True
    engine.model_config = SimpleNamespace(
        local_path=STUDENT,
        processor=AutoProcessor.from_pretrained(STUDENT),
        hf_config=AutoConfig.from_pretrained(STUDENT, attn_implementation="sdpa"),
        model_type="language_model",
        enable_gradient_checkpointing=True,
        trust_remote_code=False,
        use_liger=False,
        fused_kernel_options=None,
        use_fused_kernels=False,
        lora_rank=RANK,
        lora_alpha=ALPHA,
        target_modules="all-linear",
    )
    engine.module = engine._build_lora_module(engine._build_module())
    return engine


def trained_by_a_rank(rank, ranks, place):
    """What one rank does: shard and load as verl's engine, then two steps on its own rows."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{place}/group", rank=rank, world_size=ranks
    )
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    found = {}
    for name, kind in (("policy", CpuPolicyEngine), ("discriminator", DiscriminatorEngine)):
        engine = built(kind, rank)
        found[f"{name} devices"] = {p.device.type for p in engine.module.parameters()}
        found[f"{name} frequencies"] = {
            buffer.dtype for key, buffer in engine.module.named_buffers() if "inv_freq" in key
        }
        whole = engine.module.state_dict()
        if rank == 0:
            found[f"{name} built"] = {key: weight.clone() for key, weight in whole.items()}
        apply_fsdp2(engine.module, {"mesh": mesh, "mp_policy": precision}, {})
        fsdp2_load_full_state_dict(engine.module, whole, mesh, None)
        found[f"{name} before"] = full(engine)
        optimizer = torch.optim.AdamW(engine.module.parameters(), lr=0.01, weight_decay=0)
        for step in range(2):
            with torch.no_grad(), engine.disable_adapter():  # as for the reference
                said(engine, torch.arange(8, 24))
            said(
                engine, torch.arange(8 + rank + step, 40 + rank + step)
            ).float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        found[f"{name} after"] = full(engine)
        if kind is CpuPolicyEngine:
            sent, _ = engine.get_per_tensor_param(base_sync_done=True)
            found["sent"] = {key: weight.detach().clone() for key, weight in sent}
    torch.save(found, place / f"rank_{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def said(engine, ids):
    """The module's output for one row of text."""
    positions = torch.arange(len(ids))
    return engine.module(input_ids=ids[None], position_ids=positions[None]).logits


def full(engine):
    """An engine's weights, whole."""
    state = engine.module.state_dict()
    return {name: weight.full_tensor().clone() for name, weight in state.items()}


def test_two_ranks_train_one_adapter(tmp_path):
    torch.multiprocessing.start_processes(trained_by_a_rank, (2, tmp_path), 2, start_method="fork")
    one, other = (torch.load(tmp_path / f"rank_{rank}.pt") for rank in range(2))
    assert other["discriminator devices"] == {"meta"}, "only rank 0 loads weights"
    for name in ("policy", "discriminator"):
        assert one[f"{name} frequencies"] == {torch.float32}, "positions need more than bf16"
        before, after = one[f"{name} before"], one[f"{name} after"]
        for key, weight in one[f"{name} built"].items():
            assert torch.equal(before[key], weight), key
        for key, weight in after.items():
            trains = is_adapter(key) or key.endswith("score.weight")
            assert weight.dtype == (torch.float32 if trains else torch.bfloat16), key
            of_pictures = "vision_tower" in key or "multi_modal_projector" in key
            moves = trains and not of_pictures  # there are none
            assert torch.equal(weight, before[key]) is not moves, key
            assert torch.equal(weight, other[f"{name} after"][key]), key
    after = one["policy after"]
    adapters = adapters_of(after)
    for key, weight in after.items():
        if is_adapter(key):
            continue
        expected = weight
        if base_name(key) in adapters:
            a, b = (after[part] for part in adapters[base_name(key)])
            expected = (weight.float() + ALPHA / RANK * b @ a).to(torch.bfloat16)
        assert torch.equal(one["sent"][base_name(key)], expected), key
        assert torch.equal(other["sent"][base_name(key)], expected), key
