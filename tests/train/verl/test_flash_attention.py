"""The stand-in for flash-attn against attention written out, and verl's log-probabilities."""

import importlib.metadata
import sys

import pytest
import torch
from saved_memory import saved_by

from rilbench.doctor import machine
from rilbench.train.verl import cross_entropy, flash_attention
from rilbench.train.verl.flash_attention import flash_attn_func, flash_attn_varlen_func

LENGTHS = (1, 7, 12, 3)


def written_out(q, k, v, causal, window, scale):
    """Attention of one sequence, (T_q, H, D) over (T_k, H_k, D)."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * (scale or q.shape[-1] ** -0.5)
    ahead = torch.arange(len(k)) - torch.arange(len(q))[:, None] - (len(k) - len(q))
    left, right = window[0], 0 if causal else window[1]
    hidden = torch.zeros(len(q), len(k), dtype=torch.bool)
    hidden |= (ahead > right) if right >= 0 else False
    hidden |= (ahead < -left) if left >= 0 else False
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


def tensors(tokens, heads=4, kv_heads=2, keys=None):
    torch.manual_seed(0)
    shapes = (tokens, heads, 8), (keys or tokens, kv_heads, 8), (keys or tokens, kv_heads, 8)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("window", [(-1, -1), (4, 0), (2, 3)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_packed_sequences_do_not_see_each_other(causal, window, scale):
    q, k, v = tensors(sum(LENGTHS))
    starts = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    longest = starts.diff().max()  # transformers hands on a tensor
    found = flash_attn_varlen_func(
        *(q, k, v, starts, starts, longest, longest),
        softmax_scale=scale,
        causal=causal,
        window_size=window,
    )
    rows = zip(*(x.split(LENGTHS) for x in (q, k, v)), strict=True)
    expected = torch.cat([written_out(*row, causal, window, scale) for row in rows])
    assert torch.allclose(found, expected, atol=1e-12)
    weights = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), (q, k, v)),
        torch.autograd.grad((expected * weights).sum(), (q, k, v)),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-12)


def test_a_batch_is_packed_and_the_last_query_sees_the_last_key():
    rows = [tensors(5, keys=9), tensors(5, keys=9)]
    q, k, v = (torch.stack(each) for each in zip(*rows, strict=True))
    found = flash_attn_func(q, k, v, causal=True)
    assert found.shape == (2, 5, 4, 8)
    for i in range(2):
        expected = written_out(q[i], k[i], v[i], True, (-1, -1), None)
        assert torch.allclose(found[i], expected, atol=1e-12)


def test_dropout_is_refused():
    q, k, v = (x[None] for x in tensors(3))
    with pytest.raises(NotImplementedError, match="flash-attn"):
        flash_attn_func(q, k, v, dropout_p=0.1)


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probs_and_their_gradient_in_pieces(monkeypatch, dtype, inplace):
    monkeypatch.setattr(cross_entropy, "_FLOATS", 3 * 50)  # pieces of three tokens
    torch.manual_seed(0)
    raw = (4 * torch.randn(11, 50)).to(dtype)
    labels, weights = torch.randint(50, (11,)), torch.randn(11)
    ours, theirs = (raw.clone().requires_grad_() for _ in range(2))
    # As verl computes it: what comes out of a layer, not a leaf.
    losses, second = cross_entropy.cross_entropy_loss(ours * 1, labels, inplace_backward=inplace)
    assert losses.dtype == torch.float32
    assert not second.any()
    expected = -theirs.float().log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    assert torch.allclose(losses, expected, atol=1e-6)
    (losses * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6 if dtype == torch.float32 else 1e-2)


def test_verls_log_probs_keep_no_copy_of_the_logits_and_do_not_loop_over_tokens(monkeypatch):
    from verl.utils import torch_functional

    flash_attention.install()
    monkeypatch.setattr(torch, "logsumexp", None)  # of verl's loop over tokens
    logits = torch.randn(64, 1000, requires_grad=True)
    labels = torch.randint(1000, (64,))
    model = torch.nn.Identity()
    saved, log_probs = saved_by(
        model, [logits], lambda: torch_functional.logprobs_from_logits(logits, labels)
    )
    assert saved.total() <= labels.nbytes + 64 * 4
    assert torch.allclose(log_probs.exp(), logits.softmax(-1)[torch.arange(64), labels])


def test_flash_attn_is_used_where_it_is_installed(monkeypatch):
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.8.3")
    flash_attention.install()
    assert "flash_attn" not in sys.modules


def test_the_doctor_names_the_attention(monkeypatch):
    found = machine.attention()
    assert found.state == "ok"
    assert "torch.nn.attention.varlen" in found.found
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.8.3")
    found = machine.attention()  # whose import fails, as after an update of torch
    assert (found.state, found.found[:16]) == ("wrong", "flash-attn 2.8.3")
    assert "uninstall" in found.remedy
