"""verl's builder makes the discriminator as it makes a policy: checkpointing, weights on rank 0."""

from types import SimpleNamespace

import pytest
import torch
from saved_memory import saved_by
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoConfig, AutoModelForImageTextToText
from verl.utils.fsdp_utils import apply_fsdp2, fsdp2_load_full_state_dict

from rilbench.paths import locate
from rilbench.train.verl.discriminator_model import load_discriminator
from rilbench.train.verl.workers import DiscriminatorEngine

STUDENT = str(locate("nano:restyled"))


def built(path=STUDENT, rank=0, checkpointing=True):
    """The module of an engine on one of several ranks."""
    engine = DiscriminatorEngine.__new__(DiscriminatorEngine)
    engine.engine_config = SimpleNamespace(model_dtype="fp32", forward_only=False)
    engine.device_mesh = SimpleNamespace(get_coordinate=lambda: (rank,))
    engine.use_remove_padding, engine.ulysses_sequence_parallel_size = False, 1
    engine.model_config = SimpleNamespace(
        local_path=path,
        hf_config=AutoConfig.from_pretrained(path, attn_implementation="sdpa"),
        model_type="discriminator",
        enable_gradient_checkpointing=checkpointing,
        trust_remote_code=False,
        use_liger=False,
        fused_kernel_options=None,
        use_fused_kernels=False,
    )
    module = engine._build_module()
    assert engine.model_config.model_type == "discriminator"
    assert engine.model_config.hf_config.model_type == "qwen2_5_vl"
    return module.train()


def test_checkpointing_is_on_and_keeps_little():
    ids = torch.randint(8, 300, (1, 512))
    kept = {}
    for checkpointing in (True, False):
        module = built(checkpointing=checkpointing)
        assert module.is_gradient_checkpointing is checkpointing
        saved, logits = saved_by(module, [ids], lambda module=module: module(ids).logits)
        kept[checkpointing] = saved.total()
        logits.sum().backward()
    # 6.0 of 67.7 MiB when it was found that it was off.
    assert kept[True] < kept[False] / 8


def test_checkpointing_changes_no_gradient():
    ids = torch.randint(8, 300, (2, 64))
    gradients = []
    for checkpointing in (True, False):
        module = built(checkpointing=checkpointing)
        module(ids).logits[:, -1].sum().backward()
        gradients.append({name: p.grad for name, p in module.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("tied", [True, False])
def test_only_rank_0_loads_weights(tmp_path, tied):
    path = STUDENT
    if not tied:  # as Qwen2.5-VL-7B
        model = AutoModelForImageTextToText.from_pretrained(STUDENT)
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        model.save_pretrained(tmp_path)
        path = str(tmp_path)
    first, other = built(path), built(path, rank=3)
    expected = load_discriminator(path, dtype=torch.float32, attention="sdpa").state_dict()
    assert first.state_dict().keys() == other.state_dict().keys() == expected.keys()
    assert all(torch.equal(first.state_dict()[name], expected[name]) for name in expected)
    assert {p.device.type for p in other.parameters()} == {"meta"}
    # What is in no state dict is broadcast by verl, from buffers of the same names.
    assert [name for name, _ in first.named_buffers()] == [
        name for name, _ in other.named_buffers()
    ]


def loaded_by_a_rank(rank, ranks, place):
    """What one rank does: build, shard and load as verl's engine, and forward; rank 0 keeps it."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{place}/group", rank=rank, world_size=ranks
    )
    module = built(rank=rank)
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    whole = module.state_dict()
    apply_fsdp2(module, {"mesh": mesh}, {})
    fsdp2_load_full_state_dict(module, whole, mesh, None)
    weights = {name: tensor.full_tensor() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        logits = module(torch.arange(8, 40)[None]).logits
    torch.save((weights, logits), place / f"rank_{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_all_ranks_have_the_weights_of_rank_0(tmp_path):
    torch.multiprocessing.start_processes(loaded_by_a_rank, (2, tmp_path), 2, start_method="fork")
    model = load_discriminator(STUDENT, dtype=torch.float32, attention="sdpa").train()
    expected = model.state_dict()
    with torch.no_grad():
        logits = model(torch.arange(8, 40)[None]).logits
    for rank in range(2):
        weights, found = torch.load(tmp_path / f"rank_{rank}.pt")
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert torch.allclose(found, logits, atol=1e-6)  # buffers, such as the rotary ones, too
