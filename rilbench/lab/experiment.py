"""An experiment file: which runs, students, seeds and questions (the format: `docs/lab.md`)."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rilbench.benchmark_names import COLUMNS
from rilbench.config import METHODS, Recipe, all_keys, known, load_recipe
from rilbench.errors import UserError
from rilbench.lab.yaml_with_lines import LineReader, Scalar

SPLITS = ("dev", "test")
STUDENT = "student"
"""The value of ``model`` that stands for the untrained student."""

_TOP = (
    *("name", "students", "seeds", "split", "benchmarks", "steps", "set", "runs", "order"),
    "not_run",
)
ORDERS = ("seeds", "runs")
_RUN = ("name", "part", "recipe", "method", "model", "set", "grid", "tuned_by")
_OURS = ("recipe", "method", "seed", "student.", "schedule.steps", "collection.folder")
"""Settings that the file gives elsewhere, or that the laboratory gives itself."""
_NAME = re.compile(r"[a-z0-9][a-z0-9.=-]*")

Settings = Mapping[str, Scalar]


@dataclass(frozen=True)
class RunSpec:
    """One line of a table: a method with its settings, or a model that is not trained.

    ``cell`` holds the settings of one cell of a grid, which are also in ``settings``; the cells of
    a grid share ``entry``. ``tuned_by`` names the entries of grids whose chosen cells this run
    takes over.
    """

    name: str
    entry: str
    part: str = ""
    recipe: str = "both"
    method: str = ""
    model: str = ""
    settings: Settings = field(default_factory=dict)
    cell: Settings = field(default_factory=dict)
    tuned_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run of one student with one seed: what becomes one row."""

    experiment: str
    student: str
    seed: int
    split: str
    benchmarks: tuple[str, ...]
    steps: int
    spec: RunSpec

    @property
    def label(self) -> str:
        """How the job is called in messages and folders."""
        return f"{self.student}/{self.spec.name}-{self.seed}"

    def settings(self, tuned: Settings) -> dict[str, Scalar]:
        """Every setting that differs from the recipe's, those of the chosen cells included."""
        return {**tuned, **self.spec.settings}

    def recipe(self, tuned: Settings, collection: Path) -> Recipe:
        """The resolved recipe.

        Raises:
            UserError: settings that do not fit together.
        """
        settings = self.settings(tuned) | {
            "seed": self.seed,
            "schedule.steps": self.steps,
            "collection.folder": str(collection),
        }
        overrides = [f"{key}={value}" for key, value in settings.items()]
        return load_recipe(self.spec.recipe, self.student, self.spec.method or None, overrides)


@dataclass(frozen=True)
class Experiment:
    """A whole experiment file."""

    name: str
    students: tuple[str, ...]
    seeds: tuple[int, ...]
    split: str
    benchmarks: tuple[str, ...]
    steps: int
    runs: tuple[RunSpec, ...]
    order: str = "seeds"
    not_run: Mapping[str, str] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        """Every job, in an order in which a part of them says something.

        By ``seeds``, all runs of a seed come before the next seed's, so that a part is balanced; by
        ``runs``, all seeds of a run come before the next run's, so that the first have an interval.
        A model that is not trained does not depend on a seed: it is there once, with seed 0.
        """
        jobs = [
            (at, self._job(student, 0 if run.model else seed, run))
            for seed in self.seeds
            for student in self.students
            for at, run in enumerate(self.runs)
            if not run.model or seed == self.seeds[0]
        ]
        if self.order == "runs":
            jobs.sort(key=lambda found: found[0])
        return [job for _, job in jobs]

    def _job(self, student: str, seed: int, run: RunSpec) -> Job:
        return Job(self.name, student, seed, self.split, self.benchmarks, self.steps, run)


