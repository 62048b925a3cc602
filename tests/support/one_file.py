"""A place for answers."""

from pathlib import Path

from rilbench.evaluate.suite import find_suite


def one_file(path: Path) -> dict[str, Path]:
    """The answers to all datasets in one file."""
    return {dataset.name: path for dataset in find_suite("nano").datasets}
