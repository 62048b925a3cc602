"""Makes the models of a regime, and collects their responses in batches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch.nn.utils import clip_grad_norm_

from rilbench.checkpoint import Labels, write_labels
from rilbench.config import Recipe
from rilbench.data.question import Question
from rilbench.data.question_files import read_questions, write_questions
from rilbench.judge.rules import is_right
from rilbench.lab.fast.groups import TrainingData
from rilbench.lab.fast.prompts import Student
from rilbench.lab.regimes import STYLES, Made, Regime
from rilbench.nano.data import training_questions
from rilbench.nano.digits import Pool, pools
from rilbench.nano.question import SyntheticQuestion
from rilbench.nano.render_images import Picture
from rilbench.nano.tasks import STAND_INS, make_question
from rilbench.paths import locate, whole_file
from rilbench.train.seeding import seed_of

BATCH_SIZE = 48
"""Answers in a step of a model's SFT."""
EACH, PROMPTS_SEED = 60, 201
"""Questions of each benchmark to train on: a run of 30 steps of 14 asks none twice."""

Say = Callable[[str], None]


def regime_folder(regime: Regime, root: Path, say: Say) -> Path:
    """Return the folder of a regime's models, ``student`` and the teachers'; made on first use.

    Its name has the regime's digest: one that is made otherwise does not take over its models.
    """
    folder = regime.folder(root)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            part = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            for name, made in {"student": regime.student, **regime.teachers}.items():
                say(f"{regime.name}: making {name}")
                make_model(made, part / name, regime.name if name == "student" else name)
            part.rename(folder)
    return folder


def make_model(made: Made, folder: Path, label: str) -> None:
    """Make a model and write its checkpoint."""
    torch.set_num_threads(1)
    student = Student(locate(f"nano:{made.base}"))
    if made.layers:
        _keep_layers(student, made.layers)
    if made.noise:
        _add_noise(student, made.noise, made.seed)
    if made.steps:
        _learn(student, made)
    student.save(folder)
    write_labels(folder, Labels(student=f"nano-{label}", method="base", teacher="none"))


def _keep_layers(student: Student, number: int) -> None:
    decoder, config = student.model.model.language_model, student.model.config.text_config
    decoder.layers = decoder.layers[:number]
    config.num_hidden_layers, config.layer_types = number, config.layer_types[:number]


