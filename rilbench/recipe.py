"""The recipe: every setting of a run, in one resolved, fingerprinted document.

A recipe is layered: the defaults below (the paper's values where it gives one), the file of the
recipe (``recipes/both.yaml``), the file of the student (``recipes/students/nano.yaml``), and
``--set key=value``. `docs/paper.md` lists what the paper leaves open and what was chosen.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from rilbench.errors import UserError
from rilbench.resources import resource

METHODS = ("ril", "imitation", "dr-grpo", "grpo")
"""``ril``: both rewards. ``imitation``: similarity only. ``dr-grpo``, ``grpo``: 2G own rows."""


@dataclass(frozen=True)
class Student:
    """The model that is trained."""

    name: str = "qwen2.5-vl-7b"
    model: str = ""  # a folder, a hub name, or "nano:student"


@dataclass(frozen=True)
class Teachers:
    """Whose saved responses join the groups."""

    names: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    mix: str = "split"  # "split": G rows shared by the teachers; "each": G rows of each


@dataclass(frozen=True)
class Data:
    """Parquet files of questions (`rilbench.teachers.questions` documents their columns)."""

    train: str = ""
    dev: str = ""
    max_prompt_tokens: int = 4096
    max_response_tokens: int = 2048  # unstated in the paper


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled (App. C)."""

    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 50
    repetition_penalty: float = 1.05


@dataclass(frozen=True)
class Collection:
    """The saved responses (App. C: 16 of the student and 16 of the teacher for each question)."""

    teacher_responses: int = 16
    student_responses: int = 16
    concurrency: int = 32
    seed: int = 0
    folder: str = ""  # shared between runs; "": the run's own
    endpoints: Mapping[str, str] = field(default_factory=dict)  # teacher -> address; else served


@dataclass(frozen=True)
class Discriminator:
    """The discriminator's training: Equation 1."""

    pretrain_steps: int = 1000
    pretrain_rows: int = 256
    pretrain_rate: float = 1e-5
    pretrain_final_rate: float = 1e-6
    rate: float = 1e-6
    updates: int = 1  # mu
    micro_rows: int = 16


@dataclass(frozen=True)
class Policy:
    """The policy's training: Equation 2."""

    rate: float = 1e-6
    clip: float = 0.2
    beta: float = 0.01
    updates: int = 1  # mu
    mini_batches: int = 1
    length_scale: float = 0.0  # 0: the longest response allowed (Dr.GRPO's constant is unstated)
    weight_decay: float = 0.01
    micro_rows: int = 4


@dataclass(frozen=True)
class Judge:
    """Who gives the answer reward: ``rule`` (ours, served on loopback) or a model at an address."""

    model: str = "Qwen/Qwen2.5-32B-Instruct"
    url: str = ""


@dataclass(frozen=True)
class Schedule:
    """How long, and what is kept."""

    steps: int = 1000
    questions: int = 36  # in one step: 36 questions of 4 rows are the paper's 144
    save_every: int = 50
    keep: int = 2
    eval_every: int = 0  # steps between scores on the dev split; 0: never
    export: str = "last"  # or "best": the saved step with the highest score on the dev split


@dataclass(frozen=True)
class Hardware:
    """What the run stands on."""

    device: str = "cuda"  # or "cpu"
    nodes: int = 1
    devices: int = 8  # in each node
    memory_gib: int = 80  # of each device


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    recipe: str = "both"
    method: str = "ril"
    seed: int = 0
    group: int = 4  # G
    student: Student = field(default_factory=Student)
    teachers: Teachers = field(default_factory=Teachers)
    data: Data = field(default_factory=Data)
    sampling: Sampling = field(default_factory=Sampling)
    collection: Collection = field(default_factory=Collection)
    discriminator: Discriminator = field(default_factory=Discriminator)
    policy: Policy = field(default_factory=Policy)
    judge: Judge = field(default_factory=Judge)
    schedule: Schedule = field(default_factory=Schedule)
    hardware: Hardware = field(default_factory=Hardware)

    @property
    def imitates(self) -> bool:
        """Whether teacher rows and a discriminator take part."""
        return self.method in ("ril", "imitation")

    @property
    def own_rows(self) -> int:
        """Rows of one question that the student samples: G, or 2G where there are no teachers."""
        return self.group if self.imitates else 2 * self.group

    @property
    def teacher_rows(self) -> int:
        """Rows of one question that come from the saved collection."""
        if not self.imitates:
            return 0
        return self.group * (len(self.teachers.names) if self.teachers.mix == "each" else 1)

    @property
    def teacher_label(self) -> str:
        """The teachers' name in tables: ``72b``, ``78b``, ``both`` or ``none``."""
        if not self.imitates:
            return "none"
        return self.teachers.names[0] if len(self.teachers.names) == 1 else self.recipe

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits over every setting; equal recipes have equal fingerprints."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, in the order of the dataclass."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, its fingerprint in the first line."""
        body = yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)
        return f"# fingerprint: {self.fingerprint}\n{body}"


def known(kind: str) -> list[str]:
    """Names of the ``recipes`` or ``students`` that ship."""
    folder = resource("recipes") if kind == "recipes" else resource("recipes/students")
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_recipe(
    recipe: str,
    student: str | None = None,
    method: str | None = None,
    overrides: Iterable[str] = (),
) -> Recipe:
    """Resolve a recipe: defaults, its file, the student's file, then ``key=value`` overrides.

    Raises:
        UserError: an unknown recipe, student, method or key (with the known or nearest ones), a
            value of the wrong type, or settings that do not fit together.
    """
    values = _read("recipes", recipe)
    name = student or values.get("student", {}).get("name") or Student().name
    _merge(values, _read("students", name))
    values["recipe"] = recipe
    if method is not None:
        values["method"] = method
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UserError(f"--set {override}: write it as key=value, e.g. schedule.steps=40")
        _set(values, key.strip(), _parse(text))
    built: Recipe = _build(Recipe, values, "")
    _check(built)
    return built


def read_recipe(path: Path) -> Recipe:
    """Read a resolved recipe back from a run's ``recipe.yaml``.

    Raises:
        UserError: it is not there or not a resolved recipe.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({error}); is it a run's recipe.yaml?") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a resolved recipe; start the run again under another name")
    built: Recipe = _build(Recipe, values, "")
    return built


