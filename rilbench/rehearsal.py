"""``rilbench train --rehearse``: every stage of a run once, at its sizes, before days are spent.

Two steps of the user's own recipe, with its data, endpoints, judge and hardware: the questions with
the longest prompts, and responses as long as they may be. Without a GPU, a random student of the
same layout stands in on the CPU, so that everything but the kernels is tried.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from rilbench.config import Recipe, load_recipe
from rilbench.data.question import Question
from rilbench.data.question_files import write_questions
from rilbench.data.stored_questions import QuestionScan
from rilbench.devices import has_gpu
from rilbench.errors import UserError
from rilbench.nano.model import LAYOUTS, make
from rilbench.plan import find_architecture
from rilbench.train.pipeline import stages
from rilbench.train.pipeline.preflight import Inputs, preflight
from rilbench.train.pipeline.prepare_data import pixel_limits
from rilbench.train.pipeline.run_folder import Run, open_run
from rilbench.train.pipeline.stage import Progress
from rilbench.train.verl.question_reader import QuestionReader

STEPS = 2
"""Steps of a rehearsal: the first compiles and allocates, the second is like all later ones."""
SCALED_PROMPTS, SCALED_TOKENS = 4, 64
"""Prompts of a step and tokens of a response on a CPU, where a run of the real sizes never ends."""
MARKER = "rehearsal.json"
"""The report, and what tells the folder of a rehearsal from that of a run."""


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal found."""

    recipe: Recipe
    """Of the rehearsal, not of the run."""
    smaller: list[str]
    """What is smaller than in the run, and so was not tried."""
    questions: int
    longest_prompt: int
    """Tokens, pictures included."""
    seconds: Mapping[str, float]
    """Wall time by stage."""
    step: Mapping[str, Any]
    """The last step's line of ``metrics.jsonl``."""
    memory: Mapping[str, int]
    """Peak bytes on the machine, by kind of process, and ``all`` of them at one time."""
    step_bytes: int
    """Bytes on the disk of one saved step."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types, with the fingerprint in the place of the recipe."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "recipe": self.recipe.fingerprint}


def rehearse(
    recipe: Recipe, folder: Path, progress: Progress, *, strict: bool = False
) -> Rehearsal:
    """Run every stage of a recipe once and measure it.

    Args:
        recipe: the run's.
        folder: of the rehearsal, which is made again each time.
        progress: shows it to the user.
        strict: see `preflight`.

    Raises:
        UserError: what would stop the run; or the folder is not a rehearsal's.
    """
    if folder.exists():
        if not (folder / MARKER).exists():
            raise UserError(f"{folder} is not the folder of a rehearsal; give another --run")
        shutil.rmtree(folder)
    sources = folder / "rehearsal"
    sources.mkdir(parents=True)
    (folder / MARKER).write_text("{}\n", encoding="utf-8")
    smaller: list[str] = []
    if recipe.hardware.device == "cuda" and not has_gpu():
        recipe, smaller = scaled_down(recipe, sources / "student")
    inputs = preflight(Run(sources, recipe), strict=strict)
    longest = _longest_questions(recipe, inputs)
    write_questions(sources / "train.parquet", [question for _, question in longest])
    write_questions(sources / "dev.parquet", [question for _, question in longest[:8]])
    run = dataclasses.replace(
        open_run(folder / "run", _of_two_steps(recipe, sources), resume=False), full_length=True
    )
    watch = _Stages(progress)
    with _peak_memory() as memory:
        stages.train(run, watch)
    metrics = run.folder / "metrics.jsonl"  # SFT alone has none
    steps = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    saved = run.folder / "steps" / f"global_step_{STEPS}"
    found = Rehearsal(
        recipe=run.recipe,
        smaller=smaller,
        questions=len(longest),
        longest_prompt=longest[0][0],
        seconds=watch.seconds,
        step=json.loads(steps[-1]) if steps else {},
        memory=memory,
        step_bytes=sum(file.stat().st_size for file in saved.rglob("*") if file.is_file()),
    )
    text = json.dumps(found.as_dict(), indent=2, default=dict)
    (folder / MARKER).write_text(text + "\n", encoding="utf-8")
    return found


def scaled_down(recipe: Recipe, student: Path) -> tuple[Recipe, list[str]]:
    """A recipe that two CPU cores can rehearse, and what is smaller in it.

    Args:
        recipe: for GPUs.
        student: folder for a random student of the recipe's layout.
    """
    layout = find_architecture(recipe.student.model, recipe.student.name).layout
    layout = layout if layout in LAYOUTS else LAYOUTS[0]
    model, processor = make(layout, vocabulary_seed=0, seed=0)
    model.save_pretrained(student)
    processor.save_pretrained(student)
    cpu = load_recipe("both", "nano")
    schedule, data = recipe.schedule, recipe.data
    prompts = min(schedule.prompts_per_step, SCALED_PROMPTS)
    tokens = min(data.max_response_tokens, SCALED_TOKENS)
    small = dataclasses.replace(
        recipe,
        student=dataclasses.replace(recipe.student, model=str(student)),
        hardware=cpu.hardware,
        policy=dataclasses.replace(recipe.policy, micro_batch_tokens=0, mini_batches=1),
        discriminator=dataclasses.replace(
            recipe.discriminator, micro_batch_tokens=0, pretrain_batch_size=8
        ),
        schedule=dataclasses.replace(schedule, prompts_per_step=prompts),
        data=dataclasses.replace(data, max_response_tokens=tokens),
        sft=dataclasses.replace(recipe.sft, batch_size=min(recipe.sft.batch_size, 8)),
    )
    return small, [
        f"this machine has no GPU: a random student of {layout}'s layout with "
        f"{sum(p.numel() for p in model.parameters()):,} parameters stood in for "
        f"{recipe.student.name}, on the CPU",
        f"{prompts} prompts a step instead of {schedule.prompts_per_step}, responses of {tokens} "
        f"tokens instead of {data.max_response_tokens}",
        "seconds and memory are those of this machine",
    ]


def _longest_questions(recipe: Recipe, inputs: Inputs) -> list[tuple[int, Question]]:
    """The questions of two steps with the longest prompts, each with its tokens, longest first."""
    student = inputs.student.path
    reader = QuestionReader(student, pixel_limits(student), recipe.data.max_prompt_tokens)
    kept = {question.id for question in inputs.questions}
    train = inputs.scans[0]
    counted = (
        (reader.prompt_tokens(question), question)
        for question in QuestionScan(train.paths, train.pictures, 0)
        if question.id in kept
    )
    number = STEPS * recipe.schedule.prompts_per_step
    return heapq.nlargest(number, counted, key=lambda pair: pair[0])


def _of_two_steps(recipe: Recipe, sources: Path) -> Recipe:
    """The same recipe for two steps on the questions in ``sources``, sharing nothing with others'
    collections.
    """
    discriminator, collection, sft = recipe.discriminator, recipe.collection, recipe.sft
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(
            recipe.data,
            train=str(sources / "train.parquet"),
            dev=str(sources / "dev.parquet"),
            manifests={},
        ),
        schedule=dataclasses.replace(
            recipe.schedule,
            steps=STEPS,
            save_every=1,
            keep=1,
            eval_every=min(recipe.schedule.eval_every, 1),
            export="last",
        ),
        discriminator=dataclasses.replace(
            discriminator, pretrain_steps=min(discriminator.pretrain_steps, STEPS)
        ),
        collection=dataclasses.replace(
            collection,
            folder="",
            # Methods whose loop takes none of them may have SFT on some.
            teacher_responses=min(collection.teacher_responses, recipe.teacher_share or 4),
            student_responses=min(collection.student_responses, 2),
        ),
        sft=dataclasses.replace(sft, steps=min(sft.steps, STEPS)),
    )


@dataclass
class _Stages:
    """Passes a run's progress on, and takes the time of its stages."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str, state: str) -> None:
        if state == "running":
            self.started[name] = time.monotonic()
        elif name in self.started:
            self.seconds[name] = time.monotonic() - self.started.pop(name)
        self.progress.stage(name, state)

    def answers(self, model: str, done: int, total: int) -> None:
        self.progress.answers(model, done, total)

    def note(self, text: str) -> None:
        self.progress.note(text)

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        self.progress.line(kind, values)


@contextmanager
def _peak_memory() -> Iterator[dict[str, int]]:
    """Peak resident bytes of this process and its descendants, looked at twice a second."""
    peak: dict[str, int] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            now: dict[str, int] = {}
            me = psutil.Process(os.getpid())
            for process in [me, *me.children(recursive=True)]:
                try:
                    size, kind = process.memory_info().rss, _kind(process)
                except psutil.Error:  # it has ended
                    continue
                now[kind] = max(now.get(kind, 0), size)
                now["all"] = now.get("all", 0) + size
            for kind, size in now.items():
                peak[kind] = max(peak.get(kind, 0), size)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _kind(process: psutil.Process) -> str:
    """What a process is: an actor of Ray by its class, or a program."""
    words = process.cmdline()
    if not words:
        return process.name()
    if words[0].startswith("ray::"):
        return words[0].removeprefix("ray::").split(".")[0].split(":")[-1]
    for word in words:
        for name in ("trainer_main", "raylet", "gcs_server", "transformers", "vllm", "sft_main"):
            if name in word:
                return {"trainer_main": "trainer"}.get(name, name)
    return "rilbench" if process.pid == os.getpid() else Path(words[0]).name
