"""Serve a small model on a CPU over the OpenAI API, in batches.

``transformers serve`` answers one request at a time, and seeds each as it arrives. Here a
response depends on its own seed alone, however many are answered together.

    python -m rilbench.model.server MODEL --host 127.0.0.1 --port 8000
"""

from __future__ import annotations

import argparse
import base64
import io
import json
from functools import lru_cache
from typing import Any

from aiohttp import web
from PIL import Image

from rilbench.model.batch_server import BatchServer

BATCH_SIZE = 128
QUIET_SECONDS = {"greedy": 0.03, "sampled": 0.03}
"""Requests come together from one client: a short silence means that it waits for answers."""
MAX_TOKENS = 1024
_MAX_BODY = 64 * 1024**2  # bytes


class ChatServer:
    """The routes of one model.

    Args:
        model: its folder, which is its name too.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.server = BatchServer(model, BATCH_SIZE, MAX_TOKENS, QUIET_SECONDS)
        self.processor = self.server.generator.processor
        self.read = lru_cache(maxsize=64)(self._read)

    def application(self) -> web.Application:
        """The web application."""
        application = web.Application(client_max_size=_MAX_BODY)
        application.router.add_get("/v1/models", self.models)
        application.router.add_post("/v1/chat/completions", self.chat)
        return application

    async def models(self, _: web.Request) -> web.Response:
        """The list of the one model."""
        return web.json_response({"object": "list", "data": [{"id": self.model}]})

    async def chat(self, request: web.Request) -> web.Response:
        """One response to a conversation."""
        body = await request.json()
        try:
            prompt, images = self.read(json.dumps(body["messages"]))
        except (KeyError, ValueError, OSError, StopIteration) as error:
            why = " ".join(str(error).split())[:300]
            return web.json_response({"error": {"message": f"cannot read it: {why}"}}, status=400)
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")
        sampling = {name: body[name] for name in names if body.get(name) is not None}
        sampling["seed"] = body.get("seed") or 0
        response = await self.server.generate(prompt, sampling, "", images)
        tokens = response.token_ids
        text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        reason = "stop" if response.stop_reason == "completed" else "length"
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": reason,
        }
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(tokens),
            "total_tokens": len(prompt) + len(tokens),
        }
        return web.json_response(
            {"object": "chat.completion", "model": self.model, "choices": [choice], "usage": usage}
        )

    def _read(self, messages: str) -> tuple[list[int], list[Image.Image]]:
        """The tokens of a conversation, and its pictures."""
        conversation: list[dict[str, Any]] = []
        images: list[Image.Image] = []
        for message in json.loads(messages):
            content = message["content"]
            parts: list[dict[str, Any]] = (
                [{"type": "text", "text": content}] if isinstance(content, str) else content
            )
            read: list[dict[str, Any]] = []
            for part in parts:
                if part["type"] == "text":
                    read.append({"type": "text", "text": part["text"]})
                else:
                    images.append(read_picture(part["image_url"]["url"]))
                    read.append({"type": "image"})
            conversation.append({"role": message["role"], "content": read})
        text = self.processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=False
        )
        inputs = self.processor(text=[text], images=images or None, return_tensors="pt")
        return inputs["input_ids"][0].tolist(), images


def read_picture(url: str) -> Image.Image:
    """The picture of a data URL, in RGB.

    Raises:
        ValueError: it is none.
        OSError: it is none that Pillow reads.
    """
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m rilbench.model.server")
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    application = ChatServer(given.model).application()
    web.run_app(application, host=given.host, port=given.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
