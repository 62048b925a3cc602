"""verl's agent loop worker that prepares the pictures of a question once."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from rilbench.train.group_buffer import FAILED
from rilbench.train.rollout import RILAgentLoop, group_cache
from rilbench.train.step_config import StepConfig
from rilbench.train.verl.model_families import has_mrope
from rilbench.train.verl.student_inputs import picture_inputs


class RolloutWorker(AgentLoopWorkerTQ.__ray_actor_class__):  # type: ignore[misc]
    """One of the processes that run agent loops."""

    def __init__(self, *arguments: Any) -> None:
        # Needed although it adds little: Ray sends inherited methods by value, where super() fails.
        super().__init__(*arguments)
        (loop,) = OmegaConf.load(self.rollout_config.agent.agent_loop_config_path)
        self.step_config = StepConfig.parse(OmegaConf.to_container(loop.ril))
        self.prepared: dict[int, dict[str, torch.Tensor]] = {}
        """Model inputs of the pictures of groups under way, by the `id` of their list."""

    async def _run_prompt(self, prompt: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """As verl's, which returns when all sessions of the group have; then drop its pictures."""
        uid = prompt["uid"]
        try:
            await super()._run_prompt(prompt, *args, **kwargs)
        finally:
            media = group_cache().results.get(("media", uid))
            if media is not None and media.done() and not media.exception():
                self.prepared.pop(id(media.result().get("images")), None)
            group_cache().forget(uid)

    async def _run_agent_loop(
        self,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **question: Any,
    ) -> Any:
        """As verl's, for our agent loop; verl's copies the configuration for each response.

        Why a response failed is left with its prompt, for `rilbench.train.group_buffer`.
        """
        loop = RILAgentLoop(
            trainer_config=DictConfigWrap(self.config),
            server_manager=self.llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            hf_model_type=self.hf_model_type,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(self.config.data),
            tools=ToolListWrap(self.tools),
            step_config=self.step_config,
        )
        limit = 60 * self.step_config.max_wait or None
        try:
            output = await asyncio.wait_for(loop.run(sampling_params, **question), limit)
            return await self._agent_loop_postprocess(output, trajectory["validate"], **question)
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            if isinstance(error, asyncio.TimeoutError):
                said = f"no response within schedule.max_wait={self.step_config.max_wait} minutes"
            name = question["extra_info"]["question_id"]
            await tq.async_kv_put(
                key=question["uid"],
                partition_id="val" if trajectory["validate"] else "train",
                tag={FAILED: f"question {name} failed ({type(error).__name__}: {said})"},
            )
            raise

    def _compute_multi_modal_inputs(
        self, output: Any, input_ids: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """verl prepares pictures for each response; here the responses to a question share them."""
        media = output.multi_modal_data or {}
        pictures = media.get("images")
        if not pictures or any(value for name, value in media.items() if name != "images"):
            inputs: dict[str, torch.Tensor] = super()._compute_multi_modal_inputs(output, input_ids)
            return inputs
        key = id(pictures)
        if key not in self.prepared:
            if has_mrope(self.processor):
                prepared = super()._compute_multi_modal_inputs(output, input_ids)
            else:  # verl shows the processor a text without the pictures' marks; InternVL's refuses
                prepared = picture_inputs(self.processor, pictures)
            self.prepared[key] = prepared  # the group's cache holds the list until both are dropped
        return dict(self.prepared[key])


class RolloutManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """verl's manager of the rollout workers."""

    worker_class: type[RolloutWorker] = RolloutWorker

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.agent_loop_workers_class = ray.remote(self.worker_class)
