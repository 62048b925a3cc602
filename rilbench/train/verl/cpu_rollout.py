"""Rollouts on a CPU: verl's server interface over transformers' ``generate``.

What vLLM is on a GPU. Sampling is reproducible whatever the order in which requests arrive: each
request brings its own seed, and its noise depends on nothing else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import ray
import torch
from transformers import (
    AutoModelForImageTextToText,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
)
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

from rilbench.train.verl.model_families import never_sampled, picture_inputs
from rilbench.train.verl.workers import CPU_ROLLOUT, VLLM_CPU

_QUIET_SECONDS = {"greedy": 0.3, "sampled": 20.0}
"""A batch that is not full starts when no request has come for this long.

A step's samples always fill a batch; only where one failed would they not. Waiting for them keeps
the batch, and with it every rounding, the same in every run.
"""


class SeededSampling(LogitsProcessor):  # type: ignore[misc]
    """Turn greedy decoding into sampling by the Gumbel-max trick, one generator for each sequence.

    argmax(logits + Gumbel noise) is a sample of softmax(logits); its noise comes from its own
    seed, so it does not depend on the other sequences of its batch.
    """

    def __init__(self, seeds: list[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Add noise to scores (B, V)."""
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores + noise.to(scores.dtype)


class Nucleus(LogitsProcessor):  # type: ignore[misc]
    """Top-k, then top-p among those k: transformers' two processors without sorting all tokens."""

    def __init__(self, top_k: int, top_p: float) -> None:
        self.top_k, self.top_p = top_k, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Set the scores (B, V) of all other tokens to minus infinity."""
        k = self.top_k if 0 < self.top_k < scores.shape[1] else scores.shape[1]
        best, index = scores.topk(k)
        if self.top_p < 1:
            # As transformers: from the least likely up, what sums to 1 - p goes; the best stays.
            tail = best.softmax(-1).flip(-1).cumsum(-1).flip(-1)
            gone = tail <= 1 - self.top_p
            gone[:, 0] = False
            best = best.masked_fill(gone, -torch.inf)
        return torch.full_like(scores, -torch.inf).scatter_(1, index, best)


@dataclass
class _Request:
    prompt: list[int]
    sampling: dict[str, Any]
    images: list[Any]
    answer: asyncio.Future[TokenOutput]

    @property
    def group(self) -> tuple[Any, ...]:
        """Requests of one group are generated in one batch, however many images they have."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty")
        return tuple(self.sampling.get(name) for name in names)


