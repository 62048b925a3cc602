"""Write docs/settings.md, the reference of every setting, from rilbench/config/schema.py.

`python docs/generate_settings.py` writes the page; with `--check` it only says whether the page
still fits the code, and exits with 1 if not. A setting's meaning is the comment on its line.
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from pathlib import Path

from rilbench.config.schema import ALSO_ON_RESUME, HOW_IT_RUNS

SCHEMA = Path(__file__).parents[1] / "rilbench" / "config" / "schema.py"
PAGE = Path(__file__).parent / "settings.md"
HEAD = """# Settings

<!-- Written by docs/generate_settings.py; do not edit. -->

Every setting of a recipe: write it in a recipe's YAML file, or give it as `--set KEY=VALUE`. The
defaults are the paper's values where it gives one; the recipes of students and hardware change some
of them. `rilbench train … --dry-run` prints what a run would use. A key that does not exist is
refused, with the nearest one that does; an old name is refused with its new one. `[App C]`,
`[Table 5c]` and the like name the place in the paper, and *unstated* that the paper leaves it open;
[Paper and rilbench](paper.md) explains each choice.
"""

CHANGES = """## What a resumed run may change

A run may go on with other values of settings that leave what was done as it is; `changes.jsonl` of
the run records them with the step. How far it goes, what comes out, on how many devices: {}.

How it runs, which makes no other experiment of it (not fingerprinted): {}."""


def comments() -> dict[int, str]:
    """Return the comment of each line that has one, by line number."""
    with SCHEMA.open("rb") as file:
        tokens = tokenize.tokenize(file.readline)
        return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def fields(node: ast.ClassDef, notes: dict[int, str]):
    """Yield (name, type, default, meaning) of each setting of a dataclass."""
    for place, item in enumerate(node.body):
        if not isinstance(item, ast.AnnAssign):
            continue
        meaning = [notes[n] for n in range(item.lineno, item.end_lineno + 1) if n in notes]
        after = node.body[place + 1] if place + 1 < len(node.body) else None
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            meaning.append(str(after.value.value))
        default = ast.unparse(item.value) if item.value else ""
        yield item.target.id, ast.unparse(item.annotation), default, " ".join(meaning)


def mark(text: str) -> str:
    """Return a comment as Markdown for a cell of a table."""
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    text = re.sub(r"``?([^`]+)``?", r"`\1`", text)
    text = re.sub(r"\bunstated\b", "*unstated*", text)
    return re.sub(r'"([^"]*)"', lambda m: f"`{m[1]}`" if m[1] else "empty", text)


def page() -> str:
    """Return the whole page."""
    tree, notes = ast.parse(SCHEMA.read_text(encoding="utf-8")), comments()
    groups = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    recipe = groups["Recipe"]
    sections = [("", recipe, "A whole run")]
    for name, kind, _, _ in fields(recipe, notes):
        if kind in groups:
            sections.append((f"{name}.", groups[kind], ast.get_docstring(groups[kind]) or ""))
    parts = [HEAD]
    for prefix, node, text in sections:
        parts.append(f"## {prefix.rstrip('.') or 'The run'}")
        parts.append(mark(text.splitlines()[0]))
        rows = ["| setting | default | meaning |", "|---|---|---|"]
        for name, kind, default, meaning in fields(node, notes):
            if kind in groups:
                continue
            plain = {"()": "none", "''": "empty"}.get(default, default)
            if plain.startswith("("):  # a list, as a user writes it
                plain = f"[{','.join(ast.literal_eval(plain))}]"
            plain = "none" if "default_factory" in default else plain
            shown = plain if plain in ("none", "empty") else f"`{plain.strip(chr(39))}`"
            rows.append(f"| `{prefix}{name}` | {shown} | {mark(meaning)} |")
        parts.append("\n".join(rows))
    parts.append(
        CHANGES.format(*(", ".join(f"`{k}`" for k in s) for s in (ALSO_ON_RESUME, HOW_IT_RUNS)))
    )
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def main() -> int:
    """Write the page, or check it; return the exit status."""
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
    if not fresh:
        print("docs/settings.md is stale; run: python docs/generate_settings.py", file=sys.stderr)
    return 0 if fresh else 1


if __name__ == "__main__":
    raise SystemExit(main())
