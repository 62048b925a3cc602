"""The benchmarks of the paper's tables, by the names that the tables give them."""

PAPER_14 = (
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
"""The 14 benchmarks in the order of the paper's Tables 1 and 2.

Only a list of names: any other benchmark is a file in `rilbench.evaluate.benchmarks`.
"""
