"""A language model as judge, in a thread, that says what a test wants."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rilbench.evaluate.identity import TOKENS
from rilbench.serving.chat import PROBE

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]
"""From the request's body to status and body of the reply."""


class FakeJudge:
    """A judge in a thread that remembers what it was asked."""

    def __init__(self, answer: Answer, models: Sequence[str | dict[str, str]]) -> None:
        self.seen: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                judge.seen.append(body)
                judge.keys.add(self.headers["Authorization"])
                status, content = answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                listed = [{"id": model} if isinstance(model, str) else model for model in models]
                content = json.dumps({"data": listed}).encode()
                self.send_response(200 if models else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    @property
    def questions(self) -> list[dict[str, Any]]:
        """What it was asked but for the probes, and questions by which a model is recognised."""
        return [
            body
            for body in self.seen
            if body["messages"][-1]["content"] != PROBE and body.get("max_tokens") != TOKENS
        ]


@contextmanager
def fake_judge(answer: Answer, models: Sequence[str | dict[str, str]] = ()) -> Iterator[FakeJudge]:
    """A server that lists these models, if any: their names, or whole entries."""
    found = FakeJudge(answer, models)
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()


def says(text: str) -> tuple[int, bytes]:
    """A reply as the OpenAI API has it."""
    content = {"model": "judge-2026-01", "choices": [{"message": {"content": text}}]}
    return 200, json.dumps(content).encode()
