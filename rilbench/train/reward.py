"""The answer reward: verl's asynchronous reward loop asks the judge for a verdict."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from typing import Any

from rilbench.judge.client import JudgeClient


@lru_cache(maxsize=1)
def _client(url: str, model: str) -> JudgeClient:
    key = os.environ.get("RILBENCH_JUDGE_KEY", "none")
    return JudgeClient(url, model or None, key)


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any],
    *,
    judge_url: str,
    judge_model: str,
    **_: Any,
) -> dict[str, Any]:
    """Return the verdict as ``score`` 0.0 or 1.0, or NaN where the judge gave none.

    NaN and not 0: the trainer stops rather than learn from a verdict that nobody gave.
    """
    judge = _client(judge_url, judge_model)
    verdict = await judge.verdict(extra_info["question"], ground_truth, solution_str)
    score = math.nan if verdict.value is None else float(verdict.value)
    return {"score": score, "acc": score, "judge": verdict.judge}