def read_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises:
        UserError: ``FILE:LINE: what is wrong``.
    """
    return _Parser(path).experiment()


class _Parser:
    """One pass over the file's nodes."""

    def __init__(self, path: Path) -> None:
        self.read = LineReader(path)

    def experiment(self) -> Experiment:
        root = self.read.root()
        top = self.read.mapping(root, "an experiment", _TOP)
        for key in ("name", "students", "seeds", "split", "steps", "runs"):
            if key not in top:
                self.read.fail(root, f"an experiment needs {key!r}")
        students = self._students(top["students"][1])
        shared = self._settings(top["set"][1]) if "set" in top else {}
        return Experiment(
            name=self._name(top["name"][1], "name"),
            students=students,
            seeds=self._seeds(top["seeds"][1]),
            split=self._choice(top["split"][1], "split", SPLITS),
            benchmarks=self._benchmarks(top["benchmarks"][1]) if "benchmarks" in top else COLUMNS,
            steps=self.read.integer(top["steps"][1], "steps", 1),
            runs=tuple(self._runs(top["runs"][1], shared, students)),
            order=self._choice(top["order"][1], "order", ORDERS) if "order" in top else "seeds",
            not_run=self._not_run(top["not_run"][1]) if "not_run" in top else {},
        )

    # ---- the top

    def _name(self, node: yaml.Node, what: str) -> str:
        name = self.read.text(node, what)
        if not _NAME.fullmatch(name):
            self.read.fail(node, f"{what} {name!r} may have a-z, 0-9 and .=- (it names files)")
        return name

    def _choice(self, node: yaml.Node, what: str, allowed: Sequence[str]) -> str:
        value = self.read.text(node, what)
        if value not in allowed:
            self.read.fail(node, f"unknown {what} {value!r}; known: {', '.join(allowed)}")
        return value

    def _unique(self, nodes: Sequence[yaml.Node], values: Sequence[object], what: str) -> None:
        for i, value in enumerate(values):
            if value in values[:i]:
                self.read.fail(nodes[i], f"{what} {value} stands twice")

    def _students(self, node: yaml.Node) -> tuple[str, ...]:
        nodes = self.read.sequence(node, "students")
        names = [self._choice(n, "student", known("students")) for n in nodes]
        self._unique(nodes, names, "student")
        return tuple(names)

    def _seeds(self, node: yaml.Node) -> tuple[int, ...]:
        nodes = self.read.sequence(node, "seeds")
        seeds = [self.read.integer(n, "a seed", 0) for n in nodes]
        self._unique(nodes, seeds, "seed")
        return tuple(seeds)

    def _benchmarks(self, node: yaml.Node) -> tuple[str, ...]:
        if isinstance(node, yaml.ScalarNode) and node.value == "all":
            return COLUMNS
        nodes = self.read.sequence(node, "benchmarks")
        names = [self._choice(n, "benchmark", COLUMNS) for n in nodes]
        self._unique(nodes, names, "benchmark")
        return tuple(column for column in COLUMNS if column in names)

    def _not_run(self, node: yaml.Node) -> dict[str, str]:
        found = self.read.mapping(node, "not_run")
        return {
            name: self.read.text(why, f"the reason for {name}") for name, (_, why) in found.items()
        }

    # ---- settings

    def _key(self, node: yaml.Node) -> str:
        key = self.read.text(node, "a setting")
        if key not in all_keys():
            near = difflib.get_close_matches(key, all_keys(), n=1, cutoff=0.0)
            self.read.fail(node, f"there is no setting {key!r}; the nearest is {near[0]!r}")
        if key.startswith(_OURS):
            self.read.fail(node, f"{key} is given by the experiment itself, not by its settings")
        return key

    def _settings(self, node: yaml.Node) -> dict[str, Scalar]:
        pairs = self.read.mapping(node, "set").values()
        return {self._key(k): self.read.scalar(v, str(k.value)) for k, v in pairs}

    def _cells(self, node: yaml.Node) -> list[dict[str, Scalar]]:
        axes = self.read.mapping(node, "grid")
        if not axes:
            self.read.fail(node, "the grid is empty; give it a setting with its values")
        values = []
        for key_node, value_node in axes.values():
            key = self._key(key_node)
            nodes = self.read.sequence(value_node, f"the grid of {key}")
            axis = [self.read.scalar(n, key) for n in nodes]
            self._unique(nodes, axis, f"{key}")
            values.append([(key, value) for value in axis])
        return [dict(cell) for cell in itertools.product(*values)]

    # ---- runs

    def _runs(self, node: yaml.Node, shared: Settings, students: Sequence[str]) -> list[RunSpec]:
        names: dict[str, yaml.Node] = {}
        runs: list[RunSpec] = []
        for run_node in self.read.sequence(node, "runs"):
            parts = self.read.mapping(run_node, "a run", _RUN)
            if "name" not in parts:
                self.read.fail(run_node, "a run needs a name")
            name_node = parts["name"][1]
            name = self._name(name_node, "the name of a run")
            if name in names:
                first = names[name].start_mark.line + 1
                self.read.fail(name_node, f"the name {name!r} is taken by the run of line {first}")
            names[name] = name_node
            runs += self._cells_of(run_node, name, parts, shared, students)
        return runs

    def _cells_of(
        self,
        node: yaml.Node,
        name: str,
        parts: Mapping[str, tuple[yaml.Node, yaml.Node]],
        shared: Settings,
        students: Sequence[str],
    ) -> list[RunSpec]:
        """One run, or one for each cell of its grid."""
        nodes = {key: value for key, (_, value) in parts.items()}
        if ("model" in nodes) == ("method" in nodes):
            self.read.fail(node, f"{name} needs either a method to train or a model to evaluate")
        recipe = (
            self._choice(nodes["recipe"], "recipe", known("recipes"))
            if "recipe" in nodes
            else "both"
        )
        method = (
            self._choice(nodes["method"], "method", tuple(METHODS)) if "method" in nodes else ""
        )
        model = self.read.text(nodes["model"], "model") if "model" in nodes else ""
        if model and {"set", "grid", "tuned_by"} & set(nodes):
            self.read.fail(node, f"{name} is not trained, so it has no settings")
        settings = {**shared, **(self._settings(nodes["set"]) if "set" in nodes else {})}
        cells = self._cells(nodes["grid"]) if "grid" in nodes else [{}]
        specs = [
            RunSpec(
                name=name + "".join(f"+{k.rsplit('.', 1)[1]}={v}" for k, v in cell.items()),
                entry=name,
                part=self.read.text(nodes["part"], "part") if "part" in nodes else "",
                recipe=recipe,
                method=method,
                model=model,
                settings={} if model else {**settings, **cell},
                cell=cell,
                tuned_by=self._tuned_by(nodes["tuned_by"]) if "tuned_by" in nodes else (),
            )
            for cell in cells
        ]
        for spec, student in itertools.product(specs, students):
            self._check(node, spec, student)
        return specs

    def _tuned_by(self, node: yaml.Node) -> tuple[str, ...]:
        nodes = (
            [node] if isinstance(node, yaml.ScalarNode) else self.read.sequence(node, "tuned_by")
        )
        return tuple(self._name(n, "tuned_by") for n in nodes)

    def _check(self, node: yaml.Node, spec: RunSpec, student: str) -> None:
        """Find what the recipe refuses now, and not hours later."""
        job = Job("", student, 0, "dev", COLUMNS, 1, spec)
        try:
            recipe = job.recipe({}, Path("collection"))
        except UserError as error:
            self.read.fail(node, f"{spec.name}, {student}: {error}")
        if spec.model not in ("", STUDENT) and spec.model not in recipe.teachers.models:
            models = ", ".join([STUDENT, *recipe.teachers.models])
            self.read.fail(node, f"unknown model {spec.model!r} of {student}; known: {models}")
