"""Run an experiment's jobs in lanes: nothing finished is repeated, nothing finished is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.lab.experiment import Experiment, Job, Settings
from rilbench.lab.grid_choice import choose, read_tuned, settings_for, write_tuned
from rilbench.lab.lab_paths import Places
from rilbench.lab.run_result import Row, read_row, read_rows, row_file, write_row
from rilbench.paths import locate

Work = Callable[[Job, Settings, Callable[[str], None]], Row]
"""Does one job and returns its row: `rilbench.lab.worker.Lane`."""
OpenLane = Callable[[int], AbstractContextManager[Work]]
"""Opens lane number n."""

IN_A_ROW = 2
"""A lane ends when this many of its jobs in a row stopped with an error."""
_WAIT_SECONDS = 1.0


class View(Protocol):
    """What shows progress; calls come from several threads."""

    def start(self, name: str, done: int, total: int) -> None:
        """An experiment starts; ``done`` of its jobs were finished before."""

    def lane(self, number: int, words: str) -> None:
        """What a lane does now; empty: nothing."""

    def finished(self, label: str, row: Row, seconds: float) -> None:
        """A row was written."""

    def failed(self, label: str, error: str) -> None:
        """A job stopped with an error; it will be tried again by the next call."""

    def stopping(self) -> None:
        """The user asked to stop; what runs is finished first."""


@dataclass(frozen=True)
class Outcome:
    """What a call did: jobs finished before it, by it, and left."""

    before: int
    done: int
    left: int


def run_experiment(
    experiment: Experiment,
    view: View,
    places: Places | None = None,
    lanes: int = 2,
    minutes: float | None = None,
    open_lane: OpenLane | None = None,
) -> Outcome:
    """Do what is left of an experiment.

    Args:
        experiment: from `rilbench.lab.experiment.read_experiment`.
        view: shows progress.
        places: where to read and write; default the current directory's results and runs.
        lanes: how many runs at a time.
        minutes: no job starts after them; those that run are finished.
        open_lane: opens a lane; default one that trains and evaluates.

    Raises:
        UserError: a grid that a run needs is unfinished; a row that is there is
            of other settings; another laboratory works here; or jobs stopped with an error, after
            all others were done.
    """
    if lanes < 1:
        raise UserError(f"--lanes {lanes} must be at least 1")
    places = places or Places()
    places.work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(places.work / ".lock")
    try:
        with lock.acquire(timeout=0):
            queue = _Queue(experiment, places)
            queue.refuse_unfinished_grids()
            until = None if minutes is None else time.monotonic() + 60 * minutes
            return _Lanes(queue, view, until, open_lane or default_lanes(places)).run(lanes)
    except Timeout as error:
        raise UserError(f"another laboratory works in {places.work}; wait for it") from error


def default_lanes(places: Places) -> OpenLane:
    """Lanes that train through verl and evaluate with the kit."""
    starting = threading.Lock()

    @contextmanager
    def open_lane(number: int) -> Iterator[Work]:
        from rilbench.evaluate.kit_session import Kit
        from rilbench.lab.warm_session import WarmSession
        from rilbench.lab.worker import Lane

        logs = places.work / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        # One thread for each lane: figures must not depend on how many lanes there are.
        session = WarmSession(logs / f"lane-{number}.log", threads=1)
        with session, Kit(logs / f"kit-{number}.log") as kit:
            yield Lane(number, places, session, kit, starting)

    return open_lane


class _Queue:
    """The jobs of an experiment in order, without those that have a row."""

    def __init__(self, experiment: Experiment, places: Places) -> None:
        self.experiment, self.places = experiment, places
        self._lock = threading.Lock()
        self._starts: dict[str, str] = {}
        jobs = experiment.jobs()
        self.tuned = self._choice()
        self._open = [job for job in jobs if not self._has_row(job)]
        self.total, self.before = len(jobs), len(jobs) - len(self._open)

    def _choice(self) -> Mapping[str, Any]:
        """The choice of all grids; this experiment's own is brought up to date first."""
        tuned = read_tuned(self.places.tuned)
        if any(spec.cell for spec in self.experiment.runs):
            rows = read_rows(self.places.rows, self.experiment.name)
            for student, entries in choose(self.experiment, rows).items():
                tuned.setdefault(student, {}).update(entries)
            if tuned:
                write_tuned(tuned, self.places.tuned)
        return tuned

    def _start(self, student: str) -> str:
        """The fingerprint of the student's weights, as they are now."""
        if student not in self._starts:
            model = load_recipe("both", student).student.model
            self._starts[student] = inspect_checkpoint(locate(model)).fingerprint
        return self._starts[student]

    def _path(self, job: Job) -> Path:
        return row_file(self.places.rows, job.experiment, job.student, job.spec.name, job.seed)

    def _has_row(self, job: Job) -> bool:
        """Whether the job is finished, with the settings that it has now."""
        path = self._path(job)
        if not path.exists():
            return False
        row = read_row(path)
        settings = settings_for(job.spec, job.student, self.tuned)
        expected = None if settings is None else job.settings(settings)
        steps = 0 if job.spec.model else job.steps
        if row.start_fingerprint != self._start(job.student):
            raise UserError(
                f"{path} was made from another {job.student} than the one that is here; delete the "
                "rows of that student (and its runs) to do them again"
            )
        now = (job.split, steps, job.spec.recipe, job.spec.method, job.spec.model)
        if (row.split, row.steps, row.recipe, row.method, row.model) != now or (
            expected is not None and dict(row.settings) != expected
        ):
            raise UserError(
                f"{path} was made with other settings than the experiment has now; delete it (and "
                "its run) to do it again, or give the run another name"
            )
        return True

    def refuse_unfinished_grids(self) -> None:
        """Before anything runs: a run must not wait for a grid that is not in this experiment."""
        own = {spec.entry for spec in self.experiment.runs if spec.cell}
        missing = sorted(
            {
                f"{entry} ({job.student})"
                for job in self._open
                for entry in job.spec.tuned_by
                if entry not in own and entry not in self.tuned.get(job.student, {})
            }
        )
        if missing:
            raise UserError(
                f"{self.experiment.name} would run untuned, the grid of {', '.join(missing)} is "
                "not finished; first: rilbench lab run recipes/lab/grid.yaml"
            )

    def next(self) -> tuple[Job, Settings] | None:
        """The first job whose grids are chosen."""
        with self._lock:
            for job in self._open:
                settings = settings_for(job.spec, job.student, self.tuned)
                if settings is not None:
                    self._open.remove(job)
                    return job, settings
            return None

    @property
    def left(self) -> int:
        """Jobs that nobody has taken."""
        with self._lock:
            return len(self._open)

    def finish(self, row: Row) -> None:
        """Write the row; it may finish a grid that other jobs wait for."""
        with self._lock:
            write_row(row, self.places.rows)
            self.tuned = self._choice()


