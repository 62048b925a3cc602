"""Benchmarks, each read from one TOML file; see `rilbench.evaluate.benchmarks` for the format."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args

from rilbench.errors import UserError
from rilbench.evaluate import benchmarks
from rilbench.plugins import load_plugins

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from importlib.abc import Traversable
    from pathlib import Path

VLMEVALKIT, LMMSEVAL = "vlmevalkit", "lmms-eval"
KITS = (VLMEVALKIT, LMMSEVAL)
"""The first scores the table; the second is the cross-check."""

Judging = Literal["none", "extractor", "grader"]
"""What a judge does: nothing; read the chosen option where the kit's own rules cannot (optional);
or decide whether an answer is right (required)."""

_VLMEVALKIT_GRADED = ("MathVista_MINI", "MMVet", "MMVetV2")
"""Data sets whose verdicts by a judge our VLMEvalKit worker can read."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set of a benchmark, as a kit names and scores it.

    VLMEvalKit calls it a dataset and reads it from ``<name>.tsv``; lmms-eval calls it a task and
    reads Parquet files from a folder of the hub.
    """

    name: str
    """The kit's name for it; for VLMEvalKit also the stem of its data file."""
    questions: int
    """Number of scored questions in the published set; all rotations of a question count once.
    0: unknown, as of a data set that is named as KIT:NAME only."""
    md5: str | None = None
    """MD5 of the published TSV file, as VLMEvalKit pins it; None where it pins none."""
    metric: str = "Overall"
    """The kit's name of the score; for lmms-eval ``metric,filter`` unless the filter is "none"; for
    VLMEvalKit also the sum of several, joined with "+"."""
    scale: int = 1
    """The kit's value for everything right, 1 or 100. Declared, never guessed from a value.
    0: unknown; then the kit's total of right answers shows it (`rilbench.evaluate.kits.trial`)."""
    row: tuple[str, str] | None = None
    """Column and value that select the row of VLMEvalKit's result; None: it has one row."""
    split: str | None = None
    """The split to ask (VLMEvalKit); None for the whole file."""
    judging: Judging = "extractor"
    """What a judge does."""
    judge_prompt_tokens: int = 300
    """Approximate length of the kit's prompt to the judge, without question and answer."""
    circular: bool = False
    """A question counts only if all its rotations (index + k * 1,000,000) are right."""
    version: str = ""
    """The version, where several are published."""
    hub: str = ""
    """Folder on the hub (lmms-eval): ORG/NAME or ORG/NAME/CONFIG."""
    parts: int = 1
    """Number of lmms-eval tasks in the group. The score is the mean of the tasks' means, and a
    limit counts for all tasks together."""
    category: str = "category"
    """Column with the questions' categories, where the data have one."""
    only: tuple[str, str] | None = None
    """Column and value of the questions to ask (lmms-eval); None for all."""
    rounding: float = 1e-6
    """Largest accepted difference between the kit's total and its questions' mean, in points."""

    @property
    def judged(self) -> bool:
        """Whether a judge decides each answer."""
        return self.judging == "grader"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark and its data sets for each kit. Its score is the plain mean over data sets."""

    column: str
    """Its name in tables, in the ledger and for ``--benchmarks``."""
    by_kit: Mapping[str, tuple[Dataset, ...]]
    """Its data sets, by kit; a kit that cannot score it is absent."""
    kit: str = VLMEVALKIT
    """The kit to score it with."""
    stand_in: bool = False
    """Whether rilbench/nano has synthetic stand-ins of its data files."""

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The data sets of the chosen kit."""
        return self.by_kit[self.kit]

    @property
    def name(self) -> str:
        """The kit's names of its data sets, joined with "+"."""
        return "+".join(dataset.name for dataset in self.datasets)

    @property
    def metric(self) -> str:
        """The kit's name of the score; for several data sets "mean of" it."""
        metrics = "+".join(dict.fromkeys(dataset.metric for dataset in self.datasets))
        return metrics if len(self.datasets) == 1 else f"mean of {metrics}"

    @property
    def judged(self) -> bool:
        """Whether a judge decides the answers of any data set."""
        return any(dataset.judged for dataset in self.datasets)

    @property
    def version(self) -> str:
        """The versions of its data sets; empty where only one is published."""
        versions = [dataset.version for dataset in self.datasets if dataset.version]
        return ", ".join(dict.fromkeys(versions))


