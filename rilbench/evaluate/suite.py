"""The benchmarks, one row each: which kit scores it, and where its number stands.

A benchmark is added by one row here.
"""

from dataclasses import dataclass, replace

from rilbench.columns import COLUMNS
from rilbench.errors import UserError


@dataclass(frozen=True)
class Dataset:
    """One data file of a benchmark and how a kit scores it."""

    name: str
    """The kit's name for it, and the stem of its data file."""
    metric: str = "Overall"
    """Column of the kit's result that holds the score."""
    scale: int = 1
    """What the kit calls everything right: 1 or 100. Declared, never guessed from the value."""
    row: tuple[str, str] | None = None
    """Column and value that pick the row of the kit's result; None: it has one row only."""
    split: str | None = None
    """The only split that is asked; None: all of the file."""
    judged: bool = False
    """A judge reads or decides each answer."""
    circular: bool = False
    """A question counts when all its rotations (index + k · 1e6) are right."""


@dataclass(frozen=True)
class Benchmark:
    """One column of the table. Several datasets count as the plain mean of their scores."""

    column: str
    """The paper's name for it."""
    datasets: tuple[Dataset, ...]
    kit: str = "vlmevalkit"

    @property
    def name(self) -> str:
        """The kit's name for it; for several datasets, their names."""
        return "+".join(dataset.name for dataset in self.datasets)

    @property
    def metric(self) -> str:
        """Which of the kit's numbers it is."""
        metrics = "+".join(dict.fromkeys(dataset.metric for dataset in self.datasets))
        return metrics if len(self.datasets) == 1 else f"mean of {metrics}"

    @property
    def judged(self) -> bool:
        """A judge takes part."""
        return any(dataset.judged for dataset in self.datasets)


@dataclass(frozen=True)
class Suite:
    """Benchmarks evaluated together, with the longest answer in tokens."""

    name: str
    benchmarks: tuple[Benchmark, ...]
    max_tokens: int

    @property
    def columns(self) -> list[str]:
        """The benchmarks' columns in the paper's order."""
        return [b.column for b in self.benchmarks]

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """All datasets, benchmark by benchmark."""
        return tuple(dataset for b in self.benchmarks for dataset in b.datasets)


# As ms-vlmeval 0.0.20 computes them; MM-Vet v2 is the kit's MM-Vet on the data of version 2.
_MMBENCH = Dataset("MMBench_DEV_EN", row=("split", "dev"), split="dev", circular=True)
_MMVET = Dataset("MMVet", "acc", scale=100, row=("Category", "Overall"), judged=True)
_ALL = {
    "AI2D": (Dataset("AI2D_TEST"),),
    "ChartQA": (Dataset("ChartQA_TEST", scale=100),),
    "MathVista": (
        Dataset("MathVista_MINI", "acc", scale=100, row=("Task&Skill", "Overall"), judged=True),
    ),
    "MMB": (_MMBENCH,),
    "MMB-CN": (replace(_MMBENCH, name="MMBench_DEV_CN"),),
    "MM-Vet": (_MMVET,),
    "MM-Vet-v2": (replace(_MMVET, name="MMVetV2"),),
    "MMMU": (Dataset("MMMU_DEV_VAL", row=("split", "validation"), split="validation"),),
    "MMMU-Pro": (Dataset("MMMU_Pro_10c"), Dataset("MMMU_Pro_V")),
    "MMStar": (Dataset("MMStar"),),
    "BLINK": (Dataset("BLINK", row=("split", "val"), split="val"),),
    "SEED": (Dataset("SEEDBench_IMG"),),
    "SEED2+": (Dataset("SEEDBench2_Plus"),),
    "RWQA": (Dataset("RealWorldQA"),),
}
_BENCHMARKS = tuple(Benchmark(column, _ALL[column]) for column in COLUMNS)

SUITES = {suite.name: suite for suite in (Suite("nano", _BENCHMARKS, max_tokens=64),)}
"""Every suite by its name."""


def find_suite(name: str) -> Suite:
    """Return a suite.

    Raises:
        UserError: there is none of that name.
    """
    if name not in SUITES:
        raise UserError(f"no suite {name!r}; there is {', '.join(SUITES)}")
    return SUITES[name]


def suite(name: str) -> tuple[Benchmark, ...]:
    """Return a suite's benchmarks in the paper's order; UserError for an unknown name."""
    return find_suite(name).benchmarks


def suite_columns(name: str) -> list[str]:
    """Return the columns of a suite's benchmarks; UserError for an unknown name."""
    return find_suite(name).columns
