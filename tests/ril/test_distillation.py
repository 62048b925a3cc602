"""On-policy distillation beside the reverse KL, and beside verl's own distillation loss."""

import pytest
import torch
from tensordict import TensorDict
from verl.trainer.distillation.losses import distillation_loss
from verl.utils import tensordict_utils as tu
from verl.workers.config import DistillationConfig, DistillationLossConfig
from verl.workers.config.actor import FSDPActorConfig

from rilbench.ril.distillation import distillation_advantages
from rilbench.train.batch import nested
from rilbench.train.losses import policy_loss_fn


def test_its_gradient_is_that_of_the_reverse_kl():
    """In expectation over the policy's samples, here over all tokens of a small vocabulary."""
    torch.manual_seed(1)
    logits = torch.randn(7, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(7, dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    kl = (policy.exp() * (policy - teacher)).sum()
    (expected,) = torch.autograd.grad(kl, logits, retain_graph=True)
    advantages = distillation_advantages(policy[None], teacher[None])[0]
    objective = (policy.exp().detach() * advantages * policy).sum()
    (got,) = torch.autograd.grad(-objective, logits)
    torch.testing.assert_close(got, expected)


def test_a_token_that_the_teacher_excludes_is_cut():
    got = distillation_advantages(torch.tensor([[-1.0, -30.0]]), torch.tensor([[-50.0, -1.0]]))
    assert got.tolist() == [[-10.0, 10.0]]


@pytest.mark.parametrize("on_policy", [True, False])
def test_loss_and_gradient_are_verls(on_policy):
    """verl's k1 with policy gradient, summed over tokens and divided by a constant."""
    torch.manual_seed(2)
    prompts, responses = [3, 2, 4], [4, 1, 2]
    lengths = [a + b for a, b in zip(prompts, responses, strict=True)]

    def rows(sizes, low=-4.0):
        return nested([low * torch.rand(n) for n in sizes])

    log_probs, teacher = rows(lengths), rows(lengths)
    mask = nested([torch.ones(n) for n in responses])

    def of_response(whole):
        parts = zip(whole.unbind(), prompts, strict=True)
        return nested([row[p - 1 : -1] for row, p in parts])

    old = of_response(log_probs)
    if not on_policy:  # near enough that verl's second clip, at a ratio of 3, is not met
        old = nested([row + 0.6 * torch.rand_like(row) - 0.3 for row in old.unbind()])
    data = TensorDict(
        {
            "prompts": nested([torch.zeros(n, dtype=torch.long) for n in prompts]),
            "responses": nested([torch.zeros(n, dtype=torch.long) for n in responses]),
            "response_mask": mask,
            "is_student": mask,
            "advantages": torch.zeros_like(mask),
            "teacher_logprobs": nested([row[:, None] for row in teacher.unbind()]),
            "teacher_log_probs": of_response(teacher),
            "old_log_probs": old,
        },
        batch_size=3,
    )
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=7, global_batch_size=3)

    def gradient(loss_of):
        values = log_probs.values().clone().requires_grad_()
        whole = torch.nested.nested_tensor_from_jagged(values, log_probs.offsets())
        loss = loss_of(whole)
        (found,) = torch.autograd.grad(loss, values)
        return loss.detach(), found

    def ours(whole):
        output = {"log_probs": whole, "entropy": torch.zeros_like(whole)}
        loss, _ = policy_loss_fn(
            output,
            data,
            clip_eps=0.2,
            kl_coef=0.0,
            length_scale=20.0,
            aggregation="token-sum",
            on_policy=on_policy,
        )
        return loss

    def verls(whole):
        actor = FSDPActorConfig(
            strategy="fsdp2",
            rollout_n=1,
            ppo_micro_batch_size_per_gpu=1,
            loss_agg_mode="seq-mean-token-sum-norm",
            loss_scale_factor=20.0,
        )
        settings = DistillationLossConfig(
            loss_mode="k1", use_policy_gradient=True, use_task_rewards=False
        )
        config = DistillationConfig(distillation_loss=settings)
        loss, _ = distillation_loss(actor, config, {"log_probs": whole}, data)
        return loss

    (loss, grad), (verl_loss, verl_grad) = gradient(ours), gradient(verls)
    torch.testing.assert_close(loss, verl_loss)
    torch.testing.assert_close(grad, verl_grad)
