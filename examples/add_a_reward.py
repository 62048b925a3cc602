r"""A reward of your own: one function, from what was sampled to one number for each response.

Switch it on without touching the package, by its file:

    rilbench train --recipe both --student nano \
        --set 'reward.extra=[examples/add_a_reward.py:brevity]'

It is added to the reward, R = similarity + answer + brevity. `metrics.jsonl` then has its mean over
student and teacher responses, and `rollouts/step_N.jsonl` its value for each response.

Or offer it under a name from an installed package, with this in that package's pyproject.toml, and
name it with `--set 'reward.extra=[brevity]'`:

    [project.entry-points."rilbench.rewards"]
    brevity = "my_package.rewards:brevity"
"""

from __future__ import annotations

from rilbench.ril.rewards import RewardInputs


def brevity(inputs: RewardInputs) -> list[float]:
    """Return up to 0.2 for a short response: 0.2 at one token, 0 from 40 tokens on.

    It has to be small next to the answer reward of 1, or the student learns to be short and wrong.
    """
    return [0.2 * max(0.0, 1 - (tokens - 1) / 39) for tokens in inputs.num_tokens]


if __name__ == "__main__":
    example = RewardInputs(
        questions=["Which digit is larger?"] * 2,
        references=["7"] * 2,
        responses=["7", "The top row shows 7, 3. The larger is 7. Answer: 7"],
        is_student=[True, False],
        num_tokens=[1, 24],
    )
    for response, value in zip(example.responses, brevity(example), strict=True):
        print(f"{value:.3f}  {response}")