class _Lanes:
    """Threads that take jobs from a queue until it is empty or time is up."""

    def __init__(self, queue: _Queue, view: View, until: float | None, open_lane: OpenLane) -> None:
        self.queue, self.view, self.until, self.open_lane = queue, view, until, open_lane
        self.stop = threading.Event()
        self.running = 0
        self.done = 0
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def run(self, lanes: int) -> Outcome:
        """Work until there is nothing left to do."""
        self.view.start(self.queue.experiment.name, self.queue.before, self.queue.total)
        count = min(lanes, max(1, self.queue.left))
        with ThreadPoolExecutor(count) as pool:
            jobs = [pool.submit(self._lane, n) for n in range(1, count + 1)]
            self._wait(jobs)
            for job in jobs:
                job.result()
        left = self.queue.total - self.queue.before - self.done
        if self.errors:
            raise UserError(
                f"{len(self.errors)} of {self.queue.experiment.name} stopped: "
                f"{'; '.join(self.errors[:3])}. All finished runs are kept; mend it and call again"
            )
        return Outcome(self.queue.before, self.done, left)

    def _wait(self, jobs: Sequence[Future[None]]) -> None:
        """Wait for all lanes; the first interrupt stops after what runs, the second at once."""
        try:
            wait(jobs)
        except KeyboardInterrupt:
            self.stop.set()
            self.view.stopping()
            try:
                wait(jobs)
            except KeyboardInterrupt:
                os._exit(130)  # threads cannot be ended; what is on disk survives, children do not

    def _lane(self, number: int) -> None:
        with ExitStack() as stack:
            work: Work | None = None
            failures = 0
            while failures < IN_A_ROW:
                taken = self._take()
                if taken is None:
                    break
                try:
                    if work is None:
                        work = stack.enter_context(self.open_lane(number))
                    failures = 0 if self._do(number, work, *taken) else failures + 1
                finally:
                    with self._lock:
                        self.running -= 1
            self.view.lane(number, "")

    def _take(self) -> tuple[Job, Settings] | None:
        """A job; waits while one may become ready; None when there is nothing more to do."""
        while not self.stop.is_set() and self.queue.left:
            if self.until is not None and time.monotonic() >= self.until:
                return None
            with self._lock:
                taken = self.queue.next()
                if taken is not None:
                    self.running += 1
                    return taken
                if not self.running:
                    return None  # what is left waits for a grid whose jobs stopped with an error
            self.stop.wait(_WAIT_SECONDS)
        return None

    def _do(self, number: int, work: Work, job: Job, settings: Settings) -> bool:
        started = time.monotonic()
        self.view.lane(number, job.label)
        try:
            row = work(job, settings, lambda words: self.view.lane(number, f"{job.label}: {words}"))
        except UserError as error:
            with self._lock:
                self.errors.append(f"{job.label}: {error}")
            self.view.failed(job.label, str(error))
            return False
        self.queue.finish(row)
        with self._lock:
            self.done += 1
        self.view.finished(job.label, row, time.monotonic() - started)
        return True