def _add_noise(student: Student, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in student.model.named_parameters():
            if "language_model.layers" in name and weight.ndim == 2:
                noise = torch.randn(weight.shape, generator=generator)
                weight += share * weight.std() * noise


def _learn(student: Student, made: Made) -> None:
    """SFT on answers to generated questions."""
    parameters = list(student.model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=made.lr, weight_decay=0.01)
    for step, (questions, answers) in enumerate(_batches(made)):
        for group in optimizer.param_groups:
            group["lr"] = made.lr * (1 - 0.9 * step / max(1, made.steps - 1))
        tokens = [
            [*student.tokenizer.encode(answer, add_special_tokens=False), student.end]
            for answer in answers
        ]
        rows = torch.arange(len(tokens))
        log_probs, mask = student.log_probs(student.read(questions), rows, tokens)
        optimizer.zero_grad()
        (-log_probs.sum() / mask.sum()).backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def _batches(made: Made) -> Iterator[tuple[list[Question], list[str]]]:
    rng = np.random.default_rng([made.seed, 7])
    pool, benchmarks = pools()["pretrain"], tuple(STAND_INS)
    styles = np.array([made.styles.get(style, 0.0) for style in STYLES])
    for step in range(made.steps):
        questions, answers = [], []
        for number in range(BATCH_SIZE):
            benchmark = benchmarks[int(rng.integers(len(benchmarks)))]
            picture, question = make_question(benchmark, pool, rng)
            if benchmark in made.blind:
                picture = _another(picture, benchmark, pool, rng)
            name = f"{step}-{number}"
            asked = Question(name, picture.images, question.prompt, question.accepted, benchmark)
            questions.append(asked)
            answers.append(styled(question, STYLES[int(rng.choice(len(STYLES), p=styles))]))
        yield questions, answers


def _another(picture: Picture, benchmark: str, pool: Pool, rng: np.random.Generator) -> Picture:
    """Another picture of the benchmark, with as many images."""
    while True:
        other, _ = make_question(benchmark, pool, rng)
        if len(other.images) == len(picture.images):
            return other


def styled(question: SyntheticQuestion, style: str) -> str:
    """An answer in one of `STYLES`; ``rephrased`` is the worked one in other sentences."""
    if style == "bare":
        return question.bare
    if style == "worked":
        return question.worked
    steps = question.worked.replace("。", ".").split(". ")
    *seen, answer = [step[:1].lower() + step[1:] for step in steps]
    answer = answer[:1].upper() + answer[1:] if answer.startswith("answer") else answer
    return "; ".join([*seen, answer])


# ---- saved responses


Costs = Mapping[str, Mapping[str, float]]
"""Of each model's saved responses, the ``tokens`` and ``cpu_seconds``."""


def training_data(
    regime: Regime, folder: Path, recipe: Recipe, say: Say
) -> tuple[TrainingData, Costs]:
    """The regime's questions with saved responses of its student and teachers, and their cost.

    Collected on first use, all by the recipe's sampling; another sampling is another collection.

    Args:
        regime: whose data it is.
        folder: of `regime_folder`.
        recipe: says how many responses, and how they are sampled.
        say: shows progress.
    """
    questions = _questions(prompts_file(folder))
    wanted = (
        *(recipe.collection.teacher_responses, recipe.collection.student_responses),
        *(dataclasses.asdict(recipe.sampling), recipe.data.max_response_tokens),
        *(PROMPTS_SEED, EACH),
    )
    digest = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:8]
    file = folder / f"collection-{digest}.json"
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            with whole_file(file) as part:
                part.write_text(json.dumps(_collect(regime, folder, questions, recipe, say)))
    stored = json.loads(file.read_text(encoding="utf-8"))
    saved = {
        question.id: {name: stored[name]["responses"][i] for name in regime.teachers}
        for i, question in enumerate(questions)
    }
    student = {
        question.id: own
        for question, own in zip(questions, stored["student"]["responses"], strict=True)
    }
    costs = {
        name: {key: each[key] for key in ("tokens", "cpu_seconds")} for name, each in stored.items()
    }
    return TrainingData(questions, saved, student), costs


def prompts_file(folder: Path) -> Path:
    """The questions to train on, beside the regime's folder: all regimes share them."""
    return folder.parent / f"prompts-{PROMPTS_SEED}-{EACH}.parquet"


def accepted(data: TrainingData) -> TrainingData:
    """The same with those teacher responses alone that are right, of questions that have some."""
    kept = []
    saved = {}
    for question in data.questions:
        right = {
            name: [each for each in responses if is_right(question.answer, each)]
            for name, responses in data.saved[question.id].items()
        }
        if any(right.values()):
            kept.append(question)
            saved[question.id] = right
    return TrainingData(kept, saved, data.student_saved)


def _questions(file: Path) -> list[Question]:
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            with whole_file(file) as part:
                write_questions(part, training_questions("prompts", EACH, PROMPTS_SEED))
    return list(read_questions(file))


def _collect(
    regime: Regime, folder: Path, questions: list[Question], recipe: Recipe, say: Say
) -> dict[str, dict[str, object]]:
    torch.set_num_threads(1)
    counts = dict.fromkeys(regime.teachers, recipe.collection.teacher_responses)
    found: dict[str, dict[str, object]] = {}
    for name, count in {"student": recipe.collection.student_responses, **counts}.items():
        say(f"{regime.name}: collecting from {name}")
        start, model = time.process_time(), Student(folder / name)
        seeds = [[seed_of(name, q.id, i) % 2**31 for i in range(count)] for q in questions]
        sampled = model.sample(questions, seeds, recipe.sampling, recipe.data.max_response_tokens)
        found[name] = {
            "responses": [model.decode(own) for own in sampled],
            "tokens": sum(len(tokens) for own in sampled for tokens in own),
            "cpu_seconds": round(time.process_time() - start, 1),
        }
    return found
