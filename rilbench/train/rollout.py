"""A group on verl: G responses sampled by the student and G saved ones of its teachers, judged.

verl runs ``rollout.n`` sessions for each prompt. Sessions below ``num_student_responses`` sample
from the policy; the others return a saved response, tokenised as if the student had written it.
Each session asks the judge itself: verl's reward worker would prepare every picture once more.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from rilbench.api_keys import judge_keys
from rilbench.data.row_files import mapped_column
from rilbench.judge.client import JudgeClient
from rilbench.model.inputs import cut_response, teacher_tokens
from rilbench.train.seeding import noisy_verdict, sample_teacher_responses, seed_of
from rilbench.train.step_config import StepConfig
from rilbench.train.verl.model_families import MarkedPrompts, is_qwen


class RILAgentLoop(SingleTurnAgentLoop):  # type: ignore[misc]
    """One session of one prompt: sample or take a saved response, then have it judged."""

    server_manager: Any

    def __init__(self, *args: Any, step_config: StepConfig, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.step_config = step_config
        self.uid = ""
        if self.rollout_config.name.startswith("vllm") and not is_qwen(self.processor):
            self.server_manager = MarkedPrompts(self.server_manager, self.processor)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Return one response of the group, with its answer reward."""
        config = self.step_config
        session, step = int(kwargs["session_id"]), int(kwargs["global_steps"])
        self.uid, info = kwargs["uid"], kwargs["extra_info"]
        if session < config.num_student_responses:
            seed = seed_of("sample", config.seed, step, info["question_id"], session)
            sampling = {
                **sampling_params,
                "seed": seed % 2**31,  # vLLM takes 32 bits
                "repetition_penalty": config.repetition_penalty,
            }
            if config.full_length:
                sampling["ignore_eos"] = True
            output: AgentLoopOutput = await super().run(sampling, **kwargs)
            output.extra_fields["source"] = "student"
            if config.method_spec.pairs_with_teachers and info["saved"]:  # the dev split has none
                _, paired = self._choose_saved(info, step, config.num_student_responses, session)
                cut = cut_response(self.tokenizer, paired, self.response_length)
                output.extra_fields["paired_response"] = cut
        else:
            teacher, response = self._choose_saved(
                info, step, config.num_teacher_responses, session - config.num_student_responses
            )
            output = await self._saved_response(teacher, response, step, kwargs["raw_prompt"])
        await self._judge(output, info, kwargs["reward_model"]["ground_truth"])
        return output

    async def _judge(self, output: AgentLoopOutput, info: dict[str, Any], reference: str) -> None:
        """Put the judge's verdict, with simulated errors if the recipe asks, into the output."""
        config = self.step_config
        judge = _judge_client(
            config.judge_urls,
            config.judge_model,
            config.judge_fields,
            config.judge_cache,
            config.judge_timeout,
        )
        text = self.tokenizer.decode(output.response_ids, skip_special_tokens=True)
        verdict = await judge.verdict(info["question"], reference, text)
        # NaN and not 0: nothing is learned from a verdict that nobody gave.
        exact = math.nan if verdict.value is None else float(verdict.value)
        output.reward_score = noisy_verdict(
            exact,
            config.false_positive_rate,
            config.false_negative_rate,
            config.seed,
            info["question_id"],
            text,
        )
        output.extra_fields |= {
            "judge_error": verdict.text[:300] if verdict.value is None else "",
            "answer_reward_before_noise": exact,
            "reference": reference,
            # verl scores the dev split by this: never by a simulated error.
            "reward_extra_info": {"acc": exact},
        }

    def _choose_saved(
        self, info: dict[str, Any], step: int, count: int, place: int
    ) -> tuple[str, str]:
        """Of ``count`` saved responses that a step takes for a question, the one at a place."""
        config = self.step_config
        saved = {each["teacher"]: each["numbers"] for each in info["saved"]}
        seed_parts = (config.seed, step, info["question_id"])
        teacher, number = sample_teacher_responses(saved, count, config.mix, *seed_parts)[place]
        return teacher, mapped_column(Path(config.run_dir) / "data" / "responses.arrow")[number]

    async def _saved_response(
        self, teacher: str, response: str, step: int, raw_prompt: Any
    ) -> AgentLoopOutput:
        """A teacher's saved response in the form of a sampled one."""
        messages = list(raw_prompt)
        media = await self.process_multi_modal_info(messages)
        self._assert_mm_supported(bool(media))
        prompt = await self.ct_build_initial_tokens(
            messages, images=media.get("images"), videos=media.get("videos"), mm_inputs_out={}
        )
        tokens = teacher_tokens(self.tokenizer, response, self.response_length)
        if self.step_config.full_length:
            times = -(-self.response_length // len(tokens))
            tokens = (times * tokens)[: self.response_length]
        return AgentLoopOutput(
            prompt_ids=prompt,
            response_ids=tokens,
            response_mask=[1] * len(tokens),
            multi_modal_data=media,
            num_turns=2,
            metrics={"num_preempted": -1},
            extra_fields={
                "source": teacher,
                # The policy version that a sampled response of this step would carry.
                "global_steps": step - 1,
                "min_global_steps": step - 1,
                "max_global_steps": step - 1,
                "turn_scores": [],
                "tool_rewards": [],
            },
        )

    # The 2G sessions of a question share its decoded pictures and its prompt's tokens.

    async def process_multi_modal_info(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Decode the question's pictures, once for the whole group."""
        decode = super().process_multi_modal_info
        media: dict[str, Any] = await group_cache().get("media", self.uid, lambda: decode(messages))
        return media

    async def ct_build_initial_tokens(
        self, messages: list[dict[str, Any]], **kwargs: Any
    ) -> list[int]:
        """Tokenise the question's prompt, once for the whole group."""
        if isinstance(self.server_manager, MarkedPrompts):
            self.server_manager.messages = messages
        tokenize = super().ct_build_initial_tokens
        tokens: list[int] = await group_cache().get(
            "tokens", self.uid, lambda: tokenize(messages, **kwargs)
        )
        return list(tokens)


class GroupCache:
    """The results of slow calls, shared between the sessions of one group until all have ended."""

    def __init__(self) -> None:
        self.results: dict[tuple[str, str], asyncio.Future[Any]] = {}

    async def get(self, what: str, uid: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return what ``make`` returned in the first session of the group that asked."""
        if (what, uid) not in self.results:
            self.results[what, uid] = asyncio.ensure_future(make())
        return await self.results[what, uid]

    def forget(self, uid: str) -> None:
        """Drop a group's results."""
        for key in [key for key in self.results if key[1] == uid]:
            del self.results[key]


@lru_cache(maxsize=1)
def group_cache() -> GroupCache:
    """One for each worker process."""
    return GroupCache()


@lru_cache(maxsize=1)
def _judge_client(
    urls: tuple[str, ...], model: str, fields: str, cache: str, timeout: float
) -> JudgeClient:
    return JudgeClient(
        urls,
        model or None,
        judge_keys(urls),
        fields=json.loads(fields or "{}"),
        timeout=timeout,
        cache=Path(cache) if cache else None,
    )
