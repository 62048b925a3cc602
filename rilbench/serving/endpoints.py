"""OpenAI-compatible servers: their addresses, proxies, and what they serve."""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from rilbench.api_keys import NO_KEY, without_key, without_query_values
from rilbench.errors import UserError

if TYPE_CHECKING:
    import aiohttp

_LONGEST = 16 * 1024**2  # bytes of a list of models, or of routes
_PATIENCE = 60.0  # seconds for which a busy server is asked again
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError)
"""Exceptions of a request to an address without such a server (an SSH port: BadStatusLine)."""
_ADDRESS = re.compile(r"(?:(?P<model>\S(?:.*\S)?)@)?(?P<url>https?://[^@\s/]+[^@\s]*)")
_SEVERAL = re.compile(r",(?=(?:[^,]*@)?https?://)")
_TRANSFORMERS_ROUTES = frozenset({"/v1/chat/completions", "/load_model", "/reset"})


def named_server(option: str) -> tuple[str, str] | None:
    """Read ``MODEL@URL`` or ``URL``.

    Returns:
        The model's name, empty without one, and the address up to ``/v1``; None for another text.
    """
    match = _ADDRESS.fullmatch(option)
    if match is None or option.startswith("sk-"):  # A key, which would be written everywhere.
        return None
    parts = urlsplit(match["url"])
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return match["model"] or "", urlunsplit(parts._replace(path=path))


def servers_of_model(option: str, given: Sequence[str]) -> tuple[str, list[str]]:
    """Read the servers of one model: its name, empty if none is given, and their addresses.

    Args:
        option: what the user calls them, for the errors.
        given: ``MODEL@URL`` or ``URL`` each; one name is enough.

    Raises:
        UserError: one is malformed, or they name several models.
    """
    servers = [named_server(text.strip()) for text in given]
    if None in servers:
        raise UserError(
            f"{option} {without_query_values(given[servers.index(None)])} is not understood; give "
            "URL or MODEL@URL, such as qwen2.5-vl-7b@http://127.0.0.1:8000/v1"
        )
    models, urls = zip(*filter(None, servers), strict=True)
    names = list(dict.fromkeys(filter(None, models)))
    if len(names) > 1:
        raise UserError(
            f"{option} names several models ({', '.join(names)}); all its servers must serve one"
        )
    return (names or [""])[0], list(dict.fromkeys(urls))


def several(option: str) -> list[str]:
    """Divide ``[MODEL@]URL,[MODEL@]URL`` into its servers."""
    return _SEVERAL.split(option)


def joined(base_url: str, path: str) -> str:
    """Return the address of a path below a server's; a query (Azure's) stays at the end."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))


def key_headers(base_url: str, api_key: str) -> dict[str, str]:
    """Return the headers with a server's key; Azure, whose addresses have a version, has its own.

    Read at https://learn.microsoft.com/azure/ai-services/openai/reference.
    """
    headers = {"Authorization": f"Bearer {api_key}"}
    return {**headers, "api-key": api_key} if "api-version=" in base_url else headers


def without_v1(base_url: str) -> str:
    """Return a hint for an address that was not found, if it has no version; else nothing."""
    parts = urlsplit(base_url)
    if parts.query or re.search(r"/v\d", parts.path):
        return ""
    return f"; the address of an OpenAI-compatible server ends in /v1: {joined(base_url, '/v1')}"


def checked(base_url: str) -> str:
    """Return a server's address without a slash at its end; a query stays.

    Raises:
        UserError: it is not an address.
    """
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if not good or "@" in parts.netloc or any(map(str.isspace, base_url)):
            raise ValueError
    except ValueError as error:  # also from urlsplit, and from a port that is no number
        raise UserError(
            f"{without_query_values(base_url)} is not the address of a server; give "
            "http://HOST:PORT/v1"
        ) from error
    return urlunsplit(parts._replace(path=parts.path.rstrip("/")))


class UnreachedError(UserError):
    """Nothing answers at the address."""


class UnlistedError(UserError):
    """The server answers, but not with a list of models; not every API has one."""


def all_checked(base_urls: str | Sequence[str]) -> list[str]:
    """Return one address or several as `checked` does; raises as it does."""
    return [checked(url) for url in ([base_urls] if isinstance(base_urls, str) else base_urls)]


def proxy_for(base_url: str) -> str | None:
    """Return the user's proxy for a server from the environment; None for one on this machine."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    here = host == "localhost" or host.endswith(".localhost")
    with suppress(ValueError):  # a name
        address = ipaddress.ip_address(host)
        here = address.is_loopback or address.is_unspecified
    if here or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def first_model(
    base_url: str,
    timeout: float = 10.0,
    api_key: str = NO_KEY,
    *,
    remedy: str = "name the model: --endpoint MODEL@URL",
) -> str:
    """Return the name of the first model that a server lists.

    ``transformers serve`` lists what is in a cache, whatever it serves: its list counts only if it
    has one model.

    Args:
        base_url: the address, up to and with ``/v1``.
        timeout: seconds.
        api_key: sent as a bearer token.
        remedy: the end of the errors' message.

    Raises:
        UnreachedError: it does not answer.
        UnlistedError: it answers, but not with a list.
    """
    models = listed_models(base_url, timeout, api_key, remedy=remedy)
    if len(models) > 1 and is_transformers(base_url, timeout):
        url = joined(checked(base_url), "/models")
        url = without_query_values(url)
        raise UserError(f"{url} lists what is in its cache, not what is served; {remedy}")
    return models[0]