class TransformersServer:
    """One model that answers generation requests in batches; lives in a Ray actor."""

    def __init__(self, config: Any, model_config: Any) -> None:
        torch.set_num_threads(1)
        self.waiting: list[_Request] = []
        self.arrived = asyncio.Event()
        self.loop_task: asyncio.Task[None] | None = None
        self.load(config, model_config)

    def load(self, config: Any, model_config: Any) -> None:
        """Load the run's model."""
        self.config = config
        self.model_config = omega_conf_to_dataclass(model_config)
        self.model = AutoModelForImageTextToText.from_pretrained(
            self.model_config.local_path, dtype=torch.float32
        ).eval()
        tokenizer = self.model_config.tokenizer
        self.pad, self.end = tokenizer.pad_token_id, tokenizer.eos_token_id
        self.forbidden = never_sampled(tokenizer)
        self.image_token = self.model.config.image_token_id
        self.step: int | None = None

    async def update_weights(
        self, weights: dict[str, torch.Tensor], global_steps: int | None = None
    ) -> None:
        """Take the policy's weights; every weight of the model must be among them."""
        report = self.model.load_state_dict(weights, strict=False)
        missing = [key for key in report.missing_keys if key != "lm_head.weight"]
        assert not missing, missing
        assert not report.unexpected_keys, report.unexpected_keys
        self.model.tie_weights()
        self.step = global_steps if global_steps is not None else self.step

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        image_data: list[Any] | None = None,
        **_: Any,
    ) -> TokenOutput:
        """Queue one request and wait for its tokens."""
        answer: asyncio.Future[TokenOutput] = asyncio.get_running_loop().create_future()
        self.waiting.append(
            _Request(list(prompt_ids), dict(sampling_params), list(image_data or []), answer)
        )
        self.arrived.set()
        if self.loop_task is None or self.loop_task.done():
            self.loop_task = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        """Answer until nothing waits: full batches at once, others after a short silence."""
        while self.waiting:
            full = self.config.max_num_seqs
            while len(self.waiting) < full:
                self.arrived.clear()
                sampled = any(r.sampling.get("temperature", 1.0) > 0 for r in self.waiting)
                quiet = _QUIET_SECONDS["sampled" if sampled else "greedy"]
                try:
                    await asyncio.wait_for(self.arrived.wait(), quiet)
                except asyncio.TimeoutError:
                    break
            # In a fixed order, so that a batch has the same shape in every run.
            self.waiting.sort(key=lambda r: (r.sampling.get("seed", 0), r.prompt))
            group = self.waiting[0].group
            batch = [r for r in self.waiting if r.group == group][:full]
            chosen = {id(r) for r in batch}
            self.waiting = [r for r in self.waiting if id(r) not in chosen]
            try:
                for request, output in zip(batch, self._generate(batch), strict=True):
                    if not request.answer.done():  # nobody waits for it any more
                        request.answer.set_result(output)
            except Exception as error:  # noqa: BLE001 - handed to every waiting caller
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
            await asyncio.sleep(0)

    @torch.no_grad()
    def _generate(self, batch: list[_Request]) -> list[TokenOutput]:
        width = max(len(r.prompt) for r in batch)
        ids = torch.tensor([[self.pad] * (width - len(r.prompt)) + r.prompt for r in batch])
        extra: dict[str, Any] = {}
        images = [image for request in batch for image in request.images]
        if images:
            extra = picture_inputs(self.model_config.processor, images)
            if hasattr(self.model.base_model, "get_rope_index"):
                # Without the types, transformers gives picture tokens the positions of plain text.
                extra["mm_token_type_ids"] = (ids == self.image_token).int()
        out = self.model.generate(
            input_ids=ids,
            attention_mask=(ids != self.pad).long(),
            do_sample=False,
            max_new_tokens=self.config.response_length,
            pad_token_id=self.pad,
            eos_token_id=None if batch[0].sampling.get("ignore_eos") else self.end,
            suppress_tokens=None,
            logits_processor=self._processors(batch),
            **extra,
        )[:, width:].tolist()
        return [
            self._output(tokens, to_the_limit=bool(request.sampling.get("ignore_eos")))
            for request, tokens in zip(batch, out, strict=True)
        ]

    def _processors(self, batch: list[_Request]) -> LogitsProcessorList:
        sampling = batch[0].sampling
        temperature = float(sampling.get("temperature", 1.0))
        penalty = float(sampling.get("repetition_penalty", 1.0))
        steps = LogitsProcessorList([SuppressTokensLogitsProcessor(self.forbidden)])
        if penalty != 1.0:
            steps.append(RepetitionPenaltyLogitsProcessor(penalty))
        if temperature == 0:
            return steps
        steps.append(TemperatureLogitsWarper(temperature))
        top_k, top_p = int(sampling.get("top_k", -1)), float(sampling.get("top_p", 1.0))
        if top_k > 0 or top_p < 1:
            steps.append(Nucleus(top_k, top_p))
        steps.append(SeededSampling([int(r.sampling["seed"]) for r in batch]))
        return steps

    def _output(self, tokens: list[int], *, to_the_limit: bool) -> TokenOutput:
        finished = self.end in tokens and not to_the_limit
        if finished:
            tokens = tokens[: tokens.index(self.end) + 1]
        return TokenOutput(
            token_ids=tokens,
            stop_reason="completed" if finished else "length",
            extra_fields={"global_steps": self.step},
        )

    async def _nothing(self, *_: Any, **__: Any) -> None:
        return None

    # What verl asks of a server that shares its device with the trainer; a CPU has nothing to free.
    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = _nothing


class TransformersReplica(RolloutReplica):  # type: ignore[misc]
    """verl's handle on one `TransformersServer`."""

    server_class: type[TransformersServer] = TransformersServer

    def start_server(self) -> Any:
        """Start the server's actor, or find it."""
        name = _server_name(self.replica_rank)
        options = {"name": name, "get_if_exists": True, "max_concurrency": 1000, "num_cpus": 0}
        server = ray.remote(self.server_class).options(**options)
        return server.remote(self.config, self.model_config)

    async def launch_servers(self) -> None:
        """What verl calls once its workers are ready."""
        server = self.start_server()
        self.servers, self._server_handle = [server], server
        self._server_address = f"{CPU_ROLLOUT}:{self.replica_rank}"


def start_servers(config: Any) -> list[Any]:
    """Start the servers of a run's configuration before verl does.

    So a server imports what it needs while the trainer, TransferQueue and the workers start. On
    GPUs verl's own servers need the workers first.

    Returns:
        The actors' first handles: when these are gone, Ray ends the actors.
    """
    rollout = config.actor_rollout_ref.rollout
    if rollout.name != CPU_ROLLOUT:
        return []
    replica = RolloutReplicaRegistry.get(CPU_ROLLOUT)
    ranks = range(config.trainer.nnodes * config.trainer.n_gpus_per_node)
    model = config.actor_rollout_ref.model
    return [replica(rank, config=rollout, model_config=model).start_server() for rank in ranks]


class WeightSender(BaseRollout):  # type: ignore[misc]
    """The policy worker's end: rank r sends its weights to replica r."""

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """A CPU has nothing to free."""

    async def update_weights(
        self,
        weights: Generator[tuple[str, torch.Tensor], None, None],
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        """Copy the weights and hand them over."""
        copied = {name: weight.detach().cpu().clone() for name, weight in weights}
        server = ray.get_actor(_server_name(int(os.environ["RANK"])))
        await server.update_weights.remote(copied, global_steps)


def _server_name(rank: int) -> str:
    return f"rilbench_rollout_{rank}"


def _vllm_replica() -> type[RolloutReplica]:
    from rilbench.train.verl.vllm_cpu import CpuReplica  # needs vLLM

    return CpuReplica


RolloutReplicaRegistry.register(CPU_ROLLOUT, lambda: TransformersReplica)
RolloutReplicaRegistry.register(VLLM_CPU, _vllm_replica)
