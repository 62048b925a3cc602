"""Who decides free text: a language model at an address, or a judge that decides by code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rilbench.api_keys import JUDGE_KEY, judge_keys, without_query_values
from rilbench.errors import UserError
from rilbench.jsonl_log import read_jsonl
from rilbench.judge.code_judges import RULE, decides_by_code, find_judge, judge_names
from rilbench.serving import named_server, servers_of_model, several
from rilbench.serving.endpoints import listed_by_all

if TYPE_CHECKING:
    from rilbench.judge.proxy import JudgeProxy

EXACT = "exact"
"""What ``--judge`` says for the project's rules."""
JUDGE_FOLDER = "judge"
"""Folder of the judges' replies in a work folder."""


@dataclass(frozen=True)
class Judge:
    """Who is to decide; without an address, code: the project's exact rules, or another."""

    url: str | tuple[str, ...] | None = None
    """Up to ``/v1``; or those of several servers of it; none yet, for one that a run starts."""
    model: str = ""
    """Its name there; empty: the first that the server lists. Without an address, the name of a
    judge that decides by code (`rilbench.judge.code_judges`); empty: the rules."""
    fields: Mapping[str, Any] | None = None
    """Of a request to it; None: the kit's, as far as the server takes them."""

    @property
    def exact(self) -> bool:
        """Whether code decides."""
        return self.url is None


EXACT_RULES = Judge()
"""The project's exact rules."""


def read_judge(option: str | None, fields: Mapping[str, Any] | None = None) -> Judge:
    """Read ``MODEL@URL``, ``URL``, ``exact``, ``FILE.py:FUNCTION`` or the name of another judge.

    None is ``exact``. Several addresses of one model are divided by commas.

    Args:
        option: as the user gives it.
        fields: of a request to a language model.

    Raises:
        UserError: it is none of these, it is code and has fields, or the function cannot judge.
    """
    by_code = option is None or option == EXACT or decides_by_code(option)
    if by_code and fields is not None:
        raise UserError(
            f"--judge-fields are for a language model, and --judge is {option or EXACT}; give "
            "--judge MODEL@URL, or leave them out"
        )
    if option is None or option in (EXACT, RULE):
        return EXACT_RULES
    if by_code:
        return Judge(model=find_judge(option).name)
    given = several(option)
    if not all(map(named_server, given)):
        raise UserError(
            f"--judge {without_query_values(str(option))} is not understood; give MODEL@URL, such "
            f"as qwen2.5-32b@http://127.0.0.1:8000/v1, or FILE.py:FUNCTION, "
            f"{', '.join([EXACT, *judge_names()[1:]])}; a key goes into {JUDGE_KEY}"
        )
    model, urls = servers_of_model("--judge", given)
    return Judge(tuple(urls) if len(urls) > 1 else urls[0], model, fields)


@dataclass(frozen=True)
class RunningJudge:
    """A judge that answers."""

    url: str
    """Up to ``/v1``; on this machine."""
    name: str
    """As its server reports it."""
    exact: bool
    """The rules, which read no option for a kit."""
    revision: str = ""
    """What its server tells about it beside its name; mostly nothing."""
    asked_with: str = ""
    """How requests to it differ from the kit's, in a word; mostly nothing."""
    proxy: JudgeProxy | None = field(default=None, compare=False)

    @property
    def identity(self) -> str:
        """Its name, with its revision and how it is asked where that is not the kit's way.

        Scores of two identities are not comparable.
        """
        names = {self.name, self.proxy.model if self.proxy is not None else self.name}
        # vLLM repeats the name of a model from the hub.
        told = [word for word in self.revision.split() if word not in names]
        return " ".join([self.name, *told, *filter(None, [self.asked_with])])

    def begin(self) -> None:
        """Begin a score job: forget failures and counts of the one before."""
        if self.proxy is not None:
            self.proxy.begin()

    def provenance(self) -> dict[str, Any]:
        """Its identity as ``name``, and what was asked since `begin`, how well."""
        if self.proxy is None:
            return {"name": self.identity}
        kept = {"replies": str(self.proxy.cache)} if self.proxy.cache is not None else {}
        named = {"name": self.identity, "model": self.proxy.model, **kept}
        return {**named, **self.proxy.provenance()}

    @property
    def troubles(self) -> dict[str, int]:
        """Why questions since `begin` got no reply, with how many did not."""
        return dict(self.proxy.troubles) if self.proxy is not None else {}


@contextmanager
def running_judge(judge: Judge, cache: Path, *, fresh: bool = False) -> Iterator[RunningJudge]:
    """Start what the kits can ask, and ask a language model one word before any is spent.

    Args:
        judge: who is to decide.
        cache: folder for a language model's replies.
        fresh: ask again also what this judge has replied to; the new reply then counts.

    Raises:
        UserError: the judge does not answer.
    """
    # Here, not above: both bring a web server with them.
    from rilbench.judge.proxy import JudgeProxy
    from rilbench.judge.server import RULE_JUDGE, serve_judge

    if judge == EXACT_RULES:
        with serve_judge() as url:
            yield RunningJudge(url, RULE_JUDGE, exact=True)
        return
    if judge.url is None:
        # Through the proxy, which knows why a function gave no verdict. Nothing is cached: its code
        # may change without its version.
        name = find_judge(judge.model).model
        with serve_judge(judge.model) as url, JudgeProxy(url, name, None) as proxy:
            yield RunningJudge(proxy.url, name, exact=True, proxy=proxy)
        return
    urls = [judge.url] if isinstance(judge.url, str) else list(judge.url)
    keys = judge_keys(urls)
    model = judge.model
    if not model:
        remedy = f"start it, name it (MODEL@URL), or use --judge {EXACT}"
        try:
            model = listed_by_all(urls, keys, remedy=remedy)
        except UserError as error:
            raise UserError(f"no judge: {error}") from error
    file = cache / f"{re.sub(r'[^A-Za-z0-9._-]', '-', model)}.jsonl"
    with JudgeProxy(urls, model, file, keys, fields=judge.fields) as proxy:
        name = proxy.probe()
        if fresh:  # Not before: a judge that does not answer gives nothing in their place.
            proxy.forget()
        yield RunningJudge(
            proxy.url,
            name,
            exact=False,
            revision=proxy.revision,
            asked_with=proxy.asked_with,
            proxy=proxy,
        )


@dataclass(frozen=True)
class KeptReplies:
    """A judge's replies in a work folder."""

    file: Path
    judge: str
    """The name under which it replied, with its revision where that is told."""
    replies: int


def kept_replies(cache: Path) -> list[KeptReplies]:
    """Return what a folder keeps of judges' replies, by file and judge."""
    found = []
    for file in sorted(cache.glob("*.jsonl")):
        last = {line.get("key"): line for line in read_jsonl(file)}.values()
        judges = Counter(f"{x.get('model')} {x.get('revision') or ''}".strip() for x in last)
        found += [KeptReplies(file, judge, count) for judge, count in judges.items()]
    return found


def code_judge_name(judge: Judge) -> str:
    """Return the name under which a judge that decides by code is recorded."""
    return find_judge(judge.model or RULE).model
