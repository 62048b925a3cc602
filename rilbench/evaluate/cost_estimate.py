"""What an evaluation will ask, before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rilbench.errors import UserError
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.prompts import Question
from rilbench.evaluate.suite import Benchmark, Suite

_CHARACTERS = 4
"""In a token of English text, about."""
_EXTRACTION = 300
"""Of its prompt to a judge that reads an option."""
_ANSWER = 200
"""Tokens of an answer that a judge is shown, about; and of its own words at most a fifth."""


@dataclass(frozen=True)
class Estimate:
    """Of one benchmark, for one model."""

    column: str
    questions: int
    """Scored ones; a circular question counts once."""
    requests: int
    """To the model: every rotation is one."""
    pictures: int
    text_tokens: int
    """Of the prompts' texts, about; what a picture takes depends on the model."""
    certain: int
    """Judge calls that each need."""
    possible: int
    """Judge calls at most: where the kit's rules read no option."""
    judge_tokens: int
    """Of the certain calls, in and out, about."""

    @property
    def possible_tokens(self) -> int:
        """Of the possible calls, in and out, about."""
        more = self.possible - self.certain
        return self.judge_tokens + more * (_EXTRACTION + _ANSWER + _ANSWER // 5)


def estimate(suite: Suite, questions: Sequence[Question], judge: Judge) -> list[Estimate]:
    """Count for each benchmark what will be asked of the model and of the judge."""
    found = []
    for benchmark in suite.benchmarks:
        names = {dataset.name for dataset in benchmark.datasets}
        own = [q for q in questions if q.dataset in names and q.problem is None]
        certain, possible = _calls(benchmark, len(own), judge)
        prompt = max(dataset.judge_prompt_tokens for dataset in benchmark.datasets)
        found.append(
            Estimate(
                column=benchmark.column,
                questions=len({(q.dataset, q.group) for q in own}),
                requests=len(own),
                pictures=sum(part["type"] == "image" for q in own for part in q.parts),
                text_tokens=sum(len(q.text) for q in own) // _CHARACTERS,
                certain=certain,
                possible=possible,
                judge_tokens=certain * (prompt + _ANSWER + _ANSWER // 5),
            )
        )
    return found


def _calls(benchmark: Benchmark, requests: int, judge: Judge) -> tuple[int, int]:
    if benchmark.judged:
        return requests, requests
    reads = any(dataset.judging == "extractor" for dataset in benchmark.datasets)
    return 0, requests if reads and not judge.exact else 0


def read_price(text: str) -> tuple[float, float]:
    """Read ``IN,OUT``: what a million tokens cost.

    Raises:
        UserError: these are not two numbers from 0 on.
    """
    try:
        first, second = (float(part) for part in text.split(","))
        if not (0 <= first < math.inf and 0 <= second < math.inf):
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"--price {text} is not understood; give IN,OUT, such as 0.15,0.6"
        ) from error
    return first, second


def cost(found: Sequence[Estimate], price: tuple[float, float]) -> tuple[float, float]:
    """What the judge costs: the certain calls, and all that are possible."""
    said = _ANSWER // 5
    sure = sum(each.judge_tokens - said * each.certain for each in found)
    more = sum((each.possible - each.certain) for each in found)
    certain = sure * price[0] + said * sum(each.certain for each in found) * price[1]
    extra = more * ((_EXTRACTION + _ANSWER) * price[0] + said * price[1])
    return certain / 1e6, (certain + extra) / 1e6
