"""Pictures in terminals that say that they can show them: kitty's and iTerm2's protocols.

Sources: sw.kovidgoyal.net/kitty/graphics-protocol, iterm2.com/documentation-images.html. Terminals
with Sixel alone do not say so in the environment; they get the path.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from rilbench.errors import InvalidQuestionError

_EDGE = 800
"""Pixels of the longer side at most."""
_CHUNK = 4096
"""Characters that kitty takes at once."""


def protocol(environment: Mapping[str, str]) -> str:
    """Return the terminal's protocol, "kitty" or "iterm"; "" if it names none."""
    terminal, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if terminal.startswith(("screen", "tmux")):
        return ""  # What is between does not pass pictures on.
    if program in ("iTerm.app", "WezTerm"):
        return "iterm"
    is_kitty = terminal in ("xterm-kitty", "xterm-ghostty") or program == "ghostty"
    return "kitty" if is_kitty or "KITTY_WINDOW_ID" in environment else ""


def picture_escape(file: Path, name: str) -> str | None:
    """Return what shows a picture in a terminal; None if the file cannot be read.

    Only its pixels are sent, as PNG.

    Args:
        file: the picture.
        name: a `protocol`.
    """
    from rilbench.images import open_image

    try:
        picture = open_image(file.read_bytes())
    except (OSError, InvalidQuestionError):
        return None
    picture.thumbnail((_EDGE, _EDGE))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    if name == "iterm":
        return f"\x1b]1337;File=inline=1;size={len(stream.getvalue())}:{text}\x07"
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        first = "a=T,f=100," if number == 0 else ""
        more = int(number < len(chunks) - 1)
        parts.append(f"\x1b_G{first}m={more};{chunk}\x1b\\")
    return "".join(parts)


def show_picture(file: Path) -> None:
    """Print a picture where the terminal can show it, and its path."""
    from rilbench.printable import printable

    name = protocol(os.environ) if sys.stdout.isatty() else ""
    shown = picture_escape(file, name) if name else None
    if shown is not None:
        typer.echo(shown)
    typer.echo(printable(f"picture: {file}{'' if file.is_file() else ' (gone)'}"))
