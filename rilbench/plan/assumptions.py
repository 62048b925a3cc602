"""Assumptions of a plan, each with a default that ``--assume KEY=VALUE`` replaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rilbench.config.schema import Recipe
from rilbench.errors import UserError
from rilbench.paths import locate_files

DEVICES = {
    16: ("RTX A4000", 76.7, 448.0),
    24: ("A10", 125.0, 600.0),
    48: ("A40", 149.7, 696.0),
    80: ("A100-80GB", 312.0, 2039.0),
    141: ("H200-141GB", 989.0, 4800.0),
}
"""By GiB of memory: name, dense bf16 TFLOP/s, GB/s of memory (data sheets)."""
CPU = ("a CPU of few cores", 0.1, 20.0)

_LEAST, _MOST = 1e-6, 1e12
"""Times and sizes stay numbers between these bounds of any assumption."""
_SHARES = {"mfu": 1.0, "decode_efficiency": 1.0}


@dataclass(frozen=True)
class Assumptions:
    """The assumptions behind times, GPU-hours and disk; printed with every plan."""

    questions: int = 40_000  # App C; those of data.train where it is a file on this machine
    prompt_tokens: int = 1024  # mean, images included; not in the paper
    image_tokens: int = 768  # mean, part of the prompt
    response_tokens: int = 512  # mean; not in the paper
    longest_response_tokens: int = 2048  # of a step, which waits for it: the cap, of 144 responses
    mfu: float = 0.35  # share of tflops that forward and backward reach
    decode_efficiency: float = 0.5  # share of bandwidth that sampling reaches
    tflops: float = 0.0  # of a device, dense bf16; 0: by its memory
    bandwidth: float = 0.0  # GB/s of a device's memory; 0: by its memory
    reserved_gib: float = 4.0  # of a GPU: CUDA, NCCL, fragments, a sleeping vLLM
    discriminator_imbalance: float = (
        1.05  # its longest rank over the mean; rows are dealt by length
    )
    sync_gb: float = (
        8.25  # GB/s of weights into the rollout engine; verl's checkpoint_engine/README
    )
    queue_gib: float = 1.0  # GiB/s into TransferQueue and out of it; measured on one CPU core
    trainer_gib: float = 4.0  # host memory of the process that drives the loop
    process_gib: float = 1.5  # of each other process; 0.5 on a CPU, measured, and CUDA adds
    bytes_per_token: float = 4.0  # of text, on disk
    bytes_per_pixel: float = 0.2  # of a picture, on disk; measured: JPEG of 448 and 1024 pixels

    @property
    def lines(self) -> list[str]:
        """The assumptions as ``key=value``, as ``--assume`` takes them."""
        return [f"{key}={value:g}" for key, value in dataclasses.asdict(self).items()]


def assume(recipe: Recipe, wanted: Iterable[str] = ()) -> Assumptions:
    """Return the defaults, by the recipe's data, lengths and device, then ``key=value``.

    Raises:
        UserError: an unknown key, or a value that is no number, too small or too large.
    """
    known = {field.name: field.type for field in dataclasses.fields(Assumptions)}
    given: dict[str, float] = {}
    for text in wanted:
        key, _, value = text.partition("=")
        if key not in known:
            raise UserError(
                f"--assume {text}: unknown key {key!r}; choose from: {', '.join(known)}"
            )
        try:
            given[key] = int(value) if known[key] == "int" else float(value)
        except ValueError as error:
            raise UserError(
                f"--assume {text[:60]}: {value[:40]!r} is not a number of type {known[key]}"
            ) from error
        least, most = (1, _MOST) if known[key] == "int" else (_LEAST, _SHARES.get(key, _MOST))
        if not least <= given[key] <= most:
            raise UserError(f"--assume {text[:60]}: give a number from {least:g} to {most:g}")
    plain = Assumptions()
    limits = recipe.data
    cpu = recipe.hardware.device == "cpu"
    _, tflops, bandwidth = device(recipe)
    prompt = min(plain.prompt_tokens, limits.max_prompt_tokens)
    values: dict[str, float] = {
        "questions": count_questions(limits.train) or plain.questions,
        "prompt_tokens": prompt,
        "image_tokens": min(plain.image_tokens, prompt // 2 if cpu else prompt),
        "response_tokens": min(plain.response_tokens, limits.max_response_tokens),
        "tflops": tflops,
        "bandwidth": bandwidth,
        "longest_response_tokens": limits.max_response_tokens,
        "discriminator_imbalance": plain.discriminator_imbalance
        if recipe.hardware.ranks > 1
        else 1.0,
        "trainer_gib": 1.0 if cpu else plain.trainer_gib,
        "process_gib": 0.5 if cpu else plain.process_gib,
        "reserved_gib": 1.0 if cpu else plain.reserved_gib,
    }
    return dataclasses.replace(plain, **{**values, **given})  # type: ignore[arg-type]


def count_questions(data: str) -> int:
    """Return the number of questions in ``data.train``; 0 if a file cannot be read here."""
    try:
        return sum(map(_count_rows, locate_files(data)))
    except (UserError, OSError, ValueError):  # pyarrow's errors are of the latter two kinds
        return 0


def _count_rows(path: Path) -> int:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def device(recipe: Recipe) -> tuple[str, float, float]:
    """Return the name, TFLOP/s and GB/s that are assumed of a recipe's device."""
    if recipe.hardware.device == "cpu":
        return CPU
    nearest = min(DEVICES, key=lambda gib: abs(gib - recipe.hardware.memory_gib))
    return DEVICES[nearest]
