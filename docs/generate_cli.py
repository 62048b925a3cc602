"""Write docs/cli.md, the reference of every command and option, from the program itself.

`python docs/generate_cli.py` writes the page; with `--check` it only says whether the page is
still what the program says, and exits with 1 if not.
"""

from __future__ import annotations

import enum
import sys
import typing
from pathlib import Path

import typer

from rilbench.cli import app

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# Command line

<!-- Written by docs/generate_cli.py; do not edit. -->

Every command and option. `rilbench COMMAND --help` prints the same. A usage error prints one line
to standard error and exits with status 1.
"""
TYPES = {str: "TEXT", Path: "PATH", int: "N", float: "X"}


def commands(command, words=("rilbench",)):
    """Yield the words and the object of every command that does something."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield words, command
        return
    for word, sub in subcommands.items():
        yield from commands(sub, (*words, word))


def cell(text: str) -> str:
    """Return a text as it goes into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def kind(parameter) -> str:
    """Return what an option takes: TEXT, PATH, a number, or its choices; "" for a flag."""
    annotation = parameter.type_descriptor.annotation
    while typing.get_origin(annotation) is not None:
        if typing.get_origin(annotation) is typing.Literal:
            return "|".join(typing.get_args(annotation))
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "|".join(str(member.value) for member in annotation)
    return parameter.metavar or TYPES.get(annotation, "")


def default(parameter) -> str:
    """Return the default as it is shown; "" where there is none to show."""
    value = parameter.default
    if callable(value) or value in (None, "", False, (), []):
        return ""
    if value is True:
        return f"`{parameter.opts[0]}`"
    return f"`{getattr(value, 'value', value)}`"


def option_row(parameter) -> str:
    """Return the line of the table for one option or argument."""
    if parameter.param_type_name == "argument":
        name = f"`{(parameter.metavar or parameter.name).upper().rstrip('.')}`"
        if not parameter.required:
            name += " (optional)"
    else:
        name = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts))
        taken = kind(parameter)
        name += f" `{cell(taken)}`" if taken else ""
        name += " (required)" if parameter.required else ""
    if parameter.multiple or parameter.nargs == -1:
        name += ", repeatable"
    return f"| {name} | {default(parameter)} | {cell(parameter.help or '')} |"


def usage(words, command) -> str:
    """Return the line to type."""
    parts = list(words)
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = (parameter.metavar or parameter.name).upper().rstrip(".")
            name += "..." if parameter.nargs == -1 else ""
            parts.append(name if parameter.required else f"[{name}]")
    shown = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    return " ".join([*parts, "[OPTIONS]"] if shown else parts)


def table(command) -> str:
    """Return the table of a command's arguments and options."""
    rows = [option_row(p) for p in command.params if not p.hidden and "--help" not in p.opts]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) if rows else ""


def page() -> str:
    """Return the whole page."""
    program = typer.main.get_command(app)
    parts = [HEAD, "```text\nrilbench [OPTIONS] COMMAND\n```", table(program)]
    groups = {name: sub for name, sub in program.commands.items() if hasattr(sub, "commands")}
    for words, command in commands(program):
        if words[1] in groups and words[2] == next(iter(groups[words[1]].commands)):
            parts += [f"## {' '.join(words[:2])}", groups[words[1]].help or ""]
        level = "###" if words[1] in groups else "##"
        parts += [f"{level} {' '.join(words)}", command.help or ""]
        parts.append(f"```text\n{usage(words, command)}\n```")
        parts.append(table(command))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def main() -> int:
    """Write the page, or check it; return the exit status."""
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
    if not fresh:
        print("docs/cli.md is stale; run: python docs/generate_cli.py", file=sys.stderr)
    return 0 if fresh else 1


if __name__ == "__main__":
    raise SystemExit(main())
