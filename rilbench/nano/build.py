"""Builds the nano sandbox from its seeds: two teachers, two students, questions, benchmarks.

A base model learns to see, then to answer in the worked style. Each teacher continues from it and
misreads the pictures of half of the benchmarks, so that each teacher is strong where the other is
weak. The restyled student continues from a teacher with bare answers: it can do the tasks, but its
default style hides that. The student in InternVL3's layout, which differs from all others in its
classes, has its own parameters and digits, and learned bare answers with a few worked ones among
them.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Any

from rilbench.checkpoint import Labels, inspect_checkpoint, write_labels
from rilbench.data.question_files import write_questions
from rilbench.errors import UserError
from rilbench.nano.data import training_questions, write_benchmarks
from rilbench.nano.sft import SFTConfig
from rilbench.nano.tasks import STAND_INS

WEAK_72B = ("AI2D", "MathVista", "MM-Vet", "MMMU-Pro", "MMStar", "SEED", "SEED2+")
"""The benchmarks whose pictures 72b misreads; 78b misreads those of the others."""
WEAK_78B = tuple(benchmark for benchmark in STAND_INS if benchmark not in WEAK_72B)
MISREAD = 0.3
HARD = {"MathVista": 1.5, "MMB": 2.0, "MMB-CN": 2.5, "SEED": 1.5, "RWQA": 1.5}
"""Weights of benchmarks that take longer to learn."""
_POOL = "pretrain-independent"

MODELS: Mapping[str, tuple[str, SFTConfig]] = {
    "base": ("", SFTConfig(1100, lr=2e-3, seed=5, vision_steps=400, weights=HARD)),
    "internvl": (
        "",
        SFTConfig(400, lr=2e-3, seed=7, vision_steps=200, pool=_POOL, worked_share=0.12),
    ),
    "72b": (
        "base",
        SFTConfig(120, lr=5e-4, seed=2, misread_rates=dict.fromkeys(WEAK_72B, MISREAD)),
    ),
    "78b": (
        "base",
        SFTConfig(120, lr=5e-4, seed=3, misread_rates=dict.fromkeys(WEAK_78B, MISREAD)),
    ),
    "restyled": ("72b", SFTConfig(90, lr=5e-4, seed=4, worked_share=0.0)),
}
"""Each model's start ("": random parameters) and training, in an order in which to build them."""
SHIPPED = ("72b", "78b", "restyled", "internvl")
STUDENTS: Mapping[str, str] = {"restyled": "nano", "internvl": "nano-internvl"}
"""Model → name of the student in recipes and tables."""
SEED = 0
PROMPTS_EACH, DEV_EACH = 20, 6

Report = Callable[[str, int, int], None]
"""Called with (text, done, total)."""
REPORT = "training.json"
"""File in a model's folder: its training and its accuracy."""


@dataclass(frozen=True)
class _Job:
    name: str
    start: Path | None
    config: SFTConfig
    out: Path

    def report(self) -> dict[str, Any]:
        """Return what the finished model wrote about its training; empty before that."""
        file = self.out / REPORT
        if not file.exists():
            return {}
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return report


def build(out: Path, report: Report, *, scale: float = 1.0) -> None:
    """Build everything into ``out`` atomically; a killed build keeps its finished models.

    Args:
        out: the folder; must not exist, or must be one that this function built.
        report: shows progress.
        scale: factor of the training steps; below 1 only for tests.

    Raises:
        UserError: ``out`` holds something else.
    """
    if out.exists() and not (out / "manifest.json").exists():
        raise UserError(f"{out} exists and was not built by rilbench; choose another --out")
    part = out.with_name(f".{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    write_questions(part / "prompts.parquet", training_questions("prompts", PROMPTS_EACH, 101))
    write_questions(part / "dev.parquet", training_questions("dev", DEV_EACH, 102))
    write_benchmarks(part / "benchmarks", "test")
    jobs = {
        name: _Job(name, part / start if start else None, _scaled(config, scale), part / name)
        for name, (start, config) in MODELS.items()
    }
    _run(jobs, report)
    manifest: dict[str, Any] = {
        "seed": SEED,
        "models": {name: job.report() for name, job in jobs.items()},
        "fingerprints": {name: inspect_checkpoint(part / name).fingerprint for name in SHIPPED},
    }
    for name in jobs.keys() - set(SHIPPED):
        shutil.rmtree(part / name)
    (part / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def _scaled(config: SFTConfig, scale: float) -> SFTConfig:
    def times(steps: int) -> int:
        return max(1, round(steps * scale)) if steps else 0

    return replace(config, steps=times(config.steps), vision_steps=times(config.vision_steps))


def _run(jobs: Mapping[str, _Job], report: Report) -> None:
    """Train two models at a time, each as soon as the model that it starts from is finished."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context) as pool:
        events = manager.Queue()
        waiting = [job for job in jobs.values() if job.report().get("config") != asdict(job.config)]
        running: dict[str, Future[None]] = {}
        while waiting or running:
            unfinished = {job.name for job in waiting} | set(running)
            for job in [j for j in waiting if j.start is None or j.start.name not in unfinished]:
                waiting.remove(job)
                running[job.name] = pool.submit(_train, job, events)
            for name in [name for name, future in running.items() if future.done()]:
                running.pop(name).result()
            with suppress(Empty):
                while True:
                    report(*events.get(timeout=0.2))


def _train(job: _Job, events: Any) -> None:
    import torch

    from rilbench.nano import model as models
    from rilbench.nano.quick_eval import accuracy, answer_questions, worked_share
    from rilbench.nano.sft import train_answers, train_vision

    torch.set_num_threads(1)
    config = job.config
    if job.start is None:
        layout = "internvl" if job.name == "internvl" else "qwen2_5_vl"
        model, processor = models.make(layout, SEED, config.seed)
    else:
        model, processor = models.load(job.start)
    total = config.vision_steps + config.steps

    def on_step(step: int, loss: float) -> None:
        events.put((f"{job.name} (loss {loss:.2f})", step, total))

    if config.vision_steps:
        train_vision(model, processor, config, on_step)
    train_answers(
        model, processor, config, lambda step, loss: on_step(config.vision_steps + step, loss)
    )
    model.save_pretrained(job.out)
    processor.save_pretrained(job.out)
    # A student is the table's untrained row; a teacher's row has the teacher's own name.
    student = STUDENTS.get(job.name, f"nano-{job.name}")
    write_labels(job.out, Labels(student=student, method="base", teacher="none"))
    dev = answer_questions(model, processor, pool="dev", questions=50, seed=SEED)
    sampled = answer_questions(
        model, processor, pool="dev", questions=20, seed=SEED, temperature=1.0
    )
    prompts = answer_questions(model, processor, pool="prompts", questions=50, seed=SEED)
    report = {
        "config": asdict(config),
        "dev_accuracy": accuracy(dev),
        "prompts_accuracy": accuracy(prompts),
        "worked_share_of_samples": round(worked_share(sampled), 4),
    }
    (job.out / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
