"""Runs an experiment's jobs on workers; a killed call loses and repeats no finished run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from filelock import FileLock, Timeout

from rilbench.errors import UserError
from rilbench.lab import worker
from rilbench.lab.experiment import Experiment, Job, Settings
from rilbench.lab.grid_choice import choose, read_tuned, settings_for, write_tuned
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.regimes import REGIMES
from rilbench.lab.run_result import RunResult, read_result, read_results, result_file, write_result

Work = Callable[[Job, Settings, Callable[[str], None]], RunResult]
"""Does one job and returns its result: see `rilbench.lab.worker`."""
OpenWorker = Callable[[int], AbstractContextManager[Work]]
"""Opens worker number n."""

MAX_FAILURES = 2
"""A worker ends after this many consecutive jobs that stopped with an error."""
_WAIT_SECONDS = 1.0


class Listener(Protocol):
    """Shows progress; calls come from several threads."""

    def start(self, name: str, done: int, total: int) -> None:
        """An experiment starts; ``done`` of its jobs were finished before."""

    def worker(self, number: int, text: str) -> None:
        """What a worker does now; empty: nothing."""

    def finished(self, label: str, result: RunResult, seconds: float) -> None:
        """A result was written."""

    def failed(self, label: str, error: str) -> None:
        """A job stopped with an error; the next call tries it again."""

    def stopping(self) -> None:
        """The user asked to stop; running jobs are finished first."""


@dataclass(frozen=True)
class JobCounts:
    """Number of jobs finished before a call, by it, and left after it."""

    before: int
    done: int
    left: int


def run_experiment(
    experiment: Experiment,
    listener: Listener,
    paths: LabPaths | None = None,
    workers: int = 2,
    minutes: float | None = None,
    open_worker: OpenWorker | None = None,
) -> JobCounts:
    """Run the jobs of an experiment that are not finished.

    Args:
        experiment: from `rilbench.lab.experiment.read_experiment`.
        listener: shows progress.
        paths: where to read and write; default the current directory's results and runs.
        workers: number of jobs at a time.
        minutes: no job starts after them; running jobs are finished.
        open_worker: opens a worker; default one that trains and evaluates.

    Raises:
        UserError: a grid that a run needs is unfinished; an existing result has other settings;
            another lab uses the work folder; or jobs stopped with an error, after all others were
            done.
    """
    if workers < 1:
        raise UserError(f"--workers {workers} must be at least 1")
    paths = paths or LabPaths()
    paths.work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(paths.work / ".lock").acquire(timeout=0):
            queue = _Queue(experiment, paths)
            queue.refuse_unfinished_grids()
            until = None if minutes is None else time.monotonic() + 60 * minutes
            opened = open_worker or partial(worker.open_worker, paths=paths)
            return _Workers(queue, listener, until, opened).run(workers)
    except Timeout as error:
        raise UserError(f"another lab uses {paths.work}; wait for it") from error


class _Queue:
    """The jobs of an experiment that have no result yet, in order."""

    def __init__(self, experiment: Experiment, paths: LabPaths) -> None:
        self.experiment, self.paths = experiment, paths
        self._lock = threading.Lock()
        jobs = experiment.jobs()
        self.tuned = self._choose()
        self._open = [job for job in jobs if not self._has_result(job)]
        self.total, self.before = len(jobs), len(jobs) - len(self._open)

    def _choose(self) -> Mapping[str, Any]:
        """Return the choice of all grids, after updating that of this experiment's grids."""
        tuned = read_tuned(self.paths.tuned)
        if any(spec.cell for spec in self.experiment.runs):
            results = read_results(self.paths.runs, self.experiment.name)
            for regime, entries in choose(self.experiment, results).items():
                tuned.setdefault(regime, {}).update(entries)
            if tuned:
                write_tuned(tuned, self.paths.tuned)
        return tuned

    def _has_result(self, job: Job) -> bool:
        """Whether the job is finished; UserError if its result has other settings."""
        path = result_file(self.paths.runs, job.experiment, job.regime, job.spec.name, job.seed)
        if not path.exists():
            return False
        result = read_result(path)
        # Not by its weights: another machine rounds otherwise when it makes them.
        if result.digest != REGIMES[job.regime].digest:
            raise UserError(
                f"{path} was made from another {job.regime} than the present one; delete the "
                "results of that regime (and its runs) to run them again"
            )
        spec, tuned = job.spec, settings_for(job.spec, job.regime, self.tuned)
        steps = 0 if spec.model else job.steps
        now = (job.split, steps, spec.recipe, spec.method, spec.model, spec.responses)
        then = (
            *(result.split, result.steps, result.recipe, result.method, result.model),
            result.responses,
        )
        if then != now or (tuned is not None and dict(result.settings) != job.settings(tuned)):
            raise UserError(
                f"{path} was made with other settings than the experiment has now; delete it (and "
                "its run) to run it again, or give the run another name"
            )
        return True

    def refuse_unfinished_grids(self) -> None:
        """Refuse, before anything runs, a run that waits for a grid of another experiment."""
        here = {spec.entry for spec in self.experiment.runs if spec.cell}
        missing = sorted(
            {
                f"{entry} ({job.regime})"
                for job in self._open
                for entry in job.spec.tuned_by
                if entry not in here and entry not in self.tuned.get(job.regime, {})
            }
        )
        if missing:
            raise UserError(
                f"{self.experiment.name} would run untuned, the grid of {', '.join(missing)} is "
                "not finished; first: rilbench lab run grid"
            )

    def next(self) -> tuple[Job, Settings] | None:
        """Take the first job whose grids are chosen."""
        with self._lock:
            for job in self._open:
                settings = settings_for(job.spec, job.regime, self.tuned)
                if settings is not None:
                    self._open.remove(job)
                    return job, settings
            return None

    @property
    def left(self) -> int:
        """Number of jobs that no worker has taken."""
        with self._lock:
            return len(self._open)

    def finish(self, result: RunResult) -> None:
        """Write the result; it may finish a grid that other jobs wait for."""
        with self._lock:
            write_result(result, self.paths.runs)
            self.tuned = self._choose()


