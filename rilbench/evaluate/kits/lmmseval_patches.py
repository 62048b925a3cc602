"""Changes to lmms-eval's code for judged tasks: missing verdicts are seen, not counted as wrong."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partialmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rilbench.evaluate.kits.worker_common import NoRandomGuess, question_of_rotation, unread
else:
    from worker_common import NoRandomGuess, question_of_rotation, unread

GUESSED = "Failed to predict"


class NoRetrySleep:
    """A replacement of ``time``: the judge proxy has already waited and tried again."""

    time, perf_counter = staticmethod(time.time), staticmethod(time.perf_counter)

    @staticmethod
    def sleep(_: float) -> None:
        """Return at once."""


class Patches:
    """Wrappers of the kit's functions for judged tasks, and what they saw.

    The kit counts a question as wrong when its judge fails, or guesses an option. The wrappers
    notice that such a verdict is missing.
    """

    def __init__(self) -> None:
        self.judge: dict[str, Any] = {}
        self.circular: dict[str, dict[str, Any]] = {}
        """Each circular question's outcome, the letters read, and whether a judge was asked."""
        self._judge_logs: list[str] = []
        """The judge's replies on the rotations of the current question."""

    def install(self) -> None:
        """Wrap the functions that tasks share; once per process."""
        from lmms_eval.llm_judge.providers import openai
        from lmms_eval.tasks._task_utils import mmmu_mcq_utils
        from lmms_eval.tasks.mathvista import mathvista_evals
        from lmms_eval.tasks.mmbench import mmbench_evals

        mmmu_mcq_utils.random = mmbench_evals.rd = NoRandomGuess
        for module in (openai, mathvista_evals, mmbench_evals):
            module.time = NoRetrySleep
        mathvista = mathvista_evals.MathVistaEvaluator
        mathvista.server.client.max_retries = 0
        mathvista.get_chat_response = partialmethod(mathvista.get_chat_response, patience=1)
        provider = openai.OpenAIProvider
        provider.evaluate = self.once(provider.evaluate)
        mmbench = mmbench_evals.MMBench_Evaluator
        mmbench.get_chat_response = partialmethod(mmbench.get_chat_response, patience=1)
        mmbench.extract_answer_from_item = self.extract(mmbench.extract_answer_from_item)
        mmbench.eval_sub_data = self.rotations(mmbench.eval_sub_data)

    def patch_task(self, task: Any) -> None:
        """Wrap the functions in a task's own module, which the kit loads by its path."""
        module = getattr(task.config.process_results, "__globals__", {})
        if "get_chat_response" in module and module["time"] is not NoRetrySleep:
            module["time"] = NoRetrySleep
            module["get_chat_response"] = self.grade(module["get_chat_response"])
            module["server"].client.max_retries = 0

    def once(self, original: Any) -> Any:
        """Wrap the kit's request to a judge: it is not repeated, as the proxy does that."""

        def evaluate(provider: Any, request: Any) -> Any:
            (request.config or provider.config).num_retries = 1
            return original(provider, request)

        return evaluate

    def grade(self, original: Any) -> Any:
        """Wrap MM-Vet's question to its judge: a reply that is no grade is a 0 by no model.

        `outcome` in the worker knows a missing verdict by its empty model. The kit itself asks for
        ever when a judge gives a grade above 1, and cannot name a question of version 2 without a
        grade.
        """

        def ask(prompt: str, temperature: float = 0.0, **_: Any) -> tuple[str, str]:
            reply, model = original(prompt, temperature=temperature, patience=1)
            with suppress(
                ValueError
            ):  # The kit takes the first word of prose, and the first of two grades.
                if 0 <= float(reply) <= 1:
                    return reply, model
            return "0", ""

        return ask

    def extract(self, original: Any) -> Any:
        """Wrap MMBench's question to its judge, which is not asked if it does not read options."""

        def ask(evaluator: Any, item: Any) -> Any:
            if not self.judge["reads"]:
                return "?", ""
            option, log = original(evaluator, item)
            self._judge_logs.append(str(log))
            return option, log

        return ask

    def rotations(self, original: Any) -> Any:
        """Wrap MMBench's verdict on all rotations of a question, and keep what it was made of."""

        def score(evaluator: Any, rows: Any, *rest: Any, **settings: Any) -> Any:
            self._judge_logs = []
            hit = original(evaluator, rows, *rest, **settings)
            items = [rows.iloc[i] for i in range(len(rows))]
            choices = [
                {
                    "question_id": str(item["index"]),
                    "options": "".join(evaluator.build_choices(item)),
                    "gold": str(item["answer"]),
                    "read": evaluator.prefetch_answer(item) or "",
                }
                for item in items
            ]
            found: dict[str, Any] = {
                "outcome": None if any(GUESSED in log for log in self._judge_logs) else float(hit),
                "extracted": ",".join(choice["read"] or "-" for choice in choices),
                "judged": bool(self._judge_logs),
            }
            if not self._judge_logs and unread(choices):
                found["unread"] = choices
            self.circular[question_of_rotation(items[0]["index"])] = found
            return hit

        return score


patches = Patches()
