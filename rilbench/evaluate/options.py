"""What to evaluate on, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rilbench.checkpoint import Checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.image_resize import AS_IS, Pixels
from rilbench.evaluate.judge_session import EXACT_RULES, Judge
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.suite import VLMEVALKIT, Suite, find_suite

DATASET_PROMPTS, MODEL_PROMPTS = "dataset", "model"


@dataclass(frozen=True)
class EvalOptions:
    """What to evaluate on, and how; the same for all models of one call.

    Attributes:
        suite: name of the suite.
        data: folder with the kit's data files.
        work: folder for prompts, answers and the kit's results; kept, and used again.
        db: the ledger; None writes no scores.
        kit: which kit asks and scores.
        judge: who decides free text, and reads options where the kit's rules cannot; by default
            the project's exact rules, which read none.
        endpoint: ``MODEL@URL`` or ``URL`` of a server that already serves the model, up to ``/v1``;
            None starts one.
        benchmarks: columns of the suite; none for all.
        limit: questions per dataset, a sample that only their ids decide; None for all.
        max_tokens: the longest answer; None for the kit's or the suite's own.
        prompt: ``dataset`` for the kit's prompts of each dataset, ``model`` for those that it has
            for the model's family.
        pixels: limits of a picture that is sent.
        concurrency: requests in flight; None for what the server is likely to bear.
        fresh: ask every question anew, also those that have an answer.
        device: where the model is put, unless there is an endpoint.
        python: the kit's Python; None makes the kit's own environment on first use.
        engine: ``server`` asks a server, the endpoint's or one that is started; ``batch`` generates
            in this process, ``batch`` questions at a time, and needs no server.
        vllm: a Python with vLLM, which serves the model; None for ``transformers serve``.
        batch: questions per batch.
    """

    suite: str
    data: Path
    work: Path
    db: Path | None = None
    kit: str = VLMEVALKIT
    judge: Judge = EXACT_RULES
    endpoint: str | None = None
    benchmarks: tuple[str, ...] = ()
    limit: int | None = None
    max_tokens: int | None = None
    prompt: str = DATASET_PROMPTS
    pixels: Pixels = AS_IS
    concurrency: int | None = None
    fresh: bool = False
    device: str = "cpu"
    python: Path | None = None
    engine: Literal["server", "batch"] = "server"
    vllm: Path | None = None
    batch: int = 64

    def __post_init__(self) -> None:
        if self.prompt not in (DATASET_PROMPTS, MODEL_PROMPTS):
            raise UserError(
                f"no prompts {self.prompt!r}; there is {DATASET_PROMPTS}, {MODEL_PROMPTS}"
            )
        if self.engine not in ("server", "batch"):
            raise UserError(f"no engine {self.engine!r}; there is server, batch")
        if self.engine == "batch" and self.endpoint is not None:
            raise UserError("batches are generated without a server; leave out the endpoint")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UserError(f"an answer of {self.max_tokens} tokens says nothing; give 1 or more")
        if self.concurrency is not None and self.concurrency < 1:
            raise UserError(f"{self.concurrency} requests at a time ask nothing; give 1 or more")
        if self.batch < 1:
            raise UserError(f"a batch of {self.batch} holds no question; give 1 or more")

    @property
    def in_flight(self) -> int:
        """Requests in flight: many for a server of the user's or vLLM, few for transformers'."""
        if self.concurrency is not None:
            return self.concurrency
        return 4 if self.endpoint is None and self.vllm is None else 32

    @property
    def dtype(self) -> str:
        """Of the weights of a model that is served here: on a GPU the checkpoint's own."""
        return "float32" if self.device == "cpu" else "auto"

    def style(self, models: Sequence[Checkpoint]) -> str | None:
        """The style of the prompts: None for the datasets' own.

        Raises:
            UserError: the kit has no prompts for these models, or not the same for all.
        """
        if self.prompt == DATASET_PROMPTS:
            return None
        known = find_kit(self.kit).styles
        for model in models:
            if model.model_type not in known:
                raise UserError(
                    f"{self.kit} has no prompts for {model.model_type}, only for "
                    f"{', '.join(known) or 'none'}; use --prompt {DATASET_PROMPTS}"
                )
        styles = {known[model.model_type] for model in models}
        if len(styles) != 1:
            raise UserError(
                f"--prompt {MODEL_PROMPTS} needs models of one family; evaluate one at a time"
            )
        return styles.pop()

    def chosen(self) -> Suite:
        """The suite with the chosen benchmarks and the longest answer.

        Raises:
            UserError: there is no such suite or benchmark, or the judge cannot decide one.
        """
        suite = find_suite(self.suite).by(self.kit)
        if self.benchmarks:
            suite = suite.pick(self.benchmarks)
        needed = [b.column for b in suite.benchmarks if b.judged]
        if suite.published and self.judge.exact and needed:
            raise UserError(
                f"{', '.join(needed)} need a language model as judge: --judge MODEL@URL; "
                "or name the others with --benchmarks"
            )
        return replace(suite, max_tokens=self.max_tokens or suite.max_tokens)
