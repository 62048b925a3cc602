"""A group on verl: G rows sampled by the student and the saved rows of its teachers.

verl runs ``rollout.n`` sessions for each prompt. Sessions below ``own_rows`` sample from the
policy; the others return a saved response, tokenised as if the student had written it.
"""

from __future__ import annotations

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from rilbench.train.draws import choose_saved, seed_of


class RILAgentLoop(SingleTurnAgentLoop):  # type: ignore[misc]
    """One session of one prompt.

    Args:
        ril: ``seed``, ``own_rows``, ``teacher_rows``, ``mix`` and ``repetition_penalty``.
    """

    def __init__(self, *args: Any, ril: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ril = ril

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Sample, or return the saved response that this session stands for."""
        session, step = int(kwargs["session_id"]), int(kwargs["global_steps"])
        question = kwargs["extra_info"]["question_id"]
        if session < self.ril["own_rows"]:
            seed = seed_of("sample", self.ril["seed"], step, question, session)
            sampling = {
                **sampling_params,
                # vLLM takes 32 bits.
                "seed": seed % 2**31,
                "repetition_penalty": self.ril["repetition_penalty"],
            }
            output: AgentLoopOutput = await super().run(sampling, **kwargs)
            output.extra_fields["source"] = "student"
            return output
        saved: dict[str, list[str]] = {}
        for row in kwargs["extra_info"]["saved"]:
            saved.setdefault(row["teacher"], []).append(row["response"])
        rows = choose_saved(
            saved, self.ril["teacher_rows"], self.ril["mix"], self.ril["seed"], step, question
        )
        teacher, response = rows[session - self.ril["own_rows"]]
        return await self._saved_row(teacher, response, step, kwargs["raw_prompt"])

    async def _saved_row(
        self, teacher: str, response: str, step: int, raw_prompt: Any
    ) -> AgentLoopOutput:
        messages = list(raw_prompt)
        media = await self.process_multi_modal_info(messages)
        self._assert_mm_supported(bool(media))
        prompt = await self.ct_build_initial_tokens(
            messages, images=media.get("images"), videos=media.get("videos"), mm_inputs_out={}
        )
        tokens = self.tokenizer.encode(response, add_special_tokens=False)
        tokens = [*tokens, self.tokenizer.eos_token_id][: self.response_length]
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
