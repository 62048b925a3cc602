"""Serve the ledger to browsers on this machine, read only.

Every answer is made from the ledger as it is. Nothing is loaded from another server, and no other
site can read an answer: the ``Host`` of a request must be an address or a name of this machine,
so that a name that somebody points at it (DNS rebinding) is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from rilbench.errors import UserError
from rilbench.ledger import Ledger
from rilbench.report.charts import curve_charts, kept_javascript
from rilbench.report.page import Live, live_policy, render_live
from rilbench.report.page_json import content
from rilbench.report.pictures import PictureSource, scaled
from rilbench.report.questions import question_sets
from rilbench.report.report_data import gather_scores, recorded_steps
from rilbench.report.scores import score_rows
from rilbench.report.selection import find_subjects, up_to_date
from rilbench.view.overview import Overview, curves_address, read_overview, render_overview

_LONGEST = 50_000
"""Characters of a response; a longer one is cut."""
_EDGE = 1024
"""Longest edge of a picture in pixels."""
_MAKE_SCRIPT = """
import sys
from rilbench.report.charts import javascript
sys.stdout.buffer.write(javascript().encode("utf-8"))
"""
_PAUSE = 2.0
"""Seconds between a page without intervals and their computation."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class View:
    """The answers to requests; each method runs in a thread of its own.

    Args:
        db: the ledger's file.
    """

    def __init__(self, db: Path) -> None:
        self._db = db
        self._overview: tuple[Any, Overview] | None = None
        self._later: threading.Timer | None = None
        self._overview_lock = threading.Lock()
        self._script = ""
        self._script_lock = threading.Lock()
        self._sources: list[PictureSource] = []
        self._numbers: dict[str | Path, int] = {}
        self._sources_lock = threading.Lock()

    def warm(self) -> None:
        """Read the table and import what its page needs, before it is asked for."""
        render_overview(self._read_overview(), [], {}, self._db.name)

    def close(self) -> None:
        """Compute no intervals that have not begun."""
        if self._later is not None:
            self._later.cancel()

    def overview(self, request: web.Request) -> web.Response:
        """Every model, filtered."""
        with Ledger.open_read(self._db) as ledger:
            runs = ledger.runs()
        found = self._read_overview()
        page = render_overview(found, runs, dict(request.query), self._db.name)
        if not found.intervals and not (self._later and self._later.is_alive()):
            # Not before the page is on its way: both would share a processor.
            self._later = threading.Timer(_PAUSE, self._add_intervals)
            self._later.daemon = True
            self._later.start()
        return web.Response(text=page, content_type="text/html")

    def report(self, request: web.Request) -> web.Response:
        """Runs, models and evaluations as `rilbench report` shows them; questions come later."""
        names = _names(request)
        with Ledger.open_read(self._db) as ledger:
            subjects = find_subjects(ledger, names)
            report = gather_scores(ledger, subjects)
        is_going = any(s.run is not None and s.run.status == "running" for s in subjects)
        questions = f"/questions?{urlencode([('name', name) for name in names])}"
        live = Live(questions=questions, curves=curves_address("name", names) if is_going else "")
        return web.Response(text=render_live(report, live), content_type="text/html")

    def questions(self, request: web.Request) -> web.Response:
        """The questions, responses and training groups of a report, as JSON."""
        with Ledger.open_read(self._db) as ledger:
            subjects = find_subjects(ledger, _names(request))
            sets = question_sets(ledger, subjects, score_rows(ledger, subjects))
        pictures = _PagePictures(self)
        value = content(sets, recorded_steps(subjects), pictures, _LONGEST)
        text = json.dumps({**value, "pictures": pictures.addresses}, allow_nan=False)
        return web.Response(text=text, content_type="application/json")

    def curves(self, request: web.Request) -> web.Response:
        """The charts of runs in progress; 204 if nothing is new, 410 if all have ended."""
        names, paths = (request.query.getall(kind, []) for kind in ("name", "run"))
        with Ledger.open_read(self._db) as ledger:
            subjects = find_subjects(ledger, names)
            by_path = {run.path: run for run in ledger.runs()}
        runs = [subject.run for subject in subjects if subject.run is not None]
        runs += [by_path[path] for path in paths if path in by_path]
        if all(run.status != "running" for run in runs):
            return web.Response(status=410)
        files = [Path(run.path) / "metrics.jsonl" for run in runs]
        sizes = [str(file.stat().st_size if file.exists() else 0) for file in files]
        version = "-".join(sizes)
        if request.query.get("since") == version:
            return web.Response(status=204)
        if subjects:  # With the colours of the models that they trained.
            with Ledger.open_read(self._db) as ledger:
                charts = gather_scores(ledger, subjects).curves
        else:
            charts = curve_charts([up_to_date(run) for run in runs])
        specs = [chart.spec for chart in charts]
        return web.json_response({"version": version, "specs": specs})

    def picture(self, request: web.Request) -> web.Response:
        """One picture of a page that was asked for; no other file."""
        number = int(request.match_info["number"])
        if number >= len(self._sources):
            raise web.HTTPNotFound(text="no such picture; reload the page")
        source = self._sources[number]
        try:
            found = scaled(source.read_bytes() if isinstance(source, Path) else source, _EDGE)
        except OSError:
            found = None
        if found is None:
            raise web.HTTPNotFound(text="the picture cannot be read")
        return web.Response(body=found, content_type="image/webp")

    def library(self, _: web.Request) -> web.Response:
        """The charts' JavaScript."""
        response = web.Response(text=self._charts_script(), content_type="text/javascript")
        response.headers["Cache-Control"] = "private, max-age=3600"
        return response

    def number_of(self, source: PictureSource) -> int:
        """Return the number under which a picture is served from now on."""
        key = source if isinstance(source, Path) else hashlib.sha256(source).hexdigest()
        with self._sources_lock:
            if key not in self._numbers:
                self._numbers[key] = len(self._sources)
                self._sources.append(source)
            return self._numbers[key]

    def _read_overview(self) -> Overview:
        """Return the ledger's overview as it is now; without intervals until they are computed."""
        with self._overview_lock:
            state = [_state(Path(f"{self._db}{end}")) for end in ("", "-wal")]
            if self._overview is None or self._overview[0] != state:
                self._overview = (state, self._read(intervals=False))
            return self._overview[1]

    def _add_intervals(self) -> None:
        state = self._overview[0] if self._overview is not None else None
        found = self._read(intervals=True)
        with self._overview_lock:
            if self._overview is not None and self._overview[0] == state:
                self._overview = (state, found)
        self._charts_script()  # Before the first chart is asked for.

    def _charts_script(self) -> str:
        """Return the charts' JavaScript, made by a process of its own where none was kept.

        Making it takes seconds in which a thread would let no other run.
        """
        with self._script_lock:
            self._script = self._script or kept_javascript()
            if not self._script:
                done = subprocess.run(
                    [sys.executable, "-c", _MAKE_SCRIPT],
                    stdout=subprocess.PIPE,
                    check=True,
                    start_new_session=True,  # Ctrl-C is for us; it ends by itself.
                )
                self._script = done.stdout.decode("utf-8")
            return self._script

    def _read(self, *, intervals: bool) -> Overview:
        with Ledger.open_read(self._db) as ledger:
            return read_overview(ledger, intervals=intervals)


