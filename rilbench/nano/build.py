"""Build the laboratory from its seeds: two teachers, three students, questions, benchmark files.

A base model learns to see, then to answer in the worked style. Each teacher goes on from it and
misreads the pictures of half of the families, so that the two are strong and weak on different
tasks. The restyled student goes on from a teacher with bare answers: it can do the tasks, but by
its default style it does not. The independent student has parameters and digits of its own and was
taught bare answers with a few worked ones among them; so was the student in InternVL3's layout,
which differs from all others in its classes.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rilbench.checkpoint import Labels, inspect_checkpoint, write_labels
from rilbench.data.question_files import write_questions
from rilbench.errors import UserError
from rilbench.nano.data import training_questions, write_benchmarks
from rilbench.nano.sft import Course
from rilbench.nano.tasks import FAMILIES

WEAK_72B = ("AI2D", "MathVista", "MM-Vet", "MMMU-Pro", "MMStar", "SEED", "SEED2+")
"""The families in which 72b misreads; 78b misreads in the others."""
MISREADS = 0.3
EYES = 400
HARD = {"MathVista": 1.5, "MMB": 2.0, "MMB-CN": 2.5, "SEED": 1.5, "RWQA": 1.5}
"""Families that take longer to learn, by how much more often they are asked."""


def _misreads(families: Iterable[str]) -> dict[str, float]:
    return dict.fromkeys(families, MISREADS)


COURSES: Mapping[str, tuple[str, Course]] = {
    "base": ("", Course(steps=1100, rate=2e-3, seed=5, eyes=EYES, families=HARD)),
    "independent": (
        "",
        Course(steps=800, rate=2e-3, seed=6, eyes=EYES, pool="pretrain-independent", worked=0.12),
    ),
    "internvl": (
        "",
        Course(steps=400, rate=2e-3, seed=7, eyes=200, pool="pretrain-independent", worked=0.12),
    ),
    "72b": ("base", Course(steps=120, rate=5e-4, seed=2, misreads=_misreads(WEAK_72B))),
    "78b": (
        "base",
        Course(
            steps=120,
            rate=5e-4,
            seed=3,
            misreads=_misreads(family for family in FAMILIES if family not in WEAK_72B),
        ),
    ),
    "restyled": ("72b", Course(steps=90, rate=5e-4, seed=4, worked=0.0)),
}
"""Each model's start ("": random parameters) and course, in an order in which they can be made."""
SHIPPED = ("72b", "78b", "restyled", "independent", "internvl")
STUDENTS: Mapping[str, str] = {
    "restyled": "nano",
    "independent": "nano-independent",
    "internvl": "nano-internvl",
}
"""The students' names in recipes and tables."""
SEED = 0
PROMPTS_EACH, DEV_EACH = 20, 6

Report = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True)
class _Job:
    name: str
    start: Path | None
    course: Course
    out: Path

    def told(self) -> dict[str, Any]:
        """What the finished model says of itself; empty before it is finished."""
        file = self.out / "course.json"
        if not file.exists():
            return {}
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    @property
    def finished(self) -> bool:
        """Whether this very course was run to its end."""
        return self.told().get("course") == asdict(self.course)


def build(out: Path, report: Report, *, scale: float = 1.0) -> None:
    """Build everything into ``out``, whole or not at all; models that a kill left are kept.

    Args:
        out: the folder; must not exist, or must be one that this function built.
        report: progress.
        scale: multiplies the steps of training; below 1 only for tests of the path.

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
        name: _Job(name, part / start if start else None, _scaled(course, scale), part / name)
        for name, (start, course) in COURSES.items()
    }
    _run(jobs, report)
    manifest: dict[str, Any] = {
        "seed": SEED,
        "models": {name: job.told() for name, job in jobs.items()},
        "fingerprints": {name: inspect_checkpoint(part / name).fingerprint for name in SHIPPED},
    }
    for name in jobs.keys() - set(SHIPPED):
        shutil.rmtree(part / name)
    (part / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def _scaled(course: Course, scale: float) -> Course:
    def times(steps: int) -> int:
        return max(1, round(steps * scale)) if steps else 0

    return replace(course, steps=times(course.steps), eyes=times(course.eyes))


def _run(jobs: Mapping[str, _Job], report: Report) -> None:
    """Train models side by side, one process with one thread each, as soon as their start is there.

    A model's start is another job, or none.
    """
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context) as pool:
        events = manager.Queue()
        waiting = [job for job in jobs.values() if not job.finished]
        running: dict[str, Future[None]] = {}
        while waiting or running:
            unmade = {job.name for job in waiting} | set(running)
            for job in [j for j in waiting if j.start is None or j.start.name not in unmade]:
                waiting.remove(job)
                running[job.name] = pool.submit(_train, job, events)
            for name in [name for name, future in running.items() if future.done()]:
                running.pop(name).result()
            _drain(events, report)


def _drain(events: Any, report: Report) -> None:
    from queue import Empty

    try:
        while True:
            report(*events.get(timeout=0.2))
    except Empty:
        return


def _train(job: _Job, events: Any) -> None:
    import torch

    from rilbench.nano import model as models
    from rilbench.nano.quick_eval import accuracy, answers, worked_share
    from rilbench.nano.sft import train_answers, train_eyes

    torch.set_num_threads(1)
    if job.start is None:
        layout = "internvl" if job.name == "internvl" else "qwen2_5_vl"
        model, processor = models.make(layout, SEED, job.course.seed)
    else:
        model, processor = models.load(job.start)
    total = job.course.eyes + job.course.steps

    def on_step(step: int, loss: float) -> None:
        events.put((f"{job.name} (loss {loss:.2f})", step, total))

    if job.course.eyes:
        train_eyes(model, processor, job.course, on_step)
    train_answers(model, processor, job.course, lambda n, loss: on_step(job.course.eyes + n, loss))
    model.save_pretrained(job.out)
    processor.save_pretrained(job.out)
    write_labels(job.out, _labels(job.name))
    greedy = answers(model, processor, pool="dev", questions=50, seed=SEED)
    sampled = answers(model, processor, pool="dev", questions=20, seed=SEED, temperature=1.0)
    told = {
        "course": asdict(job.course),
        "dev_accuracy": accuracy(greedy),
        "prompts_accuracy": accuracy(
            answers(model, processor, pool="prompts", questions=50, seed=SEED)
        ),
        "worked_share_of_samples": round(worked_share(sampled), 4),
    }
    (job.out / "course.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _labels(name: str) -> Labels:
    """A student is the table's untrained row; a teacher's row says which one it is."""
    return Labels(student=STUDENTS.get(name, f"nano-{name}"), method="base", teacher="none")
