"""Questions to a judge's proxy, as a kit asks them."""

import json
import urllib.request
from typing import Any

from rilbench.judge.proxy import JudgeProxy


def ask(proxy: JudgeProxy, text: str, **more: Any) -> str:
    """Return the reply's text."""
    body = {"model": "gpt-4-turbo", "messages": [{"role": "user", "content": text}], **more}
    request = urllib.request.Request(
        f"{proxy.url}/chat/completions", json.dumps(body).encode(), {"Authorization": "Bearer no"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return str(json.load(reply)["choices"][0]["message"]["content"])
