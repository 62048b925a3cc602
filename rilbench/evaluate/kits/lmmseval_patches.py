"""What lmms-eval's code for judged tasks does, seen and put right while it runs."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partialmethod
from typing import Any

GUESSED = "Failed to predict"
MILLION = 1_000_000


class NoRandomGuess:
    """In the place of ``random``: where the kit would guess an option, one that is never right."""

    @staticmethod
    def choice(_: object) -> str:
        """Return no option."""
        return "?"

    @staticmethod
    def randint(_: int, last: int) -> int:
        """Return the last one: MMBench's "none of them"."""
        return last

    @staticmethod
    def seed(_: object) -> None:
        """Do nothing."""


class NoRetrySleep:
    """In the place of ``time``: what stands before the judge has waited and tried again."""

    time, perf_counter = staticmethod(time.time), staticmethod(time.perf_counter)

    @staticmethod
    def sleep(_: float) -> None:
        """Return at once."""


class Watch:
    """What the kit's code for judged tasks does, seen and put right while it runs.

    The kit counts a question as wrong when its judge fails, or guesses an option; here such a
    verdict is known to be missing.
    """

    def __init__(self) -> None:
        self.judge: dict[str, Any] = {}
        self.circular: dict[str, dict[str, Any]] = {}
        """Of each circular question: its outcome, what was read, and whether a judge was asked."""
        self._asked: list[str] = []

    def install(self) -> None:
        """Wrap the functions that tasks share; once for a process."""
        from lmms_eval.llm_judge.providers import openai
        from lmms_eval.tasks._task_utils import mmmu_mcq_utils
        from lmms_eval.tasks.mathvista import mathvista_evals
        from lmms_eval.tasks.mmbench import mmbench_evals

        mmmu_mcq_utils.random = mmbench_evals.rd = NoRandomGuess
        for module in (openai, mathvista_evals, mmbench_evals):
            module.time = NoRetrySleep
        kind = mathvista_evals.MathVistaEvaluator
        kind.server.client.max_retries = 0
        kind.get_chat_response = partialmethod(kind.get_chat_response, patience=1)
        provider = openai.OpenAIProvider
        provider.evaluate = self.once(provider.evaluate)
        kind = mmbench_evals.MMBench_Evaluator
        kind.get_chat_response = partialmethod(kind.get_chat_response, patience=1)
        kind.extract_answer_from_item = self.extract(kind.extract_answer_from_item)
        kind.eval_sub_data = self.rotations(kind.eval_sub_data)

    def meet(self, task: Any) -> None:
        """Wrap what a task has in a module of its own, which the kit loads by its path."""
        own = getattr(task.config.process_results, "__globals__", {})
        if "get_chat_response" in own and own["time"] is not NoRetrySleep:
            own["time"] = NoRetrySleep
            own["get_chat_response"] = self.grade(own["get_chat_response"])
            own["server"].client.max_retries = 0

    def once(self, original: Any) -> Any:
        """The kit's request to a judge, not repeated: the proxy does that."""

        def evaluate(provider: Any, request: Any) -> Any:
            (request.config or provider.config).num_retries = 1
            return original(provider, request)

        return evaluate

    def grade(self, original: Any) -> Any:
        """MM-Vet's question to its judge: a reply that is no grade is a 0 from nobody.

        The kit asks for ever when a judge gives a grade above 1, and cannot name a question of
        version 2 that gets none.
        """

        def ask(prompt: str, temperature: float = 0.0, **_: Any) -> tuple[str, str]:
            reply, model = original(prompt, temperature=temperature, patience=1)
            with suppress(ValueError):  # The kit takes the first word of prose, and of two grades.
                if 0 <= float(reply) <= 1:
                    return reply, model
            return "0", ""

        return ask

    def extract(self, original: Any) -> Any:
        """MMBench's question to its judge, which is not asked when it reads nothing."""

        def ask(evaluator: Any, item: Any) -> Any:
            if not self.judge["reads"]:
                return "?", ""
            found = original(evaluator, item)
            self._asked.append(str(found[1]))
            return found

        return ask

    def rotations(self, original: Any) -> Any:
        """MMBench's verdict on all rotations of a question."""

        def score(evaluator: Any, rows: Any, *rest: Any, **settings: Any) -> Any:
            self._asked = []
            hit = original(evaluator, rows, *rest, **settings)
            items = [rows.iloc[i] for i in range(len(rows))]
            self.circular[str(int(items[0]["index"]) % MILLION)] = {
                "outcome": None if any(GUESSED in log for log in self._asked) else float(hit),
                "extracted": ",".join(evaluator.prefetch_answer(item) or "-" for item in items),
                "judged": bool(self._asked),
            }
            return hit

        return score


watch = Watch()
