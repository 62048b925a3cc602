"""A worker's files are all known, as a change in any of them changes what it makes."""

import ast
from pathlib import Path

import pytest

from rilbench.evaluate.kits import ADAPTERS
from rilbench.evaluate.kits.base import Adapter


def siblings(file: Path) -> set[Path]:
    """The modules beside a file that it imports, and theirs."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        for name in names:
            beside = file.with_name(f"{name}.py")
            if beside.is_file():
                found |= {beside, *siblings(beside)}
    return found


@pytest.mark.parametrize("kit", ADAPTERS.values(), ids=list(ADAPTERS))
def test_all_files_of_a_worker_are_named(kit: Adapter) -> None:
    assert kit.sources[0] == kit.worker
    assert set(kit.sources) == {kit.worker, *siblings(kit.worker)}
    assert len(kit.sources) > 2
