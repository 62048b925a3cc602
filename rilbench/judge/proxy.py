"""A judge proxy for the evaluation kits: on the loopback, cached, counted, without the key.

The kits ask their judge themselves. They log its key, try again for minutes when it is down, and
pay for the same question twice. So they get this address and a dummy key instead:

- The real key stays in this process.
- A reply is written through to a file before it is passed on, and never asked for again by the same
  prompt and parameters of the same judge. A cut reply, or one of reasoning alone, is none.
- Where the model gave no answer (`UNANSWERED`), the judge is not asked: it would guess one.
- Trouble that passes (HTTP 408, 429, 5xx, no connection, a time-out) is tried again with growing
  pauses, or after as long as the judge asks for. What then fails is answered with 503 at once, also
  the next time in this evaluation.
- After several such failures in a row the judge counts as down, and everything is answered with
  503. A refusal (a content filter's, say) concerns its own question and is no sign of that.
- A kit's job begins with `JudgeProxy.begin`: what failed in an earlier job is asked again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from rilbench.api_keys import JUDGE_KEY, NO_KEY, without_query_values
from rilbench.errors import UserError
from rilbench.jsonl_log import append_jsonl, read_jsonl
from rilbench.judge.reply import answer_of, read_reply, told_content
from rilbench.serving.endpoints import all_checked
from rilbench.serving.reply import LIMITS, UNANSWERED
from rilbench.serving.transport import NoReplyError, Transport

_MAX_BODY = 64 * 1024**2  # bytes
_ENOUGH = 8192  # tokens of a judge that reasons, with its verdict
_PROBE = "hello"  # What VLMEvalKit sends to see whether a judge is up; no verdict.

_OUTCOMES = ("failed", "cached", "judge")
"""Where a reply to a prompt came from; of two askings the later in this list counts."""

_UNANSWERED = json.dumps(UNANSWERED).strip('"')
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class JudgeProxy:
    """A server between a kit and a judge; a context manager.

    Args:
        upstream: the judge's address, up to ``/v1``, or those of several servers of it.
        model: the judge's name there; it replaces the name that the kit asks for.
        cache: JSON lines of the judge's replies; made, read and appended to. None keeps none. A
            reply's key is the judge's name, revision, prompt and parameters.
        api_key: sent upstream as the bearer token, or those of the servers; kept nowhere else.
        concurrency: requests in flight.
        retries: further attempts after passing trouble.
        backoff: seconds before the first of them; it doubles each time, with jitter.
        timeout: seconds for one attempt.
        patience: failures in a row, by trouble that passes, after which the judge counts as down.
        busy_patience: see `rilbench.serving.transport.Transport.patience`.
        fields: of a request to the judge, instead of the kit's; the kit's limit stays unless they
            name one. Without them, those of the kit's that the judge refuses are left out.

    Attributes:
        url: the proxy's address, up to ``/v1``; within the block.
        counts: requests of the kit (``asked``), those answered from the cache (``cached``) or not
            at all (``failed``), and ``retried``.
        name: the judge's name; after `probe`, as it reports it.
        revision: what its server's list of models tells about it, after `probe`; mostly nothing.
        asked_with: in a word, how requests to it differ from the kit's, after `probe`: a hash of
            ``fields``, or the fields that it refuses; mostly nothing.
        troubles: why prompts of a job failed, with how many did.

    Raises:
        UserError: the judge's address is not valid, or the cache is damaged.
    """

    def __init__(
        self,
        upstream: str | Sequence[str],
        model: str,
        cache: Path | None,
        api_key: str | Sequence[str] = NO_KEY,
        *,
        concurrency: int = 32,
        retries: int = 4,
        backoff: float = 0.5,
        timeout: float = 120.0,
        patience: int = 8,
        busy_patience: float = 300.0,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self.urls, self.model, self.cache = all_checked(upstream), model, cache
        self.upstream, self.fields = without_query_values(", ".join(self.urls)), fields
        self.counts = {"asked": 0, "cached": 0, "retried": 0, "failed": 0}
        self.url, self.revision, self.name, self.asked_with = "", "", model, ""
        self.troubles: Counter[str] = Counter()
        self._why = ""
        self._key = api_key or NO_KEY
        self._concurrency, self._retries = concurrency, retries
        self._backoff, self._timeout, self._patience = backoff, timeout, patience
        self._busy_patience = busy_patience
        self._replies: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, str] = {}
        self._outcomes: dict[str, str] = {}
        self._models_seen: set[str] = set()
        self._in_flight: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._in_a_row = 0
        self._reasons = False
        """The judge reasons before its verdict, so that the kit's limit is too short."""
        for line in [] if cache is None else read_jsonl(cache):
            if not line.keys() >= {"key", "model", "reply"}:
                raise UserError(f"{cache} does not hold a judge's replies; move it away")
            self._replies[line.pop("key")] = line

    def __enter__(self) -> JudgeProxy:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._call(self._start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._end()

    def probe(self) -> str:
        """Ask the judge for one word and return the name that it reports.

        Raises:
            UserError: it does not answer, or refuses (a wrong key, an unknown model).
        """
        messages = [{"role": "user", "content": _PROBE}]
        body = self._with_fields({"messages": messages, "max_tokens": 8, "temperature": 0})
        try:
            self.name = self._call(self._ask(body, probing=True))["model"]
            self.revision = self._call(self._listed_revision())
        except NoReplyError as error:
            raise UserError(
                f"the judge {self.model or 'without a name'} at {self.upstream} does not answer "
                f"({error}); look at the server, its name, {JUDGE_KEY} and --judge-fields"
            ) from error
        refused = sorted(self._transport.left_out)
        if self.fields is not None:
            decides = json.dumps(self.fields, sort_keys=True)
            self.asked_with = f"fields-{hashlib.sha256(decides.encode()).hexdigest()[:8]}"
        elif refused:
            self.asked_with = "-".join(["without", *refused])
            _log.warning("the judge %s refuses %s: left out", self.model, ", ".join(refused))
        _log.info("the judge %s at %s answers", self.name, self.upstream)
        return self.name

    def forget(self) -> None:
        """Forget the replies of earlier jobs, so that the judge is asked again.

        In the file each stays until the next one to the same prompt, which then counts.
        """
        self._replies = {}

    def begin(self) -> None:
        """Begin a job of a kit: forget an earlier one's failures and what it asked."""
        self._failed, self._outcomes, self._models_seen = {}, {}, set()
        self._in_a_row, self.troubles = 0, Counter()

    def provenance(self) -> dict[str, Any]:
        """Return which prompts were asked since `begin`, and who replied.

        ``models`` are the names under which the server replied; there are two where an alias was
        moved to another model meanwhile. ``revision`` is there where the server tells it.
        ``asked_sha256`` is a hash of the distinct prompts in no order. ``verdicts`` are numbers of
        distinct prompts: ``asked``, and of those ``judge`` (it replied now), ``cached`` (it had
        replied before) and ``failed``.
        """
        outcomes = Counter(self._outcomes.values())
        given = {} if self.fields is None else {"fields": dict(self.fields)}
        left_out = (
            {"left_out": sorted(self._transport.left_out)} if self._transport.left_out else {}
        )
        return {
            **given,
            **left_out,
            **({"revision": self.revision} if self.revision else {}),
            "models": sorted(self._models_seen),
            "asked_sha256": hashlib.sha256("".join(sorted(self._outcomes)).encode()).hexdigest(),
            "verdicts": {
                "asked": outcomes.total(),
                **{outcome: outcomes[outcome] for outcome in reversed(_OUTCOMES)},
            },
        }

    def _note(self, text: str, outcome: str) -> None:
        prompt = hashlib.sha256(text.encode()).hexdigest()
        before = self._outcomes.get(prompt, outcome)
        self._outcomes[prompt] = max(before, outcome, key=_OUTCOMES.index)

    # ---- the server

    async def _start(self) -> None:
        self._transport = Transport(
            self.urls,
            self._key,
            concurrency=self._concurrency,
            retries=self._retries,
            backoff=self._backoff,
            timeout=self._timeout,
            patience=self._busy_patience,
            counts=self.counts,
            adapts=self.fields is None,
        )
        application = web.Application(client_max_size=_MAX_BODY)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/chat/completions", self._chat)
        # MMBench in lmms-eval posts to the address that it is given, as it is.
        application.router.add_post("/v1", self._chat)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._transport.close()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _with_fields(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a kit's request with the user's fields instead of its own, if there are any."""
        if self.fields is None:
            return body
        names_limit = any(limit in self.fields for limit in LIMITS)
        kept = {"messages", *(() if names_limit else LIMITS)}
        own = {name: value for name, value in self.fields.items() if value is not None}
        return {name: value for name, value in body.items() if name in kept} | own

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "judge"}
        return web.json_response({"object": "list", "data": [model]})

    async def _chat(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            text = json.dumps(body["messages"])
        except (ValueError, KeyError, TypeError):
            return _error(400, "the body must be a JSON object with messages")
        if body["messages"] and body["messages"][-1].get("content") == _PROBE:
            return web.json_response(_completion({"model": self.model, "reply": "hello"}))
        if _UNANSWERED in text:
            return _error(503, "the model gave no answer, so that there is nothing to judge")
        self.counts["asked"] += 1
        try:
            reply = await self._reply(self._with_fields(body), text)
        except NoReplyError as error:
            self.counts["failed"] += 1
            self._note(text, "failed")
            _log.info("no reply of the judge %s: %s", self.name, error)
            return _error(503, str(error))
        self._models_seen.add(reply["model"])
        return web.json_response(_completion(reply))

    async def _reply(self, body: dict[str, Any], text: str) -> dict[str, Any]:
        """Return the reply from the cache, from another request in flight, or from the judge."""
        parameters = {n: v for n, v in body.items() if n not in ("messages", "model", "stream")}
        judge = [self.model, self.name, self.revision]
        decides = json.dumps([judge, text, parameters], sort_keys=True)
        key = hashlib.sha256(decides.encode()).hexdigest()
        if (cached := self._replies.get(key)) is not None:
            self.counts["cached"] += 1
            self._note(text, "cached")
            return cached
        if self._in_a_row >= self._patience:
            self._note_failure(text, self._why)
            raise NoReplyError(f"the judge is down ({self._why})")
        # A kit tries the same text again at another temperature; we have tried often enough.
        if text in self._failed:
            raise NoReplyError(self._failed[text])
        if (future := self._in_flight.get(key)) is not None:
            self.counts["cached"] += 1
            return await asyncio.shield(future)
        future = self._in_flight[key] = asyncio.ensure_future(self._ask(body))
        try:
            reply = await asyncio.shield(future)
            self._in_a_row = 0
            if self.cache is not None:
                self.cache.parent.mkdir(parents=True, exist_ok=True)
                line = {"key": key, **reply, "revision": self.revision}
                await asyncio.to_thread(append_jsonl, self.cache, [line])
            self._replies[key] = reply
        except NoReplyError as error:
            self._note_failure(text, str(error))
            self._in_a_row = self._in_a_row + 1 if error.passing else 0
            raise
        except (UserError, OSError) as error:
            # A full disk: all further replies would be paid for and lost.
            self._in_a_row = self._patience
            self._note_failure(text, str(error))
            raise NoReplyError(str(error)) from error
        finally:
            self._in_flight.pop(key, None)
        self._note(text, "judge")
        return reply

    def _note_failure(self, text: str, why: str) -> None:
        self._why = why
        self.troubles[why] += text not in self._failed
        self._failed.setdefault(text, why)

    # ---- the judge

    async def _ask(self, body: dict[str, Any], *, probing: bool = False) -> dict[str, Any]:
        """Ask the judge, again after passing trouble: its reply and its name.

        A kit's limit, a few tokens, is of the verdict alone, so a reply that is cut is asked for
        again with more. Of a judge that does not reason the kit then gets what it asked for, the
        beginning.
        """
        body = {name: value for name, value in body.items() if name != "stream"}
        if self.model:
            body["model"] = self.model
        roomy = body | {limit: _ENOUGH for limit in LIMITS if limit in body}
        first = roomy if self._reasons else body
        reply = await self._transport.request("POST", "/chat/completions", first, read_reply)
        named = {"model": reply.model or self.model}
        if probing:
            return {**named, "reply": reply.text}
        begun = reply.text
        if reply.is_cut and first != roomy:
            reply = await self._transport.request("POST", "/chat/completions", roomy, read_reply)
            self._reasons = bool(reply.thoughts)
        if reply.is_cut:
            raise NoReplyError(f"the reply is cut at {roomy.get(LIMITS[0], 'the longest')} tokens")
        text = answer_of(reply)
        asked_for = begun.strip() and not reply.thoughts and reply.text.startswith(begun)
        return {**named, "reply": begun.strip() if asked_for else text}

    async def _listed_revision(self) -> str:
        try:
            listing = await self._transport.request("GET", "/models", None, json.loads, most=1)
        except NoReplyError:
            return ""
        return " ".join(told_content(listing, self.model).values())


def _completion(reply: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply["reply"]}
    return {
        "id": "judge",
        "object": "chat.completion",
        "created": 0,
        "model": reply["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "judge"}}, status=status)
