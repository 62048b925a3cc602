"""verl's agent loop worker that prepares the pictures of a question once."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopOutput,
    DictConfigWrap,
    ToolListWrap,
)
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.utils import tensordict_utils as tu

from rilbench.errors import UserError
from rilbench.model.inputs import picture_inputs
from rilbench.train.group_buffer import FAILED
from rilbench.train.rollout import RILAgentLoop, group_cache
from rilbench.train.seeding import assigned_teacher
from rilbench.train.step_config import StepConfig
from rilbench.train.verl.model_families import has_mrope

RESPONSE_FIELDS = (
    "prompts",
    "responses",
    "response_mask",
    "rm_scores",
    "num_turns",
    "metrics",
    "extra_fields",
)
"""Of verl's output of a session, what goes into TransferQueue."""

LOOK_SECONDS = 5.0
"""How often the nodes and workers that are waited for are looked at."""


class Row(NamedTuple):
    """A response as TransferQueue takes it."""

    key: str
    fields: dict[str, Any]
    tag: dict[str, Any]


class RolloutWorker(AgentLoopWorkerTQ.__ray_actor_class__):  # type: ignore[misc]
    """One of the processes that run agent loops."""

    def __init__(self, *arguments: Any) -> None:
        # Needed although it adds little: Ray sends inherited methods by value, where super() fails.
        super().__init__(*arguments)
        (loop,) = OmegaConf.load(self.rollout_config.agent.agent_loop_config_path)
        self.step_config = StepConfig.parse(OmegaConf.to_container(loop.ril))
        self.prepared: dict[int, dict[str, torch.Tensor]] = {}
        """Model inputs of the pictures of groups under way, by the `id` of their list."""
        self.rows: dict[str, list[Row]] = {}
        """The responses so far of the groups under way."""

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
            self.rows.pop(uid, None)

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

    async def _agent_loop_postprocess(
        self, output: AgentLoopOutput, validate: bool, **question: Any
    ) -> None:
        """As verl's: a response goes into TransferQueue. A group's go together, in one call.

        Of a question's data, what the step reads goes with them. Neighbours that share a prompt
        share its pictures, which only the first of them brings.
        """
        if validate:
            await super()._agent_loop_postprocess(output, validate, **question)
            return
        uid, session = question["uid"], int(question["session_id"])
        distilled = {}
        if self.step_config.method_spec.uses_teacher_log_probs:
            distilled = await self._teacher_log_probs(output, session, question)
        ids = torch.tensor(output.prompt_ids + output.response_ids)
        pictures = self._compute_multi_modal_inputs(output, ids)
        positions = self._compute_position_ids(ids[None], torch.ones_like(ids)[None], pictures)[0]
        together = self.step_config.rows_together
        if together and session % together:
            pictures = {}
        fields = response_fields(output)
        fields |= {
            "input_ids": ids,
            "position_ids": positions,
            "loss_mask": fields["response_mask"],
            "multi_modal_inputs": pictures,
            "question": torch.tensor(int(question["index"])),
            "extra_info": question["extra_info"],
            **distilled,
        }
        step = question["global_steps"]
        tag = {
            "status": "success",
            "prompt_len": len(output.prompt_ids),
            "response_len": len(output.response_ids),
            "seq_len": len(ids),
            "global_steps": step,
            "min_global_steps": output.extra_fields.get("min_global_steps"),
            "max_global_steps": output.extra_fields.get("max_global_steps"),
            "question": int(question["index"]),
        }
        rows = self.rows.setdefault(uid, [])
        rows.append(Row(f"{uid}_{session}_0", fields, tag))
        if len(rows) == self.step_config.group_responses:
            await tq.async_kv_batch_put(
                keys=[row.key for row in rows],
                fields=_columns([row.fields for row in rows]),
                tags=[row.tag for row in rows],
                partition_id="train",
            )

    async def _teacher_log_probs(
        self, output: AgentLoopOutput, session: int, question: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        """A teacher's log-probability of each token of a response, from verl's teacher server."""
        info, seed = question["extra_info"], self.step_config.seed
        teacher = assigned_teacher(
            [each["teacher"] for each in info["saved"]],
            session,
            *(seed, int(question["global_steps"]), info["question_id"]),
        )
        await self._compute_teacher_logprobs(
            output,
            output.prompt_ids,
            output.response_ids,
            validate=False,
            sample_kwargs={self.teacher_key: teacher},
        )
        output.extra_fields.pop("teacher_ids")
        # verl's, (S, 1): at each place the log-probability of the token that follows it.
        found = output.extra_fields.pop("teacher_logprobs")[:, 0]
        return {"teacher_log_probs": found[len(output.prompt_ids) - 1 : -1]}

    def _compute_multi_modal_inputs(
        self, output: Any, input_ids: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """verl prepares pictures for each response; here the responses to a question share them."""
        media = output.multi_modal_data or {}
        pictures = media.get("images")
        if not pictures and not has_mrope(self.processor):
            return {}
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
        self.nodes = _alive_nodes()
        self.pings: list[Any] = []
        self.looked_at = 0.0

    def check_alive(self) -> None:
        """Look every few seconds whether the nodes and the rollout workers are still there.

        verl would wait for their responses for ever.

        Raises:
            UserError: one is gone.
        """
        if time.monotonic() < self.looked_at + LOOK_SECONDS:
            return
        self.looked_at = time.monotonic()
        if lost := self.nodes - _alive_nodes():
            raise UserError(
                f"{len(lost)} of {len(self.nodes)} nodes of the Ray cluster are gone; bring them "
                "back, then continue with --resume"
            )
        answered: list[Any] = []
        if self.pings:
            answered, _ = ray.wait(self.pings, num_returns=len(self.pings), timeout=0)
        try:
            ray.get(answered)
        except ray.exceptions.RayError as error:
            why = str(error).strip().splitlines()[0]
            raise UserError(
                f"a rollout worker is gone ({why}); see logs/trainer.log, then continue with "
                "--resume"
            ) from error
        if len(answered) == len(self.pings):
            self.pings = [worker.__ray_ready__.remote() for worker in self.agent_loop_workers]


def _alive_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def response_fields(output: AgentLoopOutput) -> dict[str, Any]:
    """What a step reads of a response: the same fields of a sampled one as of a saved one.

    A group's responses become columns, whose names the first to arrive gives; verl sets more fields
    of a sampled one.
    """
    fields = output.as_dict()
    return {name: fields[name] for name in RESPONSE_FIELDS}


def _columns(rows: list[dict[str, Any]]) -> TensorDict:
    """Rows as columns; M-RoPE's positions, (4, j), in torch's layout for tensors of any shapes."""
    positions = [row.pop("position_ids") for row in rows]
    columns: TensorDict = tu.list_of_dict_to_tensordict(rows)
    columns["position_ids"] = torch.nested.as_nested_tensor(positions, layout=torch.strided)
    return columns
