"""Build the laboratory from its seeds: tokenizer, base, two teachers, student, questions, files.

A base model learns to read, then to answer in the worked style. Each teacher goes on from it and
misreads the pictures of some families, so that the two are strong and weak on different tasks. The
student goes on from it with bare answers: it can do the tasks, but by its default style it does
not.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rilbench.checkpoint import Labels, inspect_checkpoint, write_labels
from rilbench.errors import UserError
from rilbench.nano.data import training_questions, write_benchmarks
from rilbench.nano.supervised import Course
from rilbench.teachers.questions import write_questions

READER = Course(steps=700, rate=2e-3, seed=1, families={"ChartQA": 1, "MM-Vet": 1})
"""First to read: with all families at once, reading digits may come late or not at all."""
BASE = Course(
    steps=1300, rate=2e-3, seed=5, families={"MMStar": 2, "MMB": 2, "ChartQA": 1, "MM-Vet": 1}
)
COURSES: Mapping[str, Course] = {
    "72b": Course(steps=150, rate=5e-4, seed=2, misreads={"MMStar": 0.3, "MM-Vet": 0.3}),
    "78b": Course(steps=150, rate=5e-4, seed=3, misreads={"MMB": 0.3, "ChartQA": 0.3}),
    "student": Course(steps=90, rate=5e-4, seed=4, worked=0.0),
}
SEED = 0
PROMPTS_EACH, DEV_EACH, BENCHMARK_QUESTIONS = 40, 16, 100

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
    write_benchmarks(part / "benchmarks", BENCHMARK_QUESTIONS, 103)
    reader = _Job("reader", None, _scaled(READER, scale), part / "reader")
    base = _Job("base", reader.out, _scaled(BASE, scale), part / "base")
    jobs = [
        _Job(name, base.out, _scaled(course, scale), part / name)
        for name, course in COURSES.items()
    ]
    for together in ([reader], [base], jobs):
        _run(together, report)
    manifest: dict[str, Any] = {
        "seed": SEED,
        "models": {job.name: job.told() for job in (reader, base, *jobs)},
        "fingerprints": {job.name: inspect_checkpoint(job.out).fingerprint for job in jobs},
    }
    for step in (reader, base):
        shutil.rmtree(step.out)
    (part / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def _scaled(course: Course, scale: float) -> Course:
    from dataclasses import replace

    return replace(course, steps=max(1, round(course.steps * scale)))


def _run(jobs: list[_Job], report: Report) -> None:
    """Train models side by side, one process with one thread for each."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context) as pool:
        events = manager.Queue()
        waiting = {pool.submit(_train, job, events) for job in jobs if not job.finished}
        while waiting:
            finished = {future for future in waiting if future.done()}
            for future in finished:
                future.result()
            waiting -= finished
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
    from rilbench.nano.measure import accuracy, answers
    from rilbench.nano.supervised import train

    torch.set_num_threads(1)
    if job.start is None:
        tokenizer = models.train_tokenizer(SEED)
        processor = models.build_processor(tokenizer)
        model = models.build_model(tokenizer, SEED)
    else:
        model, processor = models.load(job.start)

    def on_step(step: int, loss: float) -> None:
        events.put((f"{job.name} (loss {loss:.2f})", step, job.course.steps))

    train(model, processor, job.course, on_step)
    model.save_pretrained(job.out)
    processor.save_pretrained(job.out)
    write_labels(job.out, _labels(job.name))
    answered = answers(model, processor, pool="dev", questions=50, seed=SEED)
    told = {"course": asdict(job.course), "dev_accuracy": accuracy(answered)}
    (job.out / "course.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _labels(name: str) -> Labels:
    """The student is the table's untrained row; a teacher's row says which one it is."""
    if name == "student":
        return Labels(student="nano", method="base", teacher="none")
    return Labels(student=f"nano-{name}", method="base", teacher="none")
