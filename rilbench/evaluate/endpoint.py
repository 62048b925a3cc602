"""An endpoint: a server that already serves the model to evaluate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rilbench.api_keys import ENDPOINT_KEY, endpoint_key
from rilbench.checkpoint import Checkpoint, Labels
from rilbench.errors import UserError
from rilbench.serving import first_model, is_transformers, named_server


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server."""

    url: str
    """Up to ``/v1``."""
    model: str
    """Its name there."""
    transformers: bool = False
    """Whether it is ``transformers serve``, which deviates from the OpenAI API."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The model's labels and fingerprint, made from its name and address only."""
        fingerprint = hashlib.sha256(f"{self.model}@{self.url}".encode()).hexdigest()[:16]
        labels = Labels(student=self.model.rsplit("/", 1)[-1], method="base", teacher="none")
        return Checkpoint(Path(self.model), fingerprint, "a model known by its name only", labels)


def find_endpoint(option: str) -> Endpoint:
    """Read ``MODEL@URL``, or ``URL`` for the first model that the server lists.

    Raises:
        UserError: it is neither, or the server lists no model.
    """
    named = named_server(option)
    if named is None:
        raise UserError(
            f"--endpoint {option} is not understood; give URL or MODEL@URL, such as "
            f"qwen2.5-vl-7b@http://127.0.0.1:8000/v1; a key goes into {ENDPOINT_KEY}"
        )
    model, url = named
    return Endpoint(url, model or first_model(url, api_key=endpoint_key()), is_transformers(url))
