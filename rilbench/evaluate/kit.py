"""The evaluation kit and its judge, kept running over several evaluations."""

from contextlib import ExitStack
from pathlib import Path

from rilbench.evaluate.judging import judge_server
from rilbench.evaluate.kits.process import KitProcess
from rilbench.evaluate.kits.vlmevalkit import start_worker


class Kit:
    """VLMEvalKit's worker and the judge, each started when first needed.

    A context manager that ends both with the block. The kit's import takes about 20 s, so one that
    evaluates checkpoints as they appear gives the same `Kit` to every call of `evaluate_many`.

    Args:
        log: what the worker says; overwritten at each start.
        judge_url: an OpenAI-compatible judge, up to ``/v1``; None is the project's exact one.
    """

    def __init__(self, log: Path, judge_url: str | None = None) -> None:
        self.log, self.judge_url = log, judge_url
        self._judge, self._worker = ExitStack(), ExitStack()
        self._judge_url: str | None = None
        self._process: KitProcess | None = None

    def __enter__(self) -> "Kit":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()
        self._judge.close()
        self._judge_url = None

    def process(self, python: Path) -> KitProcess:
        """Return the worker; it imports the kit while the caller goes on."""
        if self._process is None:
            started = start_worker(python, self.log, self.judge_url)
            self._process = self._worker.enter_context(started)
        return self._process

    def judge(self) -> str:
        """Return the judge's address up to ``/v1``."""
        if self._judge_url is None:
            self._judge_url = self._judge.enter_context(judge_server(self.judge_url))
        return self._judge_url

    def discard(self) -> None:
        """End the worker, as after a failure it may be within a job; the next is a new one."""
        self._worker.close()
        self._process = None
