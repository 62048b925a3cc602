"""An experiment file: its runs, regimes, seeds and questions (the format: `docs/lab.md`)."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rilbench.config import METHODS, Recipe, all_keys, known, load_recipe
from rilbench.errors import UserError
from rilbench.evaluate.suite import suite_columns
from rilbench.lab.regimes import RECIPE_STUDENT, REGIMES
from rilbench.lab.yaml_with_lines import LineReader, Scalar

SUITE = "nano"
"""The suite whose benchmarks the lab evaluates."""
SPLITS = ("dev", "test")
ORDERS = ("seeds", "runs")
ENGINES = ("fast", "verl")
"""fast is `rilbench.lab.fast`, the product's step in one process; verl is the product's path."""
ACCEPTED = "accepted"
"""The value of ``responses`` for SFT on those saved responses alone that are right."""
STUDENT = "student"
"""The value of ``model`` for the untrained student."""

_REQUIRED = ("name", "regimes", "seeds", "split", "steps", "runs")
_OPTIONAL = ("engine", "benchmarks", "set", "order", "not_run")
_RUN_KEYS = (
    *("name", "part", "recipe", "method", "model", "responses", "set", "grid", "tuned_by"),
    "only",
)
_GIVEN_ELSEWHERE = ("recipe", "method", "seed", "student.", "schedule.steps", "collection.folder")
"""Settings that other keys of the file give, or the lab itself."""
_NAME = re.compile(r"[a-z0-9][a-z0-9.=-]*")

Settings = Mapping[str, Scalar]


@dataclass(frozen=True)
class RunSpec:
    """One run of an experiment: a method with its settings, or a model that is not trained.

    Attributes:
        name: of the run; cells of a grid have their settings in it.
        entry: the name in the file, which the cells of a grid share.
        part: the part of the method that an ablation changes.
        settings: settings that differ from the recipe's, those of ``cell`` included.
        cell: the settings of one cell of a grid.
        tuned_by: entries of grids whose chosen cells this run takes over.
        responses: ``accepted`` for SFT on right responses alone; else "".
        only: the regimes that have this run; empty: all of the experiment's.
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
    responses: str = ""
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run in one regime, with one seed; it becomes one run result."""

    experiment: str
    regime: str
    seed: int
    split: str
    benchmarks: tuple[str, ...]
    steps: int
    spec: RunSpec
    engine: str = ENGINES[0]

    @property
    def label(self) -> str:
        """``REGIME/NAME-SEED``, for messages."""
        return f"{self.regime}/{self.spec.name}-{self.seed}"

    def settings(self, tuned: Settings) -> dict[str, Scalar]:
        """Return the settings that differ from the recipe's; ``tuned`` is what grids chose."""
        return {**tuned, **self.spec.settings}

    def recipe(self, tuned: Settings, folder: Path) -> Recipe:
        """Return the resolved recipe.

        Args:
            tuned: what grids chose.
            folder: the regime's models.

        Raises:
            UserError: settings that do not fit together.
        """
        regime, method = REGIMES[self.regime], METHODS.get(self.spec.method)
        judge = regime.judge if method is None or method.uses_answer_reward else {}
        settings = {**judge, **self.settings(tuned), "seed": self.seed}
        settings["schedule.steps"] = self.steps
        return load_recipe(
            self.spec.recipe,
            RECIPE_STUDENT,
            self.spec.method or None,
            [f"{key}={value}" for key, value in settings.items()],
            settings=regime.recipe_settings(folder),
        )


@dataclass(frozen=True)
class Experiment:
    """A whole experiment file."""

    name: str
    regimes: tuple[str, ...]
    seeds: tuple[int, ...]
    split: str
    benchmarks: tuple[str, ...]
    steps: int
    runs: tuple[RunSpec, ...]
    order: str = "seeds"
    not_run: Mapping[str, str] = field(default_factory=dict)
    engine: str = ENGINES[0]

    def jobs(self) -> list[Job]:
        """Return every job, in an order in which a part of them is already useful.

        With order ``seeds``, all runs of a seed come before the next seed, so that a part is
        balanced. With order ``runs``, all seeds of a run come before the next run, so that the
        first runs have an interval. A model that is not trained depends on no seed and has one job
        with seed 0.
        """
        jobs = [
            (position, self._job(regime, 0 if run.model else seed, run))
            for seed in self.seeds
            for regime in self.regimes
            for position, run in enumerate(self.runs)
            if not run.model or seed == self.seeds[0]
            if regime in (run.only or self.regimes)
        ]
        if self.order == "runs":
            jobs.sort(key=lambda pair: pair[0])
        return [job for _, job in jobs]

    def _job(self, regime: str, seed: int, run: RunSpec) -> Job:
        return Job(
            self.name, regime, seed, self.split, self.benchmarks, self.steps, run, self.engine
        )


