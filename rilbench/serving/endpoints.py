"""Where a server is, whether it is reached past a proxy, what it is and what it serves."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rilbench.api_keys import NO_KEY, without_key
from rilbench.errors import UserError

if TYPE_CHECKING:
    import aiohttp

_LONGEST = 16 * 1024**2  # bytes of a list of models, or of routes
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError)
"""What asking a server that is not there, or is none, may raise: of an SSH port, BadStatusLine."""
_ADDRESS = re.compile(r"(?:(?P<model>[^@\s]+)@)?(?P<url>https?://[^@\s/]+[^@\s]*)")
_TRANSFORMERS_ROUTES = frozenset({"/v1/chat/completions", "/load_model", "/reset"})


def named_server(option: str) -> tuple[str, str] | None:
    """Read ``MODEL@URL`` or ``URL``: the model's name, empty without one, and the address up to
    ``/v1``. None where it is neither."""
    found = _ADDRESS.fullmatch(option)
    if found is None:
        return None
    url = found["url"].rstrip("/").removesuffix("/chat/completions")
    return found["model"] or "", url


def checked(base_url: str) -> str:
    """The address of a server, without a slash at its end.

    Raises:
        UserError: it is none.
    """
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if not good or "@" in parts.netloc or any(map(str.isspace, base_url)):
            raise ValueError
    except ValueError as error:  # Also of urlsplit, and of a port that is no number.
        raise UserError(
            f"{base_url} is not the address of a server; give http://HOST:PORT/v1"
        ) from error
    return base_url.rstrip("/")


def proxy_for(base_url: str) -> str | None:
    """The user's proxy for a server, as the environment has it; never one for this machine."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if _is_here(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def first_model(
    base_url: str,
    timeout: float = 10.0,
    api_key: str = NO_KEY,
    *,
    remedy: str = "name the model: --endpoint MODEL@URL",
) -> str:
    """Return the name of the first model that a server lists.

    ``transformers serve`` lists what is in a cache, whatever it serves: its list counts only where
    there is one model in it.

    Args:
        base_url: up to and with ``/v1``.
        timeout: seconds.
        api_key: sent as a bearer token.
        remedy: the end of the errors' message.

    Raises:
        UserError: it does not answer, or not as the OpenAI API does.
    """
    models = listed_models(base_url, timeout, api_key, remedy=remedy)
    if len(models) > 1 and is_transformers(base_url, timeout):
        url = f"{checked(base_url)}/models"
        raise UserError(f"{url} lists what is in its cache, not what is served; {remedy}")
    return models[0]


def listed_models(
    base_url: str, timeout: float = 10.0, api_key: str = NO_KEY, *, remedy: str
) -> list[str]:
    """Return the names of the models that a server lists, one at least.

    Args:
        base_url: up to and with ``/v1``.
        timeout: seconds.
        api_key: sent as a bearer token.
        remedy: the end of the error's message.

    Raises:
        UserError: it does not answer, or not as the OpenAI API does.
    """
    url = f"{checked(base_url)}/models"
    try:
        models = [str(model["id"]) for model in _get(url, timeout, api_key)["data"]]
        models[0]  # an empty list is no answer
    except _NO_ANSWER as error:
        why = without_key(" ".join(f"{error}".split()) or type(error).__name__, api_key)
        raise UserError(f"{url} does not list a model ({why}); {remedy}") from error
    return models


def is_transformers(base_url: str, timeout: float = 10.0) -> bool:
    """Whether ``transformers serve`` (5.9 or later) answers there, as its routes tell.

    It publishes them, and no other server of OpenAI's API that we know has two of them. False also
    where nothing answers.
    """
    root = checked(base_url).removesuffix("/v1")
    try:
        return set(_get(f"{root}/openapi.json", timeout)["paths"]) >= _TRANSFORMERS_ROUTES
    except _NO_ANSWER:
        return False


async def read_body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """A reply's body, or its beginning: one byte more than ``most`` where it is longer."""
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


def _get(url: str, timeout: float, api_key: str = NO_KEY) -> Any:
    """The JSON at an address; raises one of `_NO_ANSWER`."""
    request = urllib.request.Request(url)
    # Not sent on to another server that this one may point to.
    request.add_unredirected_header("Authorization", f"Bearer {api_key}")
    proxy = proxy_for(url)
    proxies = {} if proxy is None else {urlsplit(url).scheme: proxy}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    with opener.open(request, timeout=timeout) as response:
        return json.loads(response.read(_LONGEST))
