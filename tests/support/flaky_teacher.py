"""A teacher's server, in a thread, that fails as servers do, and remembers who was asked when."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TROUBLES = ("timeout", "busy", "dropped", "truncated", "error")


class FlakyTeacher:
    """Of ``trouble`` of all requests one goes wrong in each way; ``empty`` of them get no words.

    A response has ``tokens`` of them, of which the end is one.
    """

    def __init__(
        self, trouble: float = 0.0, empty: float = 0.0, pause: float = 0.0, tokens: int = 3
    ) -> None:
        self.trouble, self.empty, self.pause, self.tokens = trouble, empty, pause, tokens
        self.draw = random.Random(0)
        self.asked: list[tuple[float, int, str]] = []
        """When, with which seed, and the result."""
        self.lock = threading.Lock()
        self.end = threading.Event()
        teacher = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                teacher.answer(self, body)

            def do_GET(self) -> None:
                self.reply(b'{"data": [{"id": "teacher"}]}')

            def reply(self, content: bytes, status: int = 200, **headers: str) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                try:
                    self.wfile.write(content)
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """The other end was killed."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, object]) -> None:
        seed = int(str(body.get("seed", 0)))
        with self.lock:
            drawn = self.draw.random()
            step = self.trouble / len(TROUBLES)
            kind = TROUBLES[int(drawn / step)] if drawn < self.trouble else "answer"
            if kind == "answer" and self.draw.random() < self.empty:
                kind = "empty"
            self.asked.append((time.monotonic(), seed, kind))
        if self.pause:
            time.sleep(self.pause)
        text = "" if kind == "empty" else f"answer {seed}"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        reply_body = {"choices": [choice], "usage": {"completion_tokens": self.tokens}}
        content = json.dumps(reply_body).encode()
        reply = handler.reply  # type: ignore[attr-defined]
        if kind == "timeout":
            self.end.wait(30)
            handler.close_connection = True
        elif kind == "busy":
            reply(b"slow down", 429, Retry_After="1")
        elif kind == "dropped":
            handler.connection.close()
            handler.close_connection = True
        elif kind == "truncated":
            reply(content[: len(content) // 2])
        elif kind == "error":
            reply(b"oh", 500)
        else:
            reply(content)


@contextmanager
def flaky_teacher(
    trouble: float = 0.0, empty: float = 0.0, pause: float = 0.0, tokens: int = 3
) -> Iterator[FlakyTeacher]:
    """It listens while the block runs."""
    found = FlakyTeacher(trouble, empty, pause, tokens)
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        found.end.set()
        found.server.shutdown()
        found.server.server_close()
