"""A model's server, in a thread, that answers as a test wants: headers, silence and nonsense."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass(frozen=True)
class Reply:
    """One reply; ``silence`` is held until the server ends."""

    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    silence: bool = False


def text(content: str | None = "B", **more: object) -> Reply:
    """A completion as the OpenAI API has it."""
    choice = {"message": {"content": content}, "finish_reason": "stop"}
    return Reply(content=json.dumps({"model": "m", "choices": [choice], **more}).encode())


@contextmanager
def bad_server(answer: Callable[[str], Reply]) -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was asked so far; ``answer`` gets the text of the last message."""
    asked: list[str] = []
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(str(body["messages"][-1]["content"]))
            self._send(answer(asked[-1]))

        def do_GET(self) -> None:
            self._send(Reply(content=b'{"data": [{"id": "m"}]}'))

        def _send(self, reply: Reply) -> None:
            if reply.silence:
                end.wait()
                return
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.content)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(reply.content)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        end.set()
        server.shutdown()
        server.server_close()


@contextmanager
def ssh_port() -> Iterator[str]:
    """The address of something that speaks first, and not HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                    connection.recv(65536)

        threading.Thread(target=greet, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        listener.shutdown(socket.SHUT_RDWR)


def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
