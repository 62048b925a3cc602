"""What an evaluation would ask and cost, before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rilbench.errors import UserError
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.prompts import BenchmarkQuestion, Key
from rilbench.evaluate.suite import Suite

# Approximate numbers of tokens.
_CHARACTERS_PER_TOKEN = 4
RESPONSE_TOKENS = 200
"""Of a response, as the judge is shown it."""
_REPLY = RESPONSE_TOKENS // 5
"""Of the judge's own reply, at most."""


@dataclass(frozen=True)
class Estimate:
    """The requests of one benchmark, for one model. Token counts are approximate."""

    column: str
    questions: int
    """Scored ones; a circular question counts once."""
    requests: int
    """To the model; each rotation is one."""
    pictures: int
    picture_tokens: int
    """Of all pictures, which depend on the model."""
    text_tokens: int
    """Of the prompts' texts."""
    certain: int
    """Judge calls that are always needed."""
    possible: int
    """Judge calls at most, where the kit's rules can read no option."""
    judge_prompt_tokens: int
    """Of one judge call, without question and response."""

    @property
    def judge_tokens(self) -> int:
        """In and out, of the certain calls."""
        return self.certain * (self.judge_prompt_tokens + RESPONSE_TOKENS + _REPLY)

    @property
    def possible_tokens(self) -> int:
        """In and out, of the possible calls."""
        return self.possible * (self.judge_prompt_tokens + RESPONSE_TOKENS + _REPLY)


def estimate(
    suite: Suite,
    questions: Sequence[BenchmarkQuestion],
    judge: Judge,
    picture_tokens: Mapping[Key, int] | None = None,
    absent: Mapping[str, int] | None = None,
) -> list[Estimate]:
    """Return for each benchmark what the model and the judge would be asked.

    Args:
        suite: the benchmarks.
        questions: of the data sets whose files exist.
        judge: who decides.
        picture_tokens: of each question's pictures.
        absent: numbers of questions of the data sets whose files do not exist, as published.
    """
    estimates, tokens, absent = [], picture_tokens or {}, absent or {}
    for benchmark in suite.benchmarks:
        names = {dataset.name for dataset in benchmark.datasets}
        asked = [q for q in questions if q.dataset in names and q.problem is None]
        extracts = any(dataset.judging == "extractor" for dataset in benchmark.datasets)
        unread = sum(absent.get(name, 0) for name in names)
        may_judge = benchmark.judged or (extracts and not judge.exact)
        estimates.append(
            Estimate(
                column=benchmark.column,
                questions=len({(q.dataset, q.group) for q in asked}) + unread,
                requests=len(asked) + unread,
                pictures=sum(part["type"] == "image" for q in asked for part in q.parts),
                picture_tokens=sum(tokens.get(q.key, 0) for q in asked),
                text_tokens=sum(len(q.text) for q in asked) // _CHARACTERS_PER_TOKEN,
                certain=len(asked) + unread if benchmark.judged else 0,
                possible=len(asked) + unread if may_judge else 0,
                judge_prompt_tokens=max(d.judge_prompt_tokens for d in benchmark.datasets),
            )
        )
    return estimates


def read_price(text: str) -> tuple[float, float]:
    """Read ``IN,OUT``: the prices of a million tokens.

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


def cost(estimates: Sequence[Estimate], price: tuple[float, float]) -> tuple[float, float]:
    """Return the price of the certain judge calls, and of all possible ones."""

    def of_calls(one: Estimate, calls: int) -> float:
        tokens_in = one.judge_prompt_tokens + RESPONSE_TOKENS
        return calls * (tokens_in * price[0] + _REPLY * price[1]) / 1e6

    return (
        sum(of_calls(one, one.certain) for one in estimates),
        sum(of_calls(one, one.possible) for one in estimates),
    )