def listed_by_all(
    base_urls: Sequence[str],
    api_keys: Sequence[str],
    *,
    remedy: str = "name the model: --endpoint MODEL@URL",
) -> str:
    """Return the name of the first model that each of several servers lists; some may be down.

    Raises:
        UserError: none lists one, or they list several.
    """
    found, failed = {}, UserError("")
    for url, key in zip(base_urls, api_keys, strict=True):
        try:
            found[url] = first_model(url, api_key=key, remedy=remedy)
        except UserError as error:  # noqa: PERF203  There are a few.
            failed = error
    if not found:
        raise failed
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} at {without_query_values(url)}" for url, name in found.items())
        raise UserError(f"the servers list several models ({said}); name the one to ask: MODEL@URL")
    return next(iter(found.values()))


def listed_models(
    base_url: str, timeout: float = 10.0, api_key: str = NO_KEY, *, remedy: str
) -> list[str]:
    """Return the names of the models that a server lists, at least one.

    Arguments and errors are those of `first_model`.
    """
    return [str(model["id"]) for model in models_list(base_url, timeout, api_key, remedy=remedy)]


def models_list(
    base_url: str, timeout: float = 10.0, api_key: str = NO_KEY, *, remedy: str
) -> list[dict[str, Any]]:
    """Return what a server tells of the models that it lists, at least one; each has an ``id``.

    Arguments and errors are those of `first_model`.
    """
    url = joined(checked(base_url), "/models")
    try:
        models = [dict(model) for model in _get(url, timeout, api_key)["data"]]
        models[0]["id"]  # an empty list is no answer
    except _NO_ANSWER as error:
        # A server that is not there; HTTPError, a subclass, says it well itself.
        cause = error.reason if type(error) is urllib.error.URLError else error
        why = without_key(" ".join(f"{cause}".split()) or type(error).__name__, api_key)
        answered = isinstance(error, (urllib.error.HTTPError, ValueError, LookupError, TypeError))
        kind = UnlistedError if answered else UnreachedError
        if getattr(error, "code", 0) == 404:
            remedy += without_v1(base_url)
        said = "does not list a model" if answered else "is not reached"
        raise kind(f"{without_query_values(f'{url} {said} ({why})')}; {remedy}") from error
    return models


def is_transformers(base_url: str, timeout: float = 10.0) -> bool:
    """Return whether the server is ``transformers serve`` (5.9 or later), by its routes.

    It publishes them, and no other OpenAI-compatible server that we know has two of them. False
    also where nothing answers.
    """
    parts = urlsplit(checked(base_url))
    root = urlunsplit(parts._replace(path=parts.path.removesuffix("/v1") + "/openapi.json"))
    try:
        return set(_get(root, timeout)["paths"]) >= _TRANSFORMERS_ROUTES
    except _NO_ANSWER:
        return False


async def read_body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return a reply's body, or its first ``most`` + 1 bytes where it is longer than ``most``."""
    content = b""
    while len(content) <= most and (more := await response.content.read(most + 1 - len(content))):
        content += more
    return content


def refusal(content: bytes, api_key: str) -> str:
    """Return what a server's error reply says, in one line and without the key."""
    text = content.decode("utf-8", "replace")
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        text = str(json.loads(text)["error"]["message"])  # as the OpenAI API has it
    # Without the key before anybody cuts the text: half of a key would stay.
    return " ".join(without_key(text, api_key).split())


def seconds_to_wait(retry_after: str) -> float:
    """Return the seconds of a ``Retry-After``: a number or a date; 0 for neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            date = parsedate_to_datetime(retry_after)
        except ValueError:
            return 0.0
        date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        seconds = (date - datetime.now(timezone.utc)).total_seconds()
    return seconds if 0 <= seconds < math.inf else 0.0


def _get(url: str, timeout: float, api_key: str = NO_KEY) -> Any:
    """Return the JSON at an address; raises one of `_NO_ANSWER`."""
    request = urllib.request.Request(url)
    # Not sent on to another server that this one may point to.
    for name, value in key_headers(url, api_key).items():
        request.add_unredirected_header(name, value)
    proxy = proxy_for(url)
    proxies = {} if proxy is None else {urlsplit(url).scheme: proxy}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            with opener.open(request, timeout=timeout) as response:
                return json.loads(response.read(_LONGEST))
        except urllib.error.HTTPError as error:
            pause = seconds_to_wait(error.headers.get("Retry-After", ""))
            if error.code not in (429, 503) or not pause or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