_CIRCULAR = ("mmbench", "ccbench", "circular", "mmcr")
"""Parts of the names of data sets whose questions VLMEvalKit asks in rotations."""
_YES_OR_NO: Mapping[str, Mapping[str, Any]] = {
    "POPE": {"row": ("split", "Overall"), "scale": 100},
    "HallusionBench": {"metric": "aAcc", "row": ("split", "Overall"), "scale": 100},
    "MME": {"metric": "perception+reasoning"},
    "AMBER": {"metric": "Avg ACC", "scale": 100},
    "VSR-zeroshot": {"metric": "acc", "scale": 100},
}
"""The totals of VLMEvalKit's data sets with questions to answer with yes or no: POPE's is an F1,
MME's the sum of its two parts."""
_ROUNDING = 0.051
"""Of a kit's total of which nothing is declared, in points: it may have one digit."""


def named_by_kit(name: str) -> Benchmark | None:
    """Return the benchmark for ``vlmevalkit:NAME`` or ``lmms-eval:TASK``; None for other names.

    It is the known benchmark that has this data set alone, or a new one with the data set's name;
    where a benchmark of other data has that name, with all of ``name``.
    """
    kit, colon, dataset = name.partition(":")
    if kit not in KITS or not colon:
        return None
    if not dataset or dataset.startswith(".") or "/" in dataset:  # It names a file.
        raise UserError(f"{name!r} names no data set; write {kit}:NAME with the kit's name for it")
    for benchmark in known_benchmarks().values():
        if [known.name for known in benchmark.by_kit.get(kit, ())] == [dataset]:
            return replace(benchmark, kit=kit)
    fields: dict[str, Any] = {"metric": "", "scale": 0}
    if kit == VLMEVALKIT:
        circular = any(part in dataset.lower() for part in _CIRCULAR)
        fields |= {"metric": "Overall", "circular": circular, **_YES_OR_NO.get(dataset, {})}
    named = Dataset(name=dataset, questions=0, rounding=_ROUNDING, **fields)
    taken = dataset.lower() in {column.lower() for column in known_benchmarks()}
    return Benchmark(column=name if taken else dataset, by_kit={kit: (named,)}, kit=kit)


@cache
def shipped_benchmarks() -> dict[str, Benchmark]:
    """Return the benchmarks of `rilbench.evaluate.benchmarks`, by name."""
    return _read_packages([("rilbench", benchmarks)])


def is_shipped(dataset: Dataset) -> bool:
    """Return whether a data set is one of `rilbench.evaluate.benchmarks`, as it is there."""
    shipped = shipped_benchmarks().values()
    return any(dataset in datasets for b in shipped for datasets in b.by_kit.values())


@cache
def known_benchmarks() -> dict[str, Benchmark]:
    """Return the benchmarks of this package and of installed plug-ins, by name.

    Raises:
        UserError: a file is wrong, a plug-in cannot be loaded, or two benchmarks share a name.
    """
    plugins = load_plugins("rilbench.benchmarks")
    return _read_packages([("rilbench", benchmarks), *plugins.items()])


def _read_packages(packages: Sequence[tuple[str, Any]]) -> dict[str, Benchmark]:
    """Read the TOML files of packages, each given with the name of its entry point."""
    found: dict[str, Benchmark] = {}
    origin: dict[str, Traversable] = {}
    for plugin, package in packages:
        if not hasattr(package, "__path__"):
            raise UserError(
                f"rilbench.benchmarks: {plugin!r} is not a package of TOML files; "
                "let its entry point name such a package"
            )
        for file in sorted(files(package).iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".toml"):
                benchmark = read_benchmark(file)
                first = origin.setdefault(benchmark.column.lower(), file)
                if first is not file:
                    raise UserError(_defined_twice(benchmark.column, first, file))
                found[benchmark.column] = benchmark
    return found


def read_own_benchmark(path: Path) -> Benchmark:
    """Read a benchmark from a file of the user's.

    Raises:
        UserError: the file is wrong, or its benchmark has the name of a known one.
    """
    benchmark = read_benchmark(path)
    for name in known_benchmarks():
        if name.lower() == benchmark.column.lower():
            raise UserError(_defined_twice(benchmark.column, "rilbench or a plug-in", path))
    return benchmark


def _defined_twice(name: str, first: object, second: object) -> str:
    return f"benchmark {name!r} is defined twice, by {first} and {second}; rename one"


