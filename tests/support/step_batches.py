"""A `StepBatch` made without verl: groups of four, two of the student and two of a teacher."""

import torch

from rilbench.train.step_batch import StepBatch


def step_batch(answer_reward, is_student=None, group=None, tokens=None, before_noise=None, **more):
    """A batch of responses with these verdicts; by default whole groups of four."""
    n = len(answer_reward)
    is_student = [i % 4 < 2 for i in range(n)] if is_student is None else is_student
    group = [i // 4 for i in range(n)] if group is None else group
    tokens = [2] * n if tokens is None else tokens
    verdicts = torch.tensor(answer_reward)
    values = {
        "session": [i % 4 for i in range(n)],
        "question_id": [f"q{g}" for g in group],
        "source": ["student" if own else "72b" for own in is_student],
        "response": [f"response {i}" for i in range(n)],
        "group": torch.tensor(group),
        "is_student": torch.tensor(is_student),
        "answer_reward": verdicts,
        "answer_reward_before_noise": verdicts
        if before_noise is None
        else torch.tensor(before_noise),
        "tokens": tokens,
        "finished": [t < 9 for t in tokens],
        "image_tokens": [4] * n,
        "judge_error": ["HTTP 500: oh" if v.isnan() else "" for v in verdicts],
        "question": [f"question {g}" for g in group],
        "reference": [f"reference {g}" for g in group],
    }
    return StepBatch(**{**values, **more})
