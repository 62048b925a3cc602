import torch

from rilbench.train.cpu_rollout import SeededSampling


def test_a_row_draws_the_same_token_wherever_it_stands():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    seeds = [11, 12, 13, 14]
    together = SeededSampling(seeds)(torch.zeros(4, 1), logits).argmax(-1)
    order = [2, 0, 3, 1]
    shuffled = SeededSampling([seeds[i] for i in order])(torch.zeros(4, 1), logits[order])
    alone = [
        SeededSampling([seed])(torch.zeros(1, 1), logits[i : i + 1]).argmax().item()
        for i, seed in enumerate(seeds)
    ]
    assert shuffled.argmax(-1).tolist() == [together[i].item() for i in order]
    assert together.tolist() == alone


def test_draws_follow_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])
    n = 20_000
    drawn = SeededSampling(list(range(n)))(torch.zeros(n, 1), logits.expand(n, -1)).argmax(-1)
    share = torch.bincount(drawn, minlength=5) / n
    torch.testing.assert_close(share, logits.softmax(-1), atol=0.012, rtol=0)
    assert share[4] == 0, "a forbidden token is never drawn"


def test_successive_tokens_of_a_row_are_independent_draws():
    sampler = SeededSampling([5])
    logits = torch.zeros(1, 1000)
    drawn = [sampler(torch.zeros(1, 1), logits).argmax().item() for _ in range(20)]
    assert len(set(drawn)) > 15
