"""Keys of servers: from the environment, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping

JUDGE_KEY = "RILBENCH_JUDGE_KEY"
"""Name of the environment variable with the judge's key."""

ENDPOINT_KEY = "RILBENCH_ENDPOINT_KEY"
"""Name of the environment variable with the key of the server that a user's model stands behind."""

NO_KEY = "none"
"""Sent where the user has set none."""


def judge_key() -> str:
    """The key that a judge is sent."""
    return _value(os.environ.get(JUDGE_KEY))


def endpoint_key() -> str:
    """The key that the server of a user's model is sent."""
    return _value(os.environ.get(ENDPOINT_KEY))


def _value(found: str | None) -> str:
    """Without the line's end that a file may have brought, which no header takes."""
    return (found or "").strip() or NO_KEY


def without_key(text: str, key: str) -> str:
    """The text of a server, some of which repeat a wrong key in their refusal.

    Cut it afterwards: of a key that is cut in two, one half would stay.
    """
    return text if key in ("", NO_KEY) else text.replace(key, "…")


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program that asks no server of the user's."""
    return {name: value for name, value in environment.items() if name not in _NAMES}


_NAMES = frozenset({JUDGE_KEY, ENDPOINT_KEY})