def read_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises:
        UserError: ``FILE:LINE: what is wrong``.
    """
    return _Parser(path).experiment()


class _Parser:
    """Reads the file's nodes in one pass."""

    def __init__(self, path: Path) -> None:
        self.read = LineReader(path)
        self.all_benchmarks = tuple(suite_columns(SUITE))

    def experiment(self) -> Experiment:
        root = self.read.root()
        top = self.read.mapping(root, "an experiment", (*_REQUIRED, *_OPTIONAL))
        for key in _REQUIRED:
            if key not in top:
                self.read.fail(root, f"an experiment needs {key!r}")
        engine = self._choice(top["engine"], "engine", ENGINES) if "engine" in top else ENGINES[0]
        regimes = self._list(top["regimes"], "regime", tuple(REGIMES))
        seed_nodes = self.read.sequence(top["seeds"], "seeds")
        seeds = [self.read.integer(node, "a seed", 0) for node in seed_nodes]
        self._refuse_twice(seed_nodes, seeds, "seed")
        shared = self._settings(top["set"]) if "set" in top else {}
        runs = tuple(self._runs(top["runs"], shared, regimes))
        if engine == "verl" and any(run.responses for run in runs):
            self.read.fail(root, "'responses' needs 'engine: fast'")
        reasons = self.read.mapping(top["not_run"], "not_run") if "not_run" in top else {}
        return Experiment(
            name=self._name(top["name"], "name"),
            regimes=regimes,
            seeds=tuple(seeds),
            split=self._choice(top["split"], "split", SPLITS),
            benchmarks=self._benchmarks(top.get("benchmarks")),
            steps=self.read.integer(top["steps"], "steps", 1),
            runs=runs,
            order=self._choice(top["order"], "order", ORDERS) if "order" in top else "seeds",
            not_run={
                name: self.read.text(why, f"the reason for {name}") for name, why in reasons.items()
            },
            engine=engine,
        )

    # ---- values

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

    def _list(self, node: yaml.Node, what: str, allowed: Sequence[str]) -> tuple[str, ...]:
        nodes = self.read.sequence(node, f"{what}s")
        names = tuple(self._choice(item, what, allowed) for item in nodes)
        self._refuse_twice(nodes, names, what)
        return names

    def _refuse_twice(
        self, nodes: Sequence[yaml.Node], values: Sequence[object], what: str
    ) -> None:
        for i, value in enumerate(values):
            if value in values[:i]:
                self.read.fail(nodes[i], f"{what} {value} is given twice")

    def _benchmarks(self, node: yaml.Node | None) -> tuple[str, ...]:
        """Return the benchmarks in the order of the suite."""
        if node is None or (isinstance(node, yaml.ScalarNode) and node.value == "all"):
            return self.all_benchmarks
        names = self._list(node, "benchmark", self.all_benchmarks)
        return tuple(benchmark for benchmark in self.all_benchmarks if benchmark in names)

    # ---- settings

    def _settings(self, node: yaml.Node) -> dict[str, Scalar]:
        settings = {}
        for key, (key_node, value) in self.read.items(node, "set").items():
            self._check_key(key_node, key)
            settings[key] = self.read.scalar(value, key)
        return settings

    def _check_key(self, node: yaml.Node, key: str) -> None:
        if key not in all_keys():
            near = difflib.get_close_matches(key, all_keys(), n=1, cutoff=0.0)
            self.read.fail(node, f"there is no setting {key!r}; the nearest is {near[0]!r}")
        if key.startswith(_GIVEN_ELSEWHERE):
            self.read.fail(node, f"{key} is given by the experiment itself, not by its settings")

    def _cells(self, node: yaml.Node) -> list[dict[str, Scalar]]:
        """Return the settings of every cell of a grid."""
        axes = []
        for key, (key_node, values) in self.read.items(node, "grid").items():
            self._check_key(key_node, key)
            nodes = self.read.sequence(values, f"the grid of {key}")
            axis = [self.read.scalar(item, key) for item in nodes]
            self._refuse_twice(nodes, axis, key)
            axes.append([(key, value) for value in axis])
        if not axes:
            self.read.fail(node, "the grid is empty; give it a setting with its values")
        return [dict(cell) for cell in itertools.product(*axes)]

    # ---- runs

    def _runs(self, node: yaml.Node, shared: Settings, regimes: Sequence[str]) -> list[RunSpec]:
        lines: dict[str, int] = {}
        runs: list[RunSpec] = []
        for run_node in self.read.sequence(node, "runs"):
            keys = self.read.mapping(run_node, "a run", _RUN_KEYS)
            if "name" not in keys:
                self.read.fail(run_node, "a run needs a name")
            name = self._name(keys["name"], "the name of a run")
            if name in lines:
                message = f"the name {name!r} is taken by the run of line {lines[name]}"
                self.read.fail(keys["name"], message)
            lines[name] = keys["name"].start_mark.line + 1
            only = self._list(keys["only"], "regime", regimes) if "only" in keys else ()
            specs = self._specs(run_node, name, keys, shared, only)
            for spec, regime in itertools.product(specs, only or regimes):
                self._check_recipe(run_node, spec, regime)
            runs += specs
        return runs

    def _specs(
        self,
        node: yaml.Node,
        name: str,
        keys: Mapping[str, yaml.Node],
        shared: Settings,
        only: tuple[str, ...],
    ) -> list[RunSpec]:
        """Return one run, or one for each cell of its grid."""
        if ("model" in keys) == ("method" in keys):
            self.read.fail(node, f"{name} needs either a method to train or a model to evaluate")
        if "model" in keys and {"set", "grid", "tuned_by"} & set(keys):
            self.read.fail(node, f"{name} is not trained, so it has no settings")
        recipe, method, model, part = "both", "", "", ""
        tuned_by: tuple[str, ...] = ()
        settings = {} if "model" in keys else dict(shared)
        if "recipe" in keys:
            recipe = self._choice(keys["recipe"], "recipe", known("recipes"))
        if "method" in keys:
            method = self._choice(keys["method"], "method", tuple(METHODS))
        if "model" in keys:
            model = self.read.text(keys["model"], "model")
        if "part" in keys:
            part = self.read.text(keys["part"], "part")
        if "set" in keys:
            settings |= self._settings(keys["set"])
        if "tuned_by" in keys:
            one = isinstance(keys["tuned_by"], yaml.ScalarNode)
            nodes = [keys["tuned_by"]] if one else self.read.sequence(keys["tuned_by"], "tuned_by")
            tuned_by = tuple(self._name(item, "tuned_by") for item in nodes)
        responses = ""
        if "responses" in keys:
            responses = self._choice(keys["responses"], "responses", (ACCEPTED,))
            if method != "sft":
                self.read.fail(keys["responses"], "only SFT can learn accepted responses alone")
        return [
            RunSpec(
                name=name + "".join(f"+{k.rsplit('.', 1)[1]}={v}" for k, v in cell.items()),
                entry=name,
                part=part,
                recipe=recipe,
                method=method,
                model=model,
                settings={**settings, **cell},
                cell=cell,
                tuned_by=tuned_by,
                responses=responses,
                only=only,
            )
            for cell in (self._cells(keys["grid"]) if "grid" in keys else [{}])
        ]

    def _check_recipe(self, node: yaml.Node, spec: RunSpec, regime: str) -> None:
        """Resolve the recipe now, so that a wrong setting does not show hours later."""
        job = Job("", regime, 0, "dev", self.all_benchmarks, 1, spec)
        try:
            job.recipe({}, Path("models"))
        except UserError as error:
            self.read.fail(node, f"{spec.name}, {regime}: {error}")
        models = (STUDENT, *REGIMES[regime].teachers)
        if spec.model and spec.model not in models:
            known = ", ".join(models)
            self.read.fail(node, f"unknown model {spec.model!r} of {regime}; known: {known}")
