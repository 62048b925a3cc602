"""The rollout server of a warm session; imports as little as the class that it derives from."""

from __future__ import annotations

from rilbench.train.verl.cpu_server import TransformersServer


class WarmServer(TransformersServer):
    """A rollout server that can load another run's model."""

    async def reconfigure(self, model: str, batch_size: int, max_tokens: int) -> None:
        """Serve another run; requests that still wait are dropped."""
        if self.loop_task is not None:
            self.loop_task.cancel()
        for request in self.waiting:
            request.answer.cancel()
        self.waiting, self.loop_task = [], None
        self.load(model, batch_size, max_tokens)
