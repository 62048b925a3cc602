"""Check the hub, judges, endpoints, and whether keys are set. No key is ever shown."""

from __future__ import annotations

import http.client
import os
import urllib.request
from collections.abc import Callable, Iterator

from rilbench.api_keys import (
    ENDPOINT_KEY,
    JUDGE_KEY,
    NO_KEY,
    endpoint_key,
    judge_key,
    without_query_values,
)
from rilbench.doctor.check_result import CheckResult, attempt
from rilbench.errors import UserError
from rilbench.serving import UnlistedError, is_transformers, listed_models, named_server

HUB_VARIABLE = "HF_ENDPOINT"
"""Environment variable of the hub, for a mirror."""


def hub(timeout: float = 10.0) -> CheckResult:
    """Check whether models can be downloaded; a machine without network is not wrong."""
    url = os.environ.get(HUB_VARIABLE) or "https://huggingface.co"
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/api/models?limit=1", method="GET")
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            reply.read(1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = " ".join(f"{error}".split())[:150] or type(error).__name__
        remedy = "download models and data elsewhere and give their folders"
        return CheckResult("hub", "missing", f"{url} is not reached ({why})", remedy)
    return CheckResult("hub", "ok", f"{url} answers")


def keys() -> Iterator[CheckResult]:
    """Check which keys are set."""
    own = f"{ENDPOINT_KEY}_"
    teachers = [
        (name, endpoint_key(name.removeprefix(own)))
        for name in sorted(os.environ)
        if name.startswith(own)
    ]
    for name, key in ((JUDGE_KEY, judge_key()), (ENDPOINT_KEY, endpoint_key()), *teachers):
        if key == NO_KEY:
            yield CheckResult(
                name, "missing", "not set", "only a server that asks for a key needs it"
            )
        else:
            yield CheckResult(name, "ok", "set")


def server(name: str, option: str, key_of: Callable[[str], str], remedy: str) -> CheckResult:
    """Check whether a server lists its models, and among them the one that is named.

    ``key_of`` returns the key for an address.
    """

    def check() -> str:
        named = named_server(option)
        if named is None:
            raise UserError(f"{option} is not understood; give URL or MODEL@URL")
        model, url = named
        shown = without_query_values(url)
        try:
            served = listed_models(url, api_key=key_of(url), remedy=remedy)
        except UnlistedError:
            if not model:
                raise
            return f"{shown} answers, and lists no models"
        # transformers serve lists what is in a cache, whatever it serves.
        if model and model not in served and not is_transformers(url):
            raise UserError(f"{shown} serves {', '.join(served[:5])}, not {model}; {remedy}")
        return f"{shown} serves {model or ', '.join(served[:5])}"

    return attempt(name, check)
