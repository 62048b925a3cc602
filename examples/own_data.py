r"""Write a file of questions to train on, and read it back.

    python examples/own_data.py questions.parquet
    rilbench train --recipe both --student nano --dry-run \
        --set data.train=questions.parquet --set data.dev=questions.parquet

Two made-up images are drawn here; yours come from files (`Path("cat.jpg").read_bytes()`). A real
run needs two different files: what it trains on and a dev split. `docs/data.md` has the format.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from rilbench.data.question_files import Question, read_questions, write_questions


def picture(colour: str) -> bytes:
    """Return an encoded image, one colour all over."""
    buffer = io.BytesIO()
    Image.new("RGB", (56, 56), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def questions() -> list[Question]:
    """Return three questions."""
    red, blue = picture("red"), picture("blue")
    return [
        Question("1", images=(red,), question="What colour is it?", answer="red", source="mine"),
        # Alternatives that are all right are joined by <OR>, facts that are all required by <AND>.
        Question("2", (blue,), "What colour is it?", "blue<OR>navy", "mine"),
        # <image> says where each image goes; without it they come first.
        Question("3", (red, blue), "Is <image> the colour of <image>? Yes or no.", "no", "mine"),
    ]


def main() -> None:
    """Write the file that is named on the command line, and print what is in it."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "questions.parquet")
    write_questions(path, questions())
    for question in read_questions(path):
        print(f"{question.id}: {question.question} -> {question.answer}")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