def _read(kind: str, name: str) -> dict[str, Any]:
    names = known(kind)
    if name not in names:
        raise UserError(f"unknown {kind[:-1]} {name!r}; known: {', '.join(names)}")
    folder = "recipes" if kind == "recipes" else "recipes/students"
    text = resource(f"{folder}/{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text) or {}
    return loaded


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _parse(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # YAML 1.1 reads 1e-6 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    for part in parts[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {key}: {part} is a value, not a group of settings")
    values[parts[-1]] = value


def all_keys(cls: type = Recipe, prefix: str = "") -> list[str]:
    """Every settable key, dotted."""
    keys: list[str] = []
    for name, kind in get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            keys += all_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _build(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(cls)
    built: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + str(name)
        if name not in hints:
            near = difflib.get_close_matches(key, all_keys(), n=1, cutoff=0.0)
            raise UserError(f"there is no setting {key!r}; the nearest is {near[0]!r}")
        built[name] = _convert(hints[name], value, key)
    return cls(**built)


def _convert(kind: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{key} is a group of settings; set one of them, e.g. {key}.…=…")
        return _build(kind, value, f"{key}.")
    origin = get_origin(kind)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(str(item) for item in value)
    if origin is not None and origin is not Union and isinstance(value, Mapping):
        return {str(k): str(v) for k, v in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    wanted = getattr(kind, "__name__", str(kind)) if not get_args(kind) else str(kind)
    raise UserError(f"{key}={value!r} is not of type {wanted}")


def _check(recipe: Recipe) -> None:
    """Settings that do not fit together, each with its remedy."""
    choices: list[tuple[str, Any, tuple[str, ...]]] = [
        ("method", recipe.method, METHODS),
        ("teachers.mix", recipe.teachers.mix, ("split", "each")),
        ("schedule.export", recipe.schedule.export, ("last", "best")),
        ("hardware.device", recipe.hardware.device, ("cpu", "cuda")),
    ]
    for key, value, allowed in choices:
        if value not in allowed:
            raise UserError(f"{key}={value!r} is not known; use one of {', '.join(allowed)}")
    positive = {
        "group": recipe.group,
        "schedule.steps": recipe.schedule.steps,
        "schedule.questions": recipe.schedule.questions,
        "schedule.save_every": recipe.schedule.save_every,
        "schedule.keep": recipe.schedule.keep,
        "hardware.nodes": recipe.hardware.nodes,
        "hardware.devices": recipe.hardware.devices,
        "policy.updates": recipe.policy.updates,
        "policy.mini_batches": recipe.policy.mini_batches,
        "policy.micro_rows": recipe.policy.micro_rows,
        "discriminator.micro_rows": recipe.discriminator.micro_rows,
        "data.max_response_tokens": recipe.data.max_response_tokens,
        "collection.teacher_responses": recipe.collection.teacher_responses,
        "collection.student_responses": recipe.collection.student_responses,
        "collection.concurrency": recipe.collection.concurrency,
        "discriminator.pretrain_rows (two at least)": recipe.discriminator.pretrain_rows - 1,
    }
    for key, number in positive.items():
        if number < 1:
            raise UserError(f"{key}={number} must be at least 1")
    not_negative: dict[str, float] = {
        "discriminator.updates": recipe.discriminator.updates,  # 0: frozen after pre-training
        "schedule.eval_every": recipe.schedule.eval_every,
        "policy.length_scale": recipe.policy.length_scale,
        "policy.beta": recipe.policy.beta,
        "policy.weight_decay": recipe.policy.weight_decay,
    }
    for key, value in not_negative.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{key}={value} must not be negative")
    above_zero: dict[str, float] = {
        "policy.rate": recipe.policy.rate,
        "policy.clip": recipe.policy.clip,
        "discriminator.rate": recipe.discriminator.rate,
        "discriminator.pretrain_rate": recipe.discriminator.pretrain_rate,
        "discriminator.pretrain_final_rate": recipe.discriminator.pretrain_final_rate,
        "sampling.temperature": recipe.sampling.temperature,
        "sampling.top_p": recipe.sampling.top_p,
        "sampling.repetition_penalty": recipe.sampling.repetition_penalty,
    }
    for key, value in above_zero.items():
        if not 0 < value < math.inf:
            raise UserError(f"{key}={value} must be a number above 0")
    if recipe.schedule.questions % recipe.policy.mini_batches:
        raise UserError(
            f"policy.mini_batches={recipe.policy.mini_batches} must divide "
            f"schedule.questions={recipe.schedule.questions}"
        )
    if recipe.schedule.export == "best" and not recipe.schedule.eval_every:
        raise UserError("schedule.export=best needs scores on the dev split; add --eval-every N")
    if recipe.imitates:
        unknown = [name for name in recipe.teachers.names if name not in recipe.teachers.models]
        if unknown or not recipe.teachers.names:
            raise UserError(
                f"teachers.models has no model for {', '.join(unknown) or 'any teacher'}; "
                "set teachers.models.NAME=PATH"
            )
