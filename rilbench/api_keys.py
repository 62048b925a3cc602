"""Keys of servers: from the environment, and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

JUDGE_KEY = "RILBENCH_JUDGE_KEY"
"""Environment variable with the judge's key."""

ENDPOINT_KEY = "RILBENCH_ENDPOINT_KEY"
"""Environment variable with the key of the servers of a user's models."""

NO_KEY = "none"
"""Sent where the user has set no key."""

_NO_SECRET = "api-version"
_WITH_QUERY = re.compile(
    r"""(?P<address>https?://[^\s?"'<>]+)\?"""
    r"""(?P<query>(?:(?!,(?:\s|(?:[^,@\s]*@)?https?://))[^\s"'<>])+)"""
)
"""An address with a query; of several in one text a comma may divide them."""


# One rule, in training as in evaluation: the key of a server's host, such as
# ``RILBENCH_JUDGE_KEY_API_EXAMPLE_COM``, goes before the key of a model, such as
# ``RILBENCH_ENDPOINT_KEY_72B``, and that one before the key of all.


def judge_key(url: str = "") -> str:
    """Return the key for a judge's server: its host's own, or that of all."""
    return _first_key(_variable(JUDGE_KEY, _host(url)), JUDGE_KEY)


def judge_keys(urls: str | Sequence[str]) -> list[str]:
    """Return the keys for a judge's servers, in order."""
    return [judge_key(url) for url in ([urls] if isinstance(urls, str) else urls)]


def endpoint_key(model: str = "", url: str = "") -> str:
    """Return the key for a server of a user's model: its host's, the model's, or that of all.

    Args:
        model: a teacher's name in the recipe; for an evaluation, the model's name at its server.
        url: the server's address.
    """
    names = [_variable(ENDPOINT_KEY, each) for each in (_host(url), model) if each]
    return _first_key(*names, ENDPOINT_KEY)


def endpoint_variable(teacher: str) -> str:
    """Return the environment variable with the key of one teacher's server."""
    return _variable(ENDPOINT_KEY, teacher)


def _variable(name: str, of: str) -> str:
    return f"{name}_{re.sub(r'[^A-Z0-9]', '_', of.upper())}" if of else name


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _first_key(*names: str) -> str:
    return next((key for name in names if (key := _key(name)) != NO_KEY), NO_KEY)


def _key(name: str) -> str:
    # Stripped: a key read from a file may end with a line feed, which no header takes.
    return os.environ.get(name, "").strip() or NO_KEY


def without_key(text: str, key: str) -> str:
    """Return a server's text without the key, which some servers repeat when they refuse it.

    Shorten the text afterwards: of a key that is cut in two, one half would stay.
    """
    return text if key in ("", NO_KEY) else text.replace(key, "…")


def without_query_values(text: str) -> str:
    """Return a text whose addresses have no values in their queries, which may be keys.

    The value of ``api-version``, which Azure's addresses need, stays.
    """

    def shown(found: re.Match[str]) -> str:
        kept = []
        for pair in found["query"].split("&"):
            name, is_pair, _ = pair.partition("=")
            secret = f"{name}=…" if is_pair else "…"
            kept.append(pair if name == _NO_SECRET else secret)
        return f"{found['address']}?{'&'.join(kept)}"

    return _WITH_QUERY.sub(shown, text)


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a program that asks none of the user's servers."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith((JUDGE_KEY, ENDPOINT_KEY))
    }
