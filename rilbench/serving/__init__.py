"""OpenAI-compatible servers: start one (`serve`), ask any (`ChatClient`).

Everything that generates outside training stands behind such a server: teachers, judge, students
under evaluation.
"""

from rilbench.serving.chat import (
    ChatClient,
    Completion,
    Message,
    RefusedError,
    Sampling,
    failure,
    first_model,
    image_part,
    text_part,
)
from rilbench.serving.server import Server, log_end, serve, vllm_program

__all__ = [
    "ChatClient",
    "Completion",
    "Message",
    "RefusedError",
    "Sampling",
    "Server",
    "failure",
    "first_model",
    "image_part",
    "log_end",
    "serve",
    "text_part",
    "vllm_program",
]
