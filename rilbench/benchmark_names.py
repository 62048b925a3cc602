"""The columns of the paper's tables."""

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
