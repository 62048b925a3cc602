"""Keys of servers: from the environment, and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

JUDGE_KEY = "RILBENCH_JUDGE_KEY"
"""Environment variable with the judge's key."""

ENDPOINT_KEY = "RILBENCH_ENDPOINT_KEY"
"""Environment variable with the key of the servers of a user's models. A teacher's own, such as
``RILBENCH_ENDPOINT_KEY_72B``, goes before it."""

NO_KEY = "none"
"""Sent where the user has set no key."""


def judge_key() -> str:
    """Return the key for the judge."""
    return _key(JUDGE_KEY)


def endpoint_key(teacher: str = "") -> str:
    """Return the key for the server of a user's model: a teacher's own, or that of all."""
    own = _key(endpoint_variable(teacher)) if teacher else NO_KEY
    return _key(ENDPOINT_KEY) if own == NO_KEY else own


def endpoint_variable(teacher: str) -> str:
    """Return the environment variable with the key of one teacher's server."""
    return f"{ENDPOINT_KEY}_{re.sub(r'[^A-Z0-9]', '_', teacher.upper())}"


def _key(name: str) -> str:
    # Stripped: a key read from a file may end with a line feed, which no header takes.
    return os.environ.get(name, "").strip() or NO_KEY


def without_key(text: str, key: str) -> str:
    """Return a server's text without the key, which some servers repeat when they refuse it.

    Shorten the text afterwards: of a key that is cut in two, one half would stay.
    """
    return text if key in ("", NO_KEY) else text.replace(key, "…")


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a program that asks none of the user's servers."""
    return {
        name: value
        for name, value in environment.items()
        if name != JUDGE_KEY and not name.startswith(ENDPOINT_KEY)
    }
