"""The judge's key: from the environment, and nowhere else."""

import os

JUDGE_KEY = "RILBENCH_JUDGE_KEY"
"""Name of the environment variable."""


def judge_key() -> str:
    """The key that a judge is sent; ``none`` where the user has set none."""
    return os.environ.get(JUDGE_KEY, "none")
