"""A server of one model on a CPU, which answers requests in batches: what vLLM is on a GPU.

It has verl's interface of a rollout server; `rilbench.model.server` puts HTTP before it. Sampling
is reproducible whatever the order in which requests arrive: each request brings its own seed, and
its noise depends on nothing else.

Ray loads a server's class in every process that holds its handle. So this module imports neither
verl nor torch: `rilbench.model.generation` has the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

QUIET_SECONDS = {"greedy": 0.3, "sampled": 20.0, "scored": 0.3}
"""A batch that is not full starts when no request has come for this long.

A step's samples always fill a batch; only where one failed would they not. Waiting for them keeps
the batch, and with it every rounding, the same in every run.
"""


@dataclass
class Response:
    """The fields of verl's ``TokenOutput``."""

    token_ids: list[int]
    stop_reason: str
    extra_fields: dict[str, Any]
    log_probs: list[float] | None = None
    routed_experts: Any = None
    num_preempted: int | None = None


@dataclass
class Request:
    """One prompt that waits for its response."""

    prompt: list[int]
    sampling: dict[str, Any]
    images: list[Any]
    answer: asyncio.Future[Response]

    @property
    def group(self) -> tuple[Any, ...]:
        """Requests of one group are generated in one batch, however many images they have."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "ignore_eos", "max_tokens")
        return (self.is_scored, *(self.sampling.get(name) for name in names))

    @property
    def is_scored(self) -> bool:
        """Whether the log-probabilities of the prompt's own tokens are asked for, as of vLLM."""
        return self.sampling.get("prompt_logprobs") is not None


class BatchServer:
    """One model that answers generation requests in batches; lives in a Ray actor.

    Args:
        model: folder of the model.
        batch_size: requests of a full batch.
        max_tokens: length at which a response is cut, unless its request says another.
        quiet_seconds: instead of `QUIET_SECONDS`.
    """

    def __init__(
        self,
        model: str,
        batch_size: int,
        max_tokens: int,
        quiet_seconds: Mapping[str, float] = QUIET_SECONDS,
    ) -> None:
        self.quiet_seconds = quiet_seconds
        self.waiting: list[Request] = []
        self.arrived = asyncio.Event()
        self.loop_task: asyncio.Task[None] | None = None
        self.load(model, batch_size, max_tokens)

    def load(self, model: str, batch_size: int, max_tokens: int) -> None:
        """Load the run's model."""
        from rilbench.model.generation import Generator

        self.batch_size = batch_size
        self.generator = Generator(model, max_tokens)
        self.step: int | None = None

    async def update_weights(
        self, weights: Mapping[str, Any], global_steps: int | None = None
    ) -> None:
        """Take the policy's weights, by name, of a step."""
        self.generator.load_weights(weights)
        self.step = global_steps if global_steps is not None else self.step

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        image_data: list[Any] | None = None,
        **_: Any,
    ) -> Response:
        """Queue one request and wait for its tokens."""
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.waiting.append(
            Request(list(prompt_ids), dict(sampling_params), list(image_data or []), answer)
        )
        self.arrived.set()
        if self.loop_task is None or self.loop_task.done():
            self.loop_task = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        """Answer until nothing waits: full batches at once, others after a short silence."""
        while self.waiting:
            while len(self.waiting) < self.batch_size:
                self.arrived.clear()
                sampled = any(r.sampling.get("temperature", 1.0) > 0 for r in self.waiting)
                kind = "sampled" if sampled else "greedy"
                if all(r.is_scored for r in self.waiting):
                    kind = "scored"
                quiet = self.quiet_seconds[kind]
                try:
                    await asyncio.wait_for(self.arrived.wait(), quiet)
                except asyncio.TimeoutError:
                    break
            # In a fixed order, so that a batch has the same shape in every run.
            self.waiting.sort(key=lambda r: (r.sampling.get("seed", 0), r.prompt))
            group = self.waiting[0].group
            batch = [r for r in self.waiting if r.group == group][: self.batch_size]
            chosen = {id(r) for r in batch}
            self.waiting = [r for r in self.waiting if id(r) not in chosen]
            try:
                answer = self._score if batch[0].is_scored else self._generate
                for request, response in zip(batch, answer(batch), strict=True):
                    if not request.answer.done():  # nobody waits for it any more
                        request.answer.set_result(response)
            except Exception as error:  # noqa: BLE001 - handed to every waiting caller
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
            await asyncio.sleep(0)

    def _generate(self, batch: list[Request]) -> list[Response]:
        return [
            Response(tokens, "completed" if ended else "length", {"global_steps": self.step})
            for tokens, ended in self.generator.generate(batch)
        ]

    def _score(self, batch: list[Request]) -> list[Response]:
        """In verl's layout: at each place the log-probability of the token that follows it."""
        responses = []
        for request, found in zip(batch, self.generator.log_probs(batch), strict=True):
            following = [[token] for token in [*request.prompt[1:], self.generator.end]]
            scores = [[score] for score in [*found, 0.0]]
            fields = {"prompt_ids": following, "prompt_logprobs": scores}
            responses.append(Response([self.generator.end], "completed", fields))
        return responses

    async def _nothing(self, *_: Any, **__: Any) -> None:
        return None

    # What verl asks of a server that shares its device with the trainer; a CPU has nothing to free.
    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = _nothing
