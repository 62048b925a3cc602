"""The equations and the discriminator as a GPU computes them: in bf16, against float64.

Where torch sees no GPU, the same in bf16 on the CPU.
"""

import pytest
import torch
from torch import nn

from rilbench.ril.advantage import dr_grpo_advantages, grpo_advantages, judged_advantages
from rilbench.ril.discriminator import discriminator_accuracy, discriminator_loss
from rilbench.ril.policy import policy_loss
from rilbench.ril.rewards import similarity_reward

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BF16 = 2.0**-8
"""A rounding of bf16, relative."""


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def there(*tensors, dtype=torch.bfloat16):
    """The same on the device, floats in `dtype`."""
    return [t.to(DEVICE, dtype if t.is_floating_point() else None) for t in tensors]


def exact(*tensors):
    """What the device was given, in float64 on the CPU: inputs are rounded for both."""
    return [t.cpu().double() if t.is_floating_point() else t.cpu() for t in tensors]


def batch(seed, rows=16, tokens=512):
    """Log-probabilities of a policy that moved a little, advantages, and a mask of lengths."""
    old = -3 * draw(seed, rows, tokens).abs()
    new, ref = (old + 0.1 * draw(seed + k, rows, tokens) for k in (1, 2))
    lengths = torch.linspace(0, tokens, rows).long()
    return new, old, ref, draw(seed + 3, rows), torch.arange(tokens) < lengths[:, None]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("aggregation", ["token-sum", "sequence-mean"])
@pytest.mark.parametrize("seed", range(3))
def test_equation_2_and_its_gradient(seed, aggregation, dtype):
    given = there(*batch(seed), dtype=dtype)
    settings = {"clip_eps": 0.2, "kl_coef": 0.01, "length_scale": 512, "num_responses": 16}
    found = []
    for inputs in (given, exact(*given)):
        inputs[0].requires_grad_()
        result = policy_loss(*inputs, **settings, aggregation=aggregation)
        result.loss.backward()
        found.append((result, inputs[0].grad))
    (got, gradient), (wanted, reference) = found
    # Computed in float32 whatever comes in: only the gradient is rounded back to the input's type.
    assert got.loss.dtype == torch.float32
    for name in ("loss", "surrogate", "kl", "ratio_sum"):
        value, truth = (float(getattr(each, name).detach()) for each in (got, wanted))
        assert value == pytest.approx(truth, rel=1e-4, abs=1e-6), name
    assert int(got.tokens) == int(wanted.tokens)
    near = BF16 if dtype is torch.bfloat16 else 1e-4
    scale = reference.abs().max().item()
    torch.testing.assert_close(gradient.cpu().double(), reference, rtol=2 * near, atol=1e-4 * scale)


@pytest.mark.parametrize("estimate", [dr_grpo_advantages, grpo_advantages])
def test_advantages(estimate):
    rewards, group = there(draw(7, 256), torch.arange(256) // 16 * 10**9, dtype=torch.float32)
    wanted = estimate(*exact(rewards, group))
    torch.testing.assert_close(
        estimate(rewards, group).cpu().double(), wanted, rtol=1e-5, atol=1e-5
    )
    equal = torch.full((256,), 1.3, device=DEVICE)
    assert not estimate(equal, group).any()


def test_advantages_where_verdicts_are_missing():
    answer = (draw(8, 64) > 0).double()
    answer[::5] = torch.nan
    own, group = torch.arange(64) % 4 < 2, torch.arange(64) // 8
    similarity = (draw(9, 64) > 0).double()
    given = there(similarity, answer, group, own, dtype=torch.float32)
    wanted = judged_advantages(*exact(*given))
    torch.testing.assert_close(judged_advantages(*given).cpu().double(), wanted)
    assert wanted.any()


def test_equation_1_accuracy_and_similarity():
    logits, labels, weights = there(
        4 * draw(5, 1024), (draw(6, 1024) > 0).double(), draw(4, 1024).abs()
    )
    found = []
    for z, y, w in ((logits, labels, weights), exact(logits, labels, weights)):
        z.requires_grad_()
        loss = discriminator_loss(z, y, w, 1024)
        loss.backward()
        found.append((loss, z.grad, discriminator_accuracy(z, y, w), similarity_reward(z.detach())))
    got, wanted = found
    assert got[0].item() == pytest.approx(wanted[0].item(), rel=1e-4)
    torch.testing.assert_close(got[1].cpu().double(), wanted[1], rtol=2 * BF16, atol=1e-6)
    assert float(got[2]) == pytest.approx(float(wanted[2]), rel=1e-4)
    assert torch.equal(got[3].cpu().double(), wanted[3].double())


def discriminator():
    """One of two layers with M-RoPE, as the paper's first student family has it."""
    from gpu_student import Size, build_student

    from rilbench.train.verl.discriminator_model import Discriminator

    torch.manual_seed(0)
    model = Discriminator(build_student(Size.tiny(), "cpu").get_decoder())
    nn.init.normal_(model.score.weight, std=0.5)
    return model


def test_the_discriminators_verdict_and_gradient():
    model = discriminator()
    tokens = torch.randint(8, 64, (6, 40), generator=torch.Generator().manual_seed(1))
    labels, ones = torch.tensor([0.0, 1.0] * 3), torch.ones(6)
    found = []
    for device, dtype in ((DEVICE, torch.bfloat16), ("cpu", torch.float64)):
        # bf16 first: the exact model then has the very weights that were rounded.
        model = model.to(device, dtype)
        model.zero_grad()
        logits = model(tokens.to(device)).logits[:, -1, 0]
        discriminator_loss(logits, labels.to(device), ones.to(device), 6).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((logits.detach().cpu().double(), gradient.cpu().double()))
    (got, gradient), (wanted, reference) = found
    assert wanted.std() > 0.05  # or any verdict would do
    torch.testing.assert_close(got, wanted, rtol=0.05, atol=0.05)
    assert torch.cosine_similarity(gradient, reference, dim=0) > 0.99
