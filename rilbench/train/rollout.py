"""A group on verl: G rows sampled by the student and the saved rows of its teachers, judged.

verl runs ``rollout.n`` sessions for each prompt. Sessions below ``own_rows`` sample from the
policy; the others return a saved response, tokenised as if the student had written it. Each asks
the judge itself: verl's reward worker would prepare every row's picture once more.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from rilbench.api_keys import judge_key
from rilbench.judge.client import JudgeClient
from rilbench.train.seeding import choose_saved, seed_of, simulated_verdict
from rilbench.train.verl.model_families import CollapseImageTokens, has_mrope


class _Shared:
    """The last few results of slow calls, shared between the rows of one question."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.found: OrderedDict[tuple[str, ...], asyncio.Future[Any]] = OrderedDict()

    async def get(self, key: tuple[str, ...], make: Callable[[], Awaitable[Any]]) -> Any:
        if key not in self.found:
            self.found[key] = asyncio.ensure_future(make())
            while len(self.found) > self.size:
                self.found.popitem(last=False)
        return await self.found[key]


@lru_cache(maxsize=1)
def _shared() -> _Shared:
    """One for each worker process; two entries for each question of a step on one worker."""
    return _Shared(size=256)


@lru_cache(maxsize=1)
def _judge(url: str, model: str, cache: str) -> JudgeClient:
    return JudgeClient(url, model or None, judge_key(), cache=Path(cache) if cache else None)


def saved_tokens(tokenizer: Any, response: str, most: int) -> list[int]:
    """A saved response as if the student had written it: in its own tokens, with its end.

    The teacher's tokenizer may be any other. What looks like a mark of the student's, such as a
    picture's placeholder, is a text here as it was there.
    """
    tokens = tokenizer.encode(response, add_special_tokens=False, split_special_tokens=True)
    return [*tokens, tokenizer.eos_token_id][:most]


class RILAgentLoop(SingleTurnAgentLoop):  # type: ignore[misc]
    """One session of one prompt.

    Args:
        ril: ``seed``, ``own_rows``, ``teacher_rows``, ``mix``, ``repetition_penalty``,
            ``judge_url``, ``judge_model``, ``judge_cache``,
            ``false_positive_rate`` and ``false_negative_rate``.
    """

    server_manager: Any

    def __init__(self, *args: Any, ril: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ril = ril
        self.prompt = ""
        if self.rollout_config.name.startswith("vllm") and not has_mrope(self.processor):
            self.server_manager = CollapseImageTokens(self.server_manager, self.processor)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Sample, or return the saved response that this session stands for; then judge it."""
        session, step = int(kwargs["session_id"]), int(kwargs["global_steps"])
        info = kwargs["extra_info"]
        self.prompt, question = kwargs["uid"], info["question_id"]
        if session < self.ril["own_rows"]:
            seed = seed_of("sample", self.ril["seed"], step, question, session)
            sampling = {
                **sampling_params,
                "seed": seed % 2**31,  # vLLM takes 32 bits
                "repetition_penalty": self.ril["repetition_penalty"],
            }
            output: AgentLoopOutput = await super().run(sampling, **kwargs)
            output.extra_fields["source"] = "student"
        else:
            saved: dict[str, list[str]] = {}
            for row in info["saved"]:
                saved.setdefault(row["teacher"], []).append(row["response"])
            draw = (self.ril["seed"], step, question)
            rows = choose_saved(saved, self.ril["teacher_rows"], self.ril["mix"], *draw)
            teacher, response = rows[session - self.ril["own_rows"]]
            output = await self._saved_row(teacher, response, step, kwargs["raw_prompt"])
        text = self.tokenizer.decode(output.response_ids, skip_special_tokens=True)
        judge = _judge(self.ril["judge_url"], self.ril["judge_model"], self.ril["judge_cache"])
        verdict = await judge.verdict(
            info["question"], kwargs["reward_model"]["ground_truth"], text
        )
        # NaN and not 0: nothing is learned from a verdict that nobody gave.
        output.extra_fields["judge_error"] = verdict.text[:300] if verdict.value is None else ""
        true = math.nan if verdict.value is None else float(verdict.value)
        rates = (self.ril["false_positive_rate"], self.ril["false_negative_rate"])
        output.reward_score = simulated_verdict(true, *rates, self.ril["seed"], question, text)
        output.extra_fields["answer_reward_before_noise"] = true
        # verl scores the dev split by this: never by a simulated error.
        output.extra_fields["reward_extra_info"] = {"acc": true}
        return output

    async def process_multi_modal_info(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Decode the question's pictures, once for all rows of its group."""
        make = super().process_multi_modal_info
        media: dict[str, Any] = await _shared().get(("media", self.prompt), lambda: make(messages))
        return media

    async def ct_build_initial_tokens(self, *args: Any, **kwargs: Any) -> list[int]:
        """Tokenise the question's prompt, once for all rows of its group."""
        make = super().ct_build_initial_tokens
        tokens: list[int] = await _shared().get(
            ("tokens", self.prompt), lambda: make(*args, **kwargs)
        )
        return list(tokens)

    async def _saved_row(
        self, teacher: str, response: str, step: int, raw_prompt: Any
    ) -> AgentLoopOutput:
        messages = list(raw_prompt)
        media = await self.process_multi_modal_info(messages)
        self._assert_mm_supported(bool(media))
        prompt = await self.ct_build_initial_tokens(
            messages, images=media.get("images"), videos=media.get("videos"), mm_inputs_out={}
        )
        tokens = saved_tokens(self.tokenizer, response, self.response_length)
        return AgentLoopOutput(
            prompt_ids=prompt,
            response_ids=tokens,
            response_mask=[1] * len(tokens),
            multi_modal_data=media,
            num_turns=2,
            metrics={"num_preempted": -1},
            extra_fields={
                "source": teacher,
                # The policy version that a sampled row of this step would carry.
                "global_steps": step - 1,
                "min_global_steps": step - 1,
                "max_global_steps": step - 1,
                "turn_scores": [],
                "tool_rewards": [],
            },
        )
