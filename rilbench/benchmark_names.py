"""The names of the paper's benchmarks, and the order in which benchmarks are shown."""

from collections.abc import Iterable

COLUMNS = (
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
"""The 14 benchmarks, in the order of the paper's Tables 1 and 2."""

PAPER_14 = COLUMNS
"""The same, where the paper's own tables or averages are meant."""


def in_order(benchmarks: Iterable[str]) -> tuple[str, ...]:
    """Return each benchmark once: the paper's in its order, then the others by name."""
    names = set(benchmarks)
    others = sorted(names.difference(PAPER_14), key=lambda name: (name.lower(), name))
    return (*(name for name in PAPER_14 if name in names), *others)
