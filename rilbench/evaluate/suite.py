"""Suites: lists of benchmarks that are evaluated together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.evaluate.benchmark import (
    KITS,
    LMMSEVAL,
    VLMEVALKIT,
    Benchmark,
    Dataset,
    known_benchmarks,
    named_by_kit,
    read_own_benchmark,
    shipped_benchmarks,
)

__all__ = [
    "KITS",
    "LMMSEVAL",
    "NANO_DEV",
    "SUITES",
    "VLMEVALKIT",
    "Benchmark",
    "Dataset",
    "Suite",
    "find_suite",
    "suite",
    "suite_columns",
]


@dataclass(frozen=True)
class Suite:
    """Benchmarks that are evaluated together."""

    name: str
    benchmarks: tuple[Benchmark, ...]
    max_tokens: int
    """The longest response in tokens."""
    published: bool = True
    """Whether the data are the published sets; else they are their synthetic stand-ins."""
    kit: str = VLMEVALKIT
    """The kit to score it with."""

    @property
    def columns(self) -> list[str]:
        """The benchmarks' names, in the paper's order."""
        return [benchmark.column for benchmark in self.benchmarks]

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """All data sets, benchmark by benchmark."""
        return tuple(dataset for b in self.benchmarks for dataset in b.datasets)

    def by(self, kit: str) -> "Suite":
        """Return the same suite, scored by this kit.

        Raises:
            UserError: there is no such kit, or it cannot score a benchmark.
        """
        if kit not in KITS:
            raise UserError(f"unknown kit {kit!r}; choose from {', '.join(KITS)}")
        scored = tuple(_scored_by(kit, benchmark) for benchmark in self.benchmarks)
        return replace(self, kit=kit, benchmarks=scored)

    def known_to(self, kit: str) -> "Suite":
        """Return the suite with the benchmarks that a kit can score, scored by it."""
        known = tuple(benchmark for benchmark in self.benchmarks if kit in benchmark.by_kit)
        return replace(self, benchmarks=known).by(kit)

    def pick(self, names: Sequence[str]) -> "Suite":
        """Return the suite with these benchmarks only.

        Args:
            names: of benchmarks, whether or not the suite has them, in any case; or paths of TOML
                files; or ``KIT:NAME`` for any data set of a kit (`named_by_kit`). Those of the
                suite come first, in its order.

        Raises:
            UserError: there is no such benchmark; it has no data for this suite or this kit; or two
                of them read the same data set.
        """
        everything = known_benchmarks() | {b.column: b for b in self.benchmarks}
        by_lower_case = {name.lower(): benchmark for name, benchmark in everything.items()}
        picked: dict[str, Benchmark] = {}
        for name in [name.strip() for name in names] or [""]:
            if name.endswith(".toml"):
                benchmark = read_own_benchmark(Path(name))
            elif named := named_by_kit(name):
                benchmark = named
            elif name.lower() in by_lower_case:
                benchmark = by_lower_case[name.lower()]
            else:
                what = f"unknown benchmark {name!r}" if name else "no benchmark named"
                raise UserError(
                    f"{what}; choose from {', '.join(everything)}; or give a TOML file "
                    f"or, for any data set of a kit, {' or '.join(f'{kit}:NAME' for kit in KITS)}"
                )
            self._refuse_without_data(benchmark)
            picked[benchmark.column] = _scored_by(self.kit, benchmark)
        own = [picked.pop(name) for name in self.columns if name in picked]
        chosen = replace(self, benchmarks=(*own, *picked.values()))
        datasets = [dataset.name for dataset in chosen.datasets]
        if twice := [name for name in datasets if datasets.count(name) > 1]:
            raise UserError(f"two benchmarks read {twice[0]}; evaluate one at a time")
        return chosen

    def _refuse_without_data(self, benchmark: Benchmark) -> None:
        """Raise where the suite asks stand-ins and the benchmark has none."""
        if self.published or benchmark.column in self.columns:
            return
        if not benchmark.stand_in:
            raise UserError(
                f"{benchmark.column} has no synthetic stand-in; use --suite paper, which asks "
                "published data"
            )
        if self.kit == LMMSEVAL:
            raise UserError(
                f"{LMMSEVAL} has stand-ins of the paper's 14 benchmarks only; evaluate "
                f"{benchmark.column} with --kit {VLMEVALKIT}"
            )


def _scored_by(kit: str, benchmark: Benchmark) -> Benchmark:
    if not kit:
        return benchmark
    if kit not in benchmark.by_kit:
        (other,) = benchmark.by_kit
        raise UserError(f"{benchmark.column} has no data set for {kit}; use --kit {other}")
    return replace(benchmark, kit=kit)


_PAPER = tuple(shipped_benchmarks()[name] for name in PAPER_14)
SUITES = {
    "paper": Suite("paper", _PAPER, max_tokens=2048),
    "nano": Suite("nano", _PAPER, max_tokens=64, published=False),
}
"""The suites by name: what each asks unless benchmarks are named. Any known benchmark can be named,
so a new one needs no entry here."""
NANO_DEV = "nano-dev"
"""Suite name of evaluations on the lab's dev questions; they are never compared with test."""


def find_suite(name: str, benchmarks: str = "", kit: str = VLMEVALKIT) -> Suite:
    """Return a suite.

    Args:
        name: of the suite.
        benchmarks: the ones that are wanted, with commas (`Suite.pick`); "": the suite's own.
        kit: to score it with; "" for results that exist already, of any kit.

    Raises:
        UserError: there is no such suite, kit or benchmark.
    """
    if name not in SUITES:
        raise UserError(f"unknown suite {name!r}; choose from {', '.join(SUITES)}")
    suite = SUITES[name].by(kit) if kit else replace(SUITES[name], kit="")
    return suite.pick(benchmarks.split(",")) if benchmarks else suite


def suite(name: str) -> tuple[Benchmark, ...]:
    """Return a suite's benchmarks in the paper's order; UserError for an unknown name."""
    return find_suite(name).benchmarks


def suite_columns(name: str) -> list[str]:
    """Return the names of a recorded suite's benchmarks; none of one that is not known.

    After damage a name may be lost or another one, and its evaluation is still shown.
    """
    name = "nano" if name == NANO_DEV else name
    return find_suite(name).columns if name in SUITES else []
