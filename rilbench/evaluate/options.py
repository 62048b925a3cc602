"""What to evaluate on, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from rilbench.checkpoint import Checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.image_resize import AS_IS, Pixels
from rilbench.evaluate.judge_session import EXACT_RULES, Judge, read_judge
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.suite import VLMEVALKIT, Benchmark, Suite, find_suite

DATASET_PROMPTS, MODEL_PROMPTS = "dataset", "model"
CHECKPOINT_SETTINGS, KIT_SETTINGS = "checkpoint", "kit"


@dataclass(frozen=True)
class EvalOptions:
    """What to evaluate on, and how; the same for all models of one call.

    Attributes:
        suite: name of the suite.
        data: folder with the kit's data files.
        work: folder for prompts, responses and the kit's results; kept, and used again.
        db: the ledger; None records nothing.
        kit: the evaluation toolkit that asks and scores.
        judge: who decides free text, and reads options where the kit's rules cannot; by default
            the project's exact rules, which read none.
        endpoint: ``MODEL@URL`` or ``URL`` (up to ``/v1``) of a server that already serves the
            model, or several of them, divided by commas; None starts one.
        fields: all fields of a request to the endpoint besides ``model`` and ``messages``, instead
            of what is sent otherwise; the limit of the response is added unless they name one.
        benchmarks: names of benchmarks, or paths of TOML files; empty for the suite's own.
        limit: questions per data set, sampled by their ids alone; None for all.
        max_tokens: the longest response; None for the kit's or the suite's own.
        prompt: ``dataset`` for the kit's prompts of each data set, ``model`` for its prompts for
            the model's family.
        model_settings: ``checkpoint`` for the model's own repetition penalty and sizes of images,
            ``kit`` for those of the kit's entry for the model's family.
        pixels: size limits of an image that is sent.
        repetition_penalty: sent with every request; None leaves it to the model's files.
        concurrency: requests in flight; None: as many as raise the rate of responses
            (`rilbench.evaluate.model_server.requests_in_flight`).
        fresh: ask every question again, also those with a response.
        fresh_verdicts: score again, and ask the judge again also where it has replied before.
        device: where the model is put, unless there is an endpoint.
        python: the kit's Python; None makes the kit's own environment on first use.
        engine: ``server`` asks a server; ``batch`` generates in this process, without one.
        vllm: a Python with vLLM, which serves the model; None for ``transformers serve``.
        gpus: of this machine, on all of which vLLM serves the model.
        gpu_gib: memory of each.
        server_args: further options of ``vllm serve``.
        start_limit: seconds within which a started server must answer; None by the model's size.
        batch: questions per batch of the engine ``batch``.
    """

    suite: str
    data: Path
    work: Path
    db: Path | None = None
    kit: str = VLMEVALKIT
    judge: Judge = EXACT_RULES
    endpoint: str | None = None
    fields: Mapping[str, Any] | None = None
    benchmarks: tuple[str, ...] = ()
    limit: int | None = None
    max_tokens: int | None = None
    prompt: str = DATASET_PROMPTS
    model_settings: str = CHECKPOINT_SETTINGS
    pixels: Pixels = AS_IS
    repetition_penalty: float | None = None
    concurrency: int | None = None
    fresh: bool = False
    fresh_verdicts: bool = False
    device: str = "cpu"
    python: Path | None = None
    engine: Literal["server", "batch"] = "server"
    vllm: Path | None = None
    gpus: int = 0
    gpu_gib: float = 0.0
    server_args: tuple[str, ...] = ()
    start_limit: float | None = None
    batch: int = 64

    def __post_init__(self) -> None:
        if self.prompt not in (DATASET_PROMPTS, MODEL_PROMPTS):
            raise UserError(
                f"unknown --prompt {self.prompt!r}; choose from {DATASET_PROMPTS}, {MODEL_PROMPTS}"
            )
        if self.engine not in ("server", "batch"):
            raise UserError(f"unknown --engine {self.engine!r}; choose from server, batch")
        if self.model_settings not in (CHECKPOINT_SETTINGS, KIT_SETTINGS):
            raise UserError(
                f"unknown --model-settings {self.model_settings!r}; choose from "
                f"{CHECKPOINT_SETTINGS}, {KIT_SETTINGS}"
            )
        if self.engine == "batch" and self.endpoint is not None:
            raise UserError("the engine batch needs no server; leave out --endpoint")
        starts_vllm = self.vllm is not None and self.endpoint is None and self.engine == "server"
        if self.fields is not None and self.endpoint is None:
            raise UserError("--fields are for a server at an --endpoint; give both")
        if self.server_args and not starts_vllm:
            raise UserError(
                "--server-args are for the vLLM server that eval starts on a GPU, and it starts "
                "none; leave them out"
            )
        if self.start_limit is not None and (self.endpoint is not None or self.engine == "batch"):
            raise UserError(
                "--start-limit is for a server that eval starts, and it starts none; leave it out"
            )
        if self.concurrency is not None and self.engine == "batch":
            raise UserError(
                "--concurrency is for requests to a server, and the engine batch asks none; leave "
                "it out"
            )
        for option, value in {
            "--max-tokens": self.max_tokens,
            "--concurrency": self.concurrency,
            "--start-limit": self.start_limit,
            "the batch size": self.batch,
        }.items():
            if value is not None and value < 1:
                raise UserError(f"{option} must be at least 1, not {value}")

    @property
    def dtype(self) -> str:
        """Data type of the weights of a model that is served here; ``auto`` is the checkpoint's."""
        return "float32" if self.device == "cpu" else "auto"

    def style(self, models: Sequence[Checkpoint]) -> str | None:
        """Return the style of the kit's prompts for these models; None for the data sets' own.

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

    def with_model_settings(self, models: Sequence[Checkpoint]) -> EvalOptions:
        """Return the options with what the kit's entry sets for these models, if that is wanted.

        Raises:
            UserError: the kit sets nothing for them that could be sent, or not the same for all.
        """
        if self.model_settings == CHECKPOINT_SETTINGS:
            return self
        if not models:
            raise UserError(
                f"--model-settings {KIT_SETTINGS} needs the model's family; give its folder with "
                "--model, or set --min-pixels and --max-pixels"
            )
        known = find_kit(self.kit).model_settings
        for model in models:
            if model.model_type not in known:
                raise UserError(
                    f"{self.kit} has no --model-settings {KIT_SETTINGS} for {model.model_type} "
                    f"that a server takes, only for {', '.join(known)}; leave it out, or set "
                    "--min-pixels and --max-pixels"
                )
        settings = {known[model.model_type] for model in models}
        if len(settings) != 1:
            raise UserError(
                f"--model-settings {KIT_SETTINGS} needs models of one family; evaluate one at a "
                "time"
            )
        (found,) = settings
        pixels = found.pixels if self.pixels == AS_IS else self.pixels
        return replace(self, pixels=pixels, repetition_penalty=found.repetition_penalty)

    def unlike_kit(self, model: Checkpoint) -> str:
        """Return what is set otherwise than in the kit's entry for the model; empty if nothing is.

        A published score depends on it.
        """
        kit = find_kit(self.kit).model_settings.get(model.model_type)
        if kit is None:
            return ""
        ours: dict[str, float | None] = {
            "min_pixels": self.pixels.least,
            "max_pixels": self.pixels.most,
        }
        theirs: dict[str, float | None] = {
            "min_pixels": kit.pixels.least,
            "max_pixels": kit.pixels.most,
        }
        if kit.repetition_penalty is not None:
            own = model.generation_config.get("repetition_penalty", 1.0)
            ours["repetition_penalty"] = self.repetition_penalty or own
            theirs["repetition_penalty"] = kit.repetition_penalty
        differ = [
            f"{name} {'the processor decides' if ours[name] is None else ours[name]} "
            f"({self.kit}: {theirs[name]})"
            for name in ours
            if ours[name] != theirs[name]
        ]
        return ", ".join(differ)

    def judged(self) -> list[Benchmark]:
        """Return the chosen benchmarks that need a language model as judge and have none.

        Raises:
            UserError: there is no such suite or benchmark.
        """
        suite = find_suite(self.suite, ",".join(self.benchmarks), self.kit)
        if not suite.published or not self.judge.exact:
            return []
        return [benchmark for benchmark in suite.benchmarks if benchmark.judged]

    def chosen(self) -> Suite:
        """Return the suite with the chosen benchmarks, kit and longest response.

        Raises:
            UserError: there is no such suite or benchmark, or a benchmark needs another judge.
        """
        suite = find_suite(self.suite, ",".join(self.benchmarks), self.kit)
        if needed := [benchmark.column for benchmark in self.judged()]:
            raise UserError(
                f"{', '.join(needed)} need a language model as judge: --judge MODEL@URL; "
                "or name the others with --benchmarks"
            )
        return replace(suite, max_tokens=self.max_tokens or suite.max_tokens)


def read_fields(option: str, text: str) -> dict[str, Any] | None:
    """Read a request's fields, such as ``{max_completion_tokens: 4096}``; None if there are none.

    Raises:
        UserError: it is no mapping in YAML.
    """
    if not text:
        return None
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        example = "'{max_completion_tokens: 4096, temperature: 1}'"
        raise UserError(f"{option} {text} is not understood; give a mapping: {example}")
    return {str(name): value for name, value in found.items()}


def read_options(
    *,
    suite: str = "nano",
    kit: str = VLMEVALKIT,
    benchmarks: str = "",
    data: Path | None = None,
    db: Path | None = None,
    work: Path = Path("runs/eval"),
    fresh: bool = False,
    fresh_verdicts: bool = False,
    judge: str | None = None,
    judge_fields: str = "",
    endpoint: str | None = None,
    fields: str = "",
    concurrency: int | None = None,
    limit: int | None = None,
    max_tokens: str = "kit",
    prompt: str = DATASET_PROMPTS,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    model_settings: str = CHECKPOINT_SETTINGS,
    engine: str = "server",
    server_args: str = "",
    start_limit: float | None = None,
) -> EvalOptions:
    """Return the options of ``rilbench eval``, on this machine's GPUs if it has any.

    Raises:
        UserError: one of them is not understood.
    """
    from rilbench.devices import gpus
    from rilbench.evaluate.data import data_folder
    from rilbench.serving import vllm_python
    from rilbench.serving.server import split_options

    if max_tokens != "kit" and not (max_tokens.isdecimal() and len(max_tokens) < 10):
        raise UserError(f"unknown --max-tokens {max_tokens[:40]!r}; give kit or a number")
    found = gpus()
    return EvalOptions(
        suite=suite,
        data=data_folder(find_suite(suite).by(kit), data),
        work=work,
        db=db,
        kit=kit,
        judge=read_judge(judge, read_fields("--judge-fields", judge_fields)),
        endpoint=endpoint,
        fields=read_fields("--fields", fields),
        benchmarks=tuple(benchmarks.split(",")) if benchmarks else (),
        limit=limit,
        max_tokens=None if max_tokens == "kit" else int(max_tokens),
        concurrency=concurrency,
        fresh=fresh,
        fresh_verdicts=fresh_verdicts,
        prompt=prompt,
        pixels=Pixels(min_pixels, max_pixels),
        model_settings=model_settings,
        device="cuda" if found else "cpu",
        vllm=vllm_python() if found else None,
        gpus=len(found),
        gpu_gib=min((gpu.memory_gib for gpu in found), default=0.0),
        server_args=split_options("--server-args", server_args),
        start_limit=start_limit,
        engine=cast('Literal["server", "batch"]', engine),  # Which EvalOptions checks.
    )