def read_benchmark(file: Traversable) -> Benchmark:
    """Read and validate one TOML file.

    Raises:
        UserError: it cannot be read, or a field is missing, unknown or of a wrong type or value.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); check its path") from error
    except ValueError as error:  # Not TOML, or not UTF-8.
        raise UserError(f"{file} is not valid TOML ({error}); correct it") from error
    _check_fields(
        file, content, {"name": _TEXT, "stand_in": _FLAG, **dict.fromkeys(KITS, _SECTIONS)}
    )
    name = _required(file, content, "name")
    if not name.strip() or "," in name or name.endswith(".toml"):
        raise UserError(f"{file}: name {name!r} has a comma, ends in .toml or is empty; change it")
    by_kit = {}
    for kit in KITS:
        if sections := content.get(kit):
            by_kit[kit] = tuple(
                _dataset(f"{file}, [[{kit}]] {number}", kit, section)
                for number, section in enumerate(sections, 1)
            )
    if not by_kit:
        raise UserError(f"{file} has no data set; add a section [[{VLMEVALKIT}]] or [[{LMMSEVAL}]]")
    stand_in = content.get("stand_in", False)
    if stand_in and VLMEVALKIT not in by_kit:
        raise UserError(
            f"{file}: stand-ins are VLMEvalKit's files; add [[{VLMEVALKIT}]] or remove stand_in"
        )
    kit = VLMEVALKIT if VLMEVALKIT in by_kit else LMMSEVAL
    return Benchmark(column=name, by_kit=by_kit, kit=kit, stand_in=stand_in)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Type = tuple[str, Callable[[Any], bool]]
"""What an error calls a type, and whether a value is of it."""
_TEXT: _Type = ("text in quotes", _is_text)
_FLAG: _Type = ("true or false", lambda value: isinstance(value, bool))
_SECTIONS: _Type = ("[[sections]]", lambda value: isinstance(value, list))
_PAIR: _Type = (
    "a list of two texts",
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_text, value)),
)
_DATASET_TYPES: dict[str, _Type] = {
    "str": _TEXT,
    "str | None": _TEXT,
    "Judging": _TEXT,
    "int": ("a whole number", _is_whole),
    "float": ("a number", lambda value: isinstance(value, float) or _is_whole(value)),
    "bool": _FLAG,
    "tuple[str, str] | None": _PAIR,
}
"""By the annotations of `Dataset`."""


def _dataset(where: str, kit: str, section: Any) -> Dataset:
    """Return the data set that a section describes."""
    if not isinstance(section, dict):
        raise UserError(f"{where} is not a section; write [[{kit}]] and its fields below")
    _check_fields(where, section, {f.name: _DATASET_TYPES[str(f.type)] for f in fields(Dataset)})
    name = _required(where, section, "name")
    _required(where, section, "questions")
    if not name.strip() or name.startswith(".") or "/" in name:  # It names a file.
        raise UserError(f"{where}: name {name!r} is empty or a path; give the kit's name")
    for field in ("questions", "parts", "judge_prompt_tokens"):
        if section.get(field, 1) < 1:
            raise UserError(f"{where}: {field} must be at least 1, not {section[field]}")
    if section.get("scale", 1) not in (1, 100):
        raise UserError(f"{where}: scale must be 1 or 100, not {section['scale']}")
    judging = section.get("judging", "none")
    if judging not in get_args(Judging):
        known = ", ".join(get_args(Judging))
        raise UserError(f"{where}: unknown judging {judging!r}; choose from {known}")
    if kit == VLMEVALKIT and judging == "grader" and name not in _VLMEVALKIT_GRADED:
        raise UserError(
            f"{where}: with {kit} a judge can grade only {', '.join(_VLMEVALKIT_GRADED)}; "
            f'use [[{LMMSEVAL}]], or judging = "extractor" for multiple choice'
        )
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}
    return Dataset(**values)


def _required(where: object, content: Mapping[str, Any], field: str) -> Any:
    if field not in content:
        example = "NUMBER" if field == "questions" else '"TEXT"'
        raise UserError(f"{where} has no {field}; add: {field} = {example}")
    return content[field]


def _check_fields(where: object, content: Mapping[str, Any], known: Mapping[str, _Type]) -> None:
    """Refuse unknown fields and wrong types."""
    for field, value in content.items():
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1, cutoff=0.0)[0]
            raise UserError(f"{where}: unknown field {field!r}; the nearest known one is {near!r}")
        wanted, is_of_type = known[field]
        if not is_of_type(value):
            raise UserError(f"{where}: {field} must be {wanted}, not {value!r}")
