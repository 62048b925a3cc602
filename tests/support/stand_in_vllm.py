"""What stands for vLLM's server where there is no GPU: its command line, and no model.

Run as ``python -m vllm.entrypoints.openai.api_server``, or as ``vllm.entrypoints.cli.main serve
MODEL``, from the package that `install` writes.

``STAND_IN_VLLM`` says how it starts: ``{"seconds": 240}`` late, ``{"dies": "…"}`` not at all, with
this text in its log.
"""

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def install(folder: Path) -> None:
    """Write a package ``vllm`` whose server is this file."""
    package = folder / "vllm" / "entrypoints"
    for module in (package / "openai" / "api_server.py", package / "cli" / "main.py"):
        module.parent.mkdir(parents=True)
        (module.parent / "__init__.py").touch()
        module.write_text(Path(__file__).read_text(encoding="utf-8"))
    for part in (package, package.parent):
        (part / "__init__.py").touch()


def main() -> None:
    """Serve until the end, and write the arguments and the times of start and end."""
    parser = argparse.ArgumentParser()
    texts = ("model", "host", "port", "dtype", "generation-config", "max-model-len")
    for name in (*texts, "served-model-name", "gpu-memory-utilization"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--data-parallel-size", type=int, default=1)
    given = sys.argv[1:]
    arguments = parser.parse_args(["--model", *given[1:]] if given[0] == "serve" else given)
    start = json.loads(os.environ.get("STAND_IN_VLLM", "{}"))
    time.sleep(start.get("seconds", 0))
    if "dies" in start:
        sys.exit(start["dies"])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = {"at": time.time(), "arguments": vars(arguments), "fields": sorted(body)}
            told |= {"pid": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            said = start.get("says", f"said {body.get('seed')} <answer>1</answer>")
            choice = {"message": {"content": said}, "finish_reason": "stop"}
            self.reply({"choices": [choice], "model": body["model"]})

        def do_GET(self) -> None:
            name = arguments.served_model_name or arguments.model
            self.reply({"data": [{"id": name, "root": arguments.model}]})

        def reply(self, values: dict[str, Any]) -> None:
            content = json.dumps(values).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer((arguments.host, int(arguments.port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
