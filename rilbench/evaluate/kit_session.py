"""An evaluation kit and its judge, kept running over several evaluations."""

from contextlib import ExitStack
from pathlib import Path

from rilbench.evaluate.judge_session import EXACT_RULES, Judge, RunningJudge, running_judge
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.worker_process import KitProcess
from rilbench.evaluate.suite import VLMEVALKIT


class Kit:
    """A kit's worker and the judge, each started when first needed.

    A context manager that ends both with the block. The kit's import takes about 20 s, so one that
    evaluates checkpoints as they appear gives the same `Kit` to every call of `evaluate_many`.

    Args:
        log: what the worker says; overwritten at each start. A judge's replies are kept beside it.
        judge: who decides free text; by default the project's exact rules.
        name: of the kit.
    """

    def __init__(self, log: Path, judge: Judge = EXACT_RULES, name: str = VLMEVALKIT) -> None:
        self.log, self.chosen, self.name = log.absolute(), judge, name
        self._adapter = find_kit(name)
        self._judge, self._worker = ExitStack(), ExitStack()
        self._running: RunningJudge | None = None
        self._process: KitProcess | None = None

    def __enter__(self) -> "Kit":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()
        self._judge.close()
        self._running = None

    def process(self, python: Path) -> KitProcess:
        """Return the worker; it imports the kit while the caller goes on."""
        if self._process is None:
            started = self._adapter.start(python, self.log, self._address)
            self._process = self._worker.enter_context(started)
        return self._process

    def judge(self) -> RunningJudge:
        """Return the judge.

        Raises:
            UserError: it does not answer.
        """
        if self._running is None:
            started = running_judge(self.chosen, self.log.parent / "judge")
            self._running = self._judge.enter_context(started)
        return self._running

    def _address(self) -> tuple[str, str]:
        judge = self.judge()
        return judge.url, judge.name

    def discard(self) -> None:
        """End the worker, as after a failure it may be within a job; the next is a new one."""
        self._worker.close()
        self._process = None
