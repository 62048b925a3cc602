"""Open a recorded training step and recompute its rewards and advantages.

    python examples/look_at_a_step.py                                   # a step that ships
    python examples/look_at_a_step.py runs/demo/rollouts/step_1.jsonl   # one of your run's
    python examples/look_at_a_step.py STEP.jsonl --method dr-grpo       # a run of another method

`recorded_step.jsonl` holds six of the 16 groups of the second step of a run of the nano student
(`--recipe both`, G = 4). Every reward and advantage printed is computed here by
`rilbench.ril.step.score_step`, the function that the trainer calls. The last line says how far the
advantages are from the recorded ones.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch

from rilbench.ril.methods import METHODS
from rilbench.ril.step import StepSignal, score_step

SHIPPED = Path(__file__).parent / "recorded_step.jsonl"


def recompute(lines: list[dict], method: str, similarity: str) -> StepSignal:
    """Return rewards and advantages of a step, from what was recorded of its responses."""
    # Responses to one question are one group: the mean of its rewards is the baseline.
    names = list(dict.fromkeys(line["question_id"] for line in lines))
    group = torch.tensor([names.index(line["question_id"]) for line in lines])
    is_student = torch.tensor([line["source"] == "student" for line in lines])
    # A missing verdict of the judge is NaN: such a response teaches nothing.
    verdicts = [line["answer_reward"] for line in lines]
    answer_reward = torch.tensor([math.nan if v is None else v for v in verdicts])
    # The record has the discriminator's probability D; its logit is log(D / (1 - D)).
    logits = None
    if METHODS[method].uses_discriminator:
        probability = torch.tensor([line["discriminator_prob"] for line in lines]).double()
        logits = torch.logit(probability, eps=1e-6).float()
    extra_names = lines[0].get("extra_rewards", {})
    extra = {n: torch.tensor([line["extra_rewards"][n] for line in lines]) for n in extra_names}
    return score_step(
        logits,
        answer_reward,
        group,
        is_student,
        METHODS[method],
        similarity=similarity,
        extra_rewards=extra,
    )


def main() -> None:
    """Print every response with what it earned."""
    parser = argparse.ArgumentParser(description="Recompute a recorded step's advantages.")
    parser.add_argument("step", nargs="?", type=Path, default=SHIPPED, help="rollouts/step_N.jsonl")
    parser.add_argument("--method", choices=list(METHODS), default="ril", help="the run's method")
    parser.add_argument("--similarity", choices=["binary", "continuous"], default="binary")
    options = parser.parse_args()

    lines = [json.loads(line) for line in options.step.read_text(encoding="utf-8").splitlines()]
    # The trainer records responses in the order of its batch; here group by group.
    lines.sort(key=lambda line: (line["question_id"], line["session"]))
    signal = recompute(lines, options.method, options.similarity)
    previous = None
    for i, line in enumerate(lines):
        if line["question_id"] != previous:
            previous = line["question_id"]
            print(f"\n{previous}")
            print("  source    D      similar  answer  reward  advantage  response")
        probability = line["discriminator_prob"]
        print(
            f"  {line['source']:<8}  {'-' if probability is None else f'{probability:.3f}':<5}"
            f"  {signal.similarity_reward[i]:>7.2f}  {signal.answer_reward[i]:>6.0f}"
            f"  {signal.reward[i]:>6.2f}  {signal.learned_advantage[i]:>+9.3f}"
            f"  {line['response'][:48]!r}"
        )
    recorded = torch.tensor([line["advantage"] for line in lines])
    difference = (signal.learned_advantage - recorded).abs().max()
    print(f"\nlargest difference from the recorded advantages: {difference:.1e}")


if __name__ == "__main__":
    main()
