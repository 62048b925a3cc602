"""An evaluation kit and its judge, running over several evaluations."""

from contextlib import ExitStack
from pathlib import Path

from rilbench.evaluate.judge_session import (
    EXACT_RULES,
    JUDGE_FOLDER,
    Judge,
    RunningJudge,
    running_judge,
)
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.worker_process import KitProcess
from rilbench.evaluate.suite import VLMEVALKIT


class Kit:
    """A kit's worker and the judge, each started when first needed.

    A context manager that stops both at the end of the block. Importing a kit takes about 20 s, so
    code that evaluates many checkpoints passes the same `Kit` to every call of `evaluate_many`.

    Args:
        log: the worker's output; overwritten at each start. The judge's replies are cached in the
            same folder.
        judge: who decides free text; by default the project's exact rules.
        name: of the kit.
        fresh_verdicts: ask the judge again also what it has replied to before.
    """

    def __init__(
        self,
        log: Path,
        judge: Judge = EXACT_RULES,
        name: str = VLMEVALKIT,
        *,
        fresh_verdicts: bool = False,
    ) -> None:
        self.log, self.chosen, self.name = log.absolute(), judge, name
        self._fresh_verdicts = fresh_verdicts
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
        """Return the worker, which may still be importing the kit."""
        if self._process is None:
            # Called only by a kit that reads the judge's address at its start.
            def address() -> tuple[str, str]:
                judge = self.judge()
                return judge.url, judge.name

            started = self._adapter.start(python, self.log, address)
            self._process = self._worker.enter_context(started)
        return self._process

    def judge(self) -> RunningJudge:
        """Return the judge, started if needed.

        Raises:
            UserError: it does not respond.
        """
        if self._running is None:
            folder = self.log.parent / JUDGE_FOLDER
            started = running_judge(self.chosen, folder, fresh=self._fresh_verdicts)
            self._running = self._judge.enter_context(started)
        return self._running

    def discard(self) -> None:
        """Stop the worker, which after a failure may be in the middle of a job."""
        self._worker.close()
        self._process = None
