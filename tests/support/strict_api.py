"""An API provider's server, in a thread: it refuses what it does not know, and limits its rate."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FIELDS = {"model", "messages", "max_completion_tokens", "temperature", "top_p", "n", "seed"}
"""All that it takes."""

Write = Callable[[dict[str, Any]], str]
"""From the request's body to the text of a choice."""


class StrictApi:
    """No list of models, one key, one model, only `FIELDS`, and ``burst`` requests a ``window``."""

    def __init__(self, model: str, key: str, write: Write, burst: int, window: int) -> None:
        self.model, self.key, self.write, self.window = model, key, write, window
        self.served: list[dict[str, Any]] = []
        self.refused: list[tuple[int, str]] = []
        """Status and message of each refusal but those for the rate."""
        self.limited, self.too_early = 0, 0
        """Requests told to wait, and those that came although they were."""
        self.left, self.burst, self.opens = burst, burst, 0.0
        self.lock = threading.Lock()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(404, {"error": {"message": "there is no such page"}})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with api.lock:
                    wait = api.seconds_to_wait()
                if wait:
                    return self.reply(429, {"error": {"message": "slow down"}}, wait)
                status, why = api.refusal(body, self.headers["Authorization"])
                if status != 200:
                    api.refused.append((status, why))
                    return self.reply(status, {"error": {"message": why}})
                api.served.append(body)
                choices = [
                    {"message": {"content": f"{api.write(body)}"}, "finish_reason": "stop"}
                    for _ in range(body.get("n", 1))
                ]
                usage = {"prompt_tokens": 9, "completion_tokens": 3 * len(choices)}
                return self.reply(200, {"model": api.model, "choices": choices, "usage": usage})

            def reply(self, status: int, content: object, wait: int = 0) -> None:
                encoded = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(encoded)))
                if wait:
                    self.send_header("Retry-After", str(wait))
                self.end_headers()
                self.wfile.write(encoded)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def seconds_to_wait(self) -> int:
        """Count a request; the seconds that it is told to wait, or 0."""
        now = time.monotonic()
        if now < self.opens:
            # What was on its way when the window closed is no fault of the client's.
            self.too_early += now > self.opens - self.window / 2
            self.limited += 1
            return self.window
        if self.left == 0:
            self.left, self.opens = self.burst, now + self.window
            self.limited += 1
            return self.window
        self.left -= 1
        return 0

    def refusal(self, body: dict[str, Any], authorization: str | None) -> tuple[int, str]:
        """Status 200, or another and why."""
        if authorization != f"Bearer {self.key}":
            return 401, f"Incorrect API key provided: {authorization}"
        if body.get("model") != self.model:
            return 404, f"The model {body.get('model')!r} does not exist"
        if "max_tokens" in body:
            return 400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        if unknown := body.keys() - FIELDS:
            return 400, f"Unrecognized request argument supplied: {', '.join(sorted(unknown))}"
        for message in body["messages"]:
            parts = message["content"] if isinstance(message["content"], list) else []
            for part in parts:
                if part["type"] == "image_url" and not is_picture(part["image_url"]["url"]):
                    return 400, "Invalid image"
        return 200, ""


def is_picture(url: str) -> bool:
    """Whether a data URL is what it says."""
    head, _, encoded = url.partition(";base64,")
    marks = {"data:image/png": b"\x89PNG", "data:image/jpeg": b"\xff\xd8"}
    return head in marks and base64.b64decode(encoded).startswith(marks[head])


@contextmanager
def strict_api(
    model: str, key: str, write: Write, burst: int = 1000, window: int = 1
) -> Iterator[StrictApi]:
    """It listens while the block runs; ``window`` is in seconds."""
    found = StrictApi(model, key, write, burst, window)
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()
