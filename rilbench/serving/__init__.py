"""OpenAI-compatible servers: start one (`serve`), ask any (`ChatClient`).

Everything that generates text outside training is such a server: teachers, judge, students under
evaluation.
"""

from rilbench.serving.chat import (
    ChatClient,
    Message,
    RequestRefusedError,
    Sampling,
    UnansweredError,
    image_part,
    text_part,
)
from rilbench.serving.endpoints import (
    UnlistedError,
    UnreachedError,
    first_model,
    is_transformers,
    listed_models,
    named_server,
    proxy_for,
    servers_of_model,
    several,
)
from rilbench.serving.reply import Completion, failure
from rilbench.serving.server import Server, log_end, serve, vllm_python

__all__ = [
    "ChatClient",
    "Completion",
    "Message",
    "RequestRefusedError",
    "Sampling",
    "Server",
    "UnansweredError",
    "UnlistedError",
    "UnreachedError",
    "failure",
    "first_model",
    "image_part",
    "is_transformers",
    "listed_models",
    "log_end",
    "named_server",
    "proxy_for",
    "serve",
    "servers_of_model",
    "several",
    "text_part",
    "vllm_python",
]
