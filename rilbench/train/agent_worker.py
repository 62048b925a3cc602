"""verl's agent loop worker, which prepares a question's pictures once and can begin anew."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import ray
import torch
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

_QUESTIONS_KEPT = 256


class AgentLoopWorker(AgentLoopWorkerTQ.__ray_actor_class__):  # type: ignore[misc]
    """One of the processes that run agent loops."""

    def __init__(self, *arguments: Any) -> None:
        # Needed although it adds little: Ray sends inherited methods by value, where super() fails.
        super().__init__(*arguments)
        self.prepared: OrderedDict[int, tuple[Any, dict[str, torch.Tensor]]] = OrderedDict()

    async def reconfigure(self, *arguments: Any) -> None:
        """Drop what is under way and take another run's configuration."""
        for task in self.background_tasks:
            task.cancel()
        AgentLoopWorker.__init__(self, *arguments)

    def _compute_multi_modal_inputs(
        self, output: Any, input_ids: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """verl prepares the pictures for each row; the rows of a question share theirs."""
        media = output.multi_modal_data or {}
        pictures = media.get("images")
        if not pictures or any(value for name, value in media.items() if name != "images"):
            inputs: dict[str, torch.Tensor] = super()._compute_multi_modal_inputs(output, input_ids)
            return inputs
        key = id(pictures)
        if key not in self.prepared:
            prepared = super()._compute_multi_modal_inputs(output, input_ids)
            self.prepared[key] = (pictures, prepared)  # held, so that no other takes its id
            while len(self.prepared) > _QUESTIONS_KEPT:
                self.prepared.popitem(last=False)
        return dict(self.prepared[key][1])


class AgentLoops(AgentLoopManagerTQ):  # type: ignore[misc]
    """verl's manager of those workers."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.agent_loop_workers_class = ray.remote(AgentLoopWorker)

    def reconfigure(self, *arguments: Any) -> None:
        """Take another run's configuration."""
        AgentLoops.__init__(self, *arguments)
        ray.get([worker.reconfigure.remote(*arguments) for worker in self.agent_loop_workers])
