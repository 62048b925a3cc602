"""What a newcomer has to read. ``make bench`` writes ``results/bench/newcomer.json``.

Lines count as ``wc -l`` counts them, comments and docstrings included.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "bench" / "newcomer.json"
ONE_STEP = (
    "examples/ril_minimal.py",
    "rilbench/ril/step.py",
    "rilbench/train/trainer.py",
    "rilbench/train/rollout.py",
)
"""The reading order of the README, from the minimal loop to the step on verl."""


def lines(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def code_lines(path: Path) -> int:
    """Lines of a file that hold code: no blank line, comment or docstring."""
    text = path.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        number not in docstrings and bool(line.strip()) and not line.strip().startswith("#")
        for number, line in enumerate(text.splitlines(), 1)
    )


def private_helpers(paths: list[Path]) -> tuple[int, int]:
    """Number of private functions of modules, and of those that are named once."""
    total = once = 0
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        private = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] == "_"
        ]
        total += len(private)
        once += sum(used[name] == 1 for name in private)
    return total, once


def main() -> None:
    """Count and write the result."""
    product = sorted((ROOT / "rilbench").rglob("*.py"))
    helpers, called_once = private_helpers(product)
    result = {
        "command": "make bench",
        "files_of_one_step": len(ONE_STEP),
        "lines_of_one_step": sum(lines(ROOT / name) for name in ONE_STEP),
        "readme_lines": lines(ROOT / "README.md"),
        "product_files": len(product),
        "product_lines": sum(map(lines, product)),
        "product_code_lines": sum(map(code_lines, product)),
        "private_helpers": helpers,
        "private_helpers_called_once": called_once,
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
