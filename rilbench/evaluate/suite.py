"""The benchmarks, one row each: which kit scores it, and where its number stands.

`PAPER_COLUMNS` are the 14 of the paper's main table. A benchmark is added by one row here.
"""

from dataclasses import dataclass

from rilbench.errors import UserError

PAPER_COLUMNS = (
    "AI2D",
    "ChartQA",
    "MathVista",
    "MMB",
    "MMB-CN",
    "MM-Vet",
    "MM-Vet-v2",
    "MMMU",
    "MMMU-Pro",
    "MMStar",
    "BLINK",
    "SEED",
    "SEED2+",
    "RWQA",
)
"""The paper's benchmarks, in the order of ``results/paper/main_table.csv``."""


@dataclass(frozen=True)
class Benchmark:
    """One column of the table and how a kit computes it."""

    column: str
    """The paper's name for it."""
    dataset: str
    """The kit's name for it, and the stem of its data file."""
    metric: str
    """Column of the kit's result that holds the score."""
    scale: int
    """What the kit calls everything right: 1 or 100. Declared, never guessed from the value."""
    row: tuple[str, str] | None = None
    """Column and value that pick the row of the kit's result; None: it has one row only."""
    judged: bool = False
    """A judge decides each answer."""
    circular: bool = False
    """A question counts when all its rotations (index + k · 1e6) are right."""
    kit: str = "vlmevalkit"


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


# As ms-vlmeval 0.0.20 computes them.
_CHARTQA = Benchmark("ChartQA", "ChartQA_TEST", "Overall", scale=100)
_MMBENCH = Benchmark(
    "MMB", "MMBench_DEV_EN", "Overall", scale=1, row=("split", "dev"), circular=True
)
_MMVET = Benchmark("MM-Vet", "MMVet", "acc", scale=100, row=("Category", "Overall"), judged=True)
_MMSTAR = Benchmark("MMStar", "MMStar", "Overall", scale=1)

SUITES = {
    suite.name: suite
    for suite in (Suite("nano", (_CHARTQA, _MMBENCH, _MMVET, _MMSTAR), max_tokens=64),)
}
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