class _Workers:
    """Threads that take jobs from a queue until it is empty or time is up."""

    def __init__(
        self, queue: _Queue, listener: Listener, until: float | None, open_worker: OpenWorker
    ) -> None:
        self.queue, self.listener, self.until = queue, listener, until
        self.open_worker = open_worker
        self.stop = threading.Event()
        self.running = 0
        self.done = 0
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def run(self, workers: int) -> JobCounts:
        """Work until there is nothing left to do."""
        self.listener.start(self.queue.experiment.name, self.queue.before, self.queue.total)
        count = min(workers, max(1, self.queue.left))
        with ThreadPoolExecutor(count) as pool:
            threads = [pool.submit(self._work, n) for n in range(1, count + 1)]
            self._wait(threads)
            for thread in threads:
                thread.result()
        if self.errors:
            raise UserError(
                f"{len(self.errors)} of {self.queue.experiment.name} stopped: "
                f"{'; '.join(self.errors[:3])}. All finished runs are kept; fix it and call again"
            )
        left = self.queue.total - self.queue.before - self.done
        return JobCounts(self.queue.before, self.done, left)

    def _wait(self, threads: Sequence[Future[None]]) -> None:
        """Wait for all workers; the first interrupt finishes running jobs, the second none."""
        try:
            wait(threads)
        except KeyboardInterrupt:
            self.stop.set()
            self.listener.stopping()
            try:
                wait(threads)
            except KeyboardInterrupt:
                os._exit(130)  # threads cannot be ended; what is on disk survives, children do not

    def _work(self, number: int) -> None:
        with ExitStack() as stack:
            work: Work | None = None
            failures = 0
            while failures < MAX_FAILURES:
                taken = self._take()
                if taken is None:
                    break
                try:
                    if work is None:
                        work = stack.enter_context(self.open_worker(number))
                    failures = 0 if self._do(number, work, *taken) else failures + 1
                finally:
                    with self._lock:
                        self.running -= 1
            self.listener.worker(number, "")

    def _take(self) -> tuple[Job, Settings] | None:
        """Return a job; wait while one may become ready; None when nothing is left to do."""
        while not self.stop.is_set() and self.queue.left:
            if self.until is not None and time.monotonic() >= self.until:
                return None
            with self._lock:
                taken = self.queue.next()
                if taken is not None:
                    self.running += 1
                    return taken
                if not self.running:
                    return None  # the remaining jobs wait for a grid whose jobs stopped
            self.stop.wait(_WAIT_SECONDS)
        return None

    def _do(self, number: int, work: Work, job: Job, settings: Settings) -> bool:
        """Do one job, and return whether it ended without an error."""
        started = time.monotonic()
        self.listener.worker(number, job.label)
        try:
            result = work(
                job, settings, lambda text: self.listener.worker(number, f"{job.label}: {text}")
            )
        except UserError as error:
            with self._lock:
                self.errors.append(f"{job.label}: {error}")
            self.listener.failed(job.label, str(error))
            return False
        self.queue.finish(result)
        with self._lock:
            self.done += 1
        self.listener.finished(job.label, result, time.monotonic() - started)
        return True