class _PagePictures:
    """The pictures of one page: their addresses, which it refers to by number."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._places: dict[int, int] = {}

    def add(self, source: PictureSource) -> int:
        """Return the place of a picture among the addresses."""
        return self._places.setdefault(self._view.number_of(source), len(self._places))

    @property
    def addresses(self) -> list[str]:
        return [f"/picture/{number}" for number in self._places]


def _names(request: web.Request) -> list[str]:
    """Return what a report is asked for; the seeds of a recipe are numbers with commas."""
    names: list[str] = []
    for value in request.query.getall("name", []):
        parts = value.split(",")
        names += parts if all(part.isdecimal() for part in parts) else [value]
    if not names:
        raise UserError("nothing is chosen; go back and choose models of the table")
    return names


def _state(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _is_own_host(host: str) -> bool:
    """Whether a request's ``Host`` is an address or a name of this machine.

    An address cannot be pointed at another machine, so that any is good.
    """
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.lower() in ("localhost", socket.gethostname().lower())
    return True


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other names of this machine; say errors in a line; add the headers."""
    try:
        if not _is_own_host(request.headers.get("Host", "")):
            raise web.HTTPForbidden(text="this name is not of this machine; use its address")
        response = await handler(request)
    except UserError as error:
        response = web.Response(status=404, text=str(error))
    except web.HTTPException as error:
        response = web.Response(status=error.status, text=error.text)
    response.headers["Content-Security-Policy"] = live_policy()
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def application(view: View) -> web.Application:
    """Return the web application."""

    def threaded(make: Callable[[web.Request], web.Response]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await asyncio.to_thread(make, request)

        return handle

    async def close(_: web.Application) -> None:
        view.close()

    made = web.Application(middlewares=[_guard])
    made.on_cleanup.append(close)
    for path, make in {
        "/": view.overview,
        "/report": view.report,
        "/questions": view.questions,
        "/curves": view.curves,
        r"/picture/{number:\d{1,9}}": view.picture,
        "/vega.js": view.library,
    }.items():
        made.router.add_get(path, threaded(make))
    return made


async def _serve(db: Path, host: str, port: int, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    view = View(db)
    runner = web.AppRunner(application(view), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await asyncio.to_thread(view.warm)
        await web.TCPSite(runner, host, port).start()
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{runner.addresses[0][1]}/")
        await stop.wait()
    finally:
        await runner.cleanup()


def serve(db: Path, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        db: the ledger's file.
        host: address to listen on.
        port: 0 takes any free one.
        say: is given the address, once it listens.

    Raises:
        UserError: the ledger cannot be read, or the address is not free.
    """
    with Ledger.open_read(db):  # Its error now, and not on the page.
        pass
    try:
        asyncio.run(_serve(db, host, port, say))
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened on ({error.strerror}); give another --port or --host"
        ) from error
