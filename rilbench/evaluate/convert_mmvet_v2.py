"""Convert the published MM-Vet v2 to VLMEvalKit's format, which the kit does not provide.

The published folder has ``mm-vet-v2.json``, {id: {"question", "answer", "capability"}}, and
``images``. In a question, ``<IMG>`` separates text and file names of images.
"""

import base64
import json
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.paths import whole_file

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def convert_mmvetv2(source: Path, out: Path) -> Path:
    """Write ``out/MMVetV2.tsv`` and return it.

    Raises:
        UserError: the folder lacks a file, a question is malformed, or the output file exists.
    """
    import pandas

    path = out / "MMVetV2.tsv"
    if path.exists():
        raise UserError(f"{path} exists; move it away to make it again")
    listing = source / "mm-vet-v2.json"
    try:
        published = json.loads(listing.read_text(encoding="utf-8"))
        rows = [_row(source, name, entry) for name, entry in published.items()]
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} does not exist; give the folder with mm-vet-v2.json and images"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{listing} is not MM-Vet v2's list of questions ({error!r})") from error
    if not rows:
        raise UserError(f"{listing} has no question")
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        pandas.DataFrame(rows).to_csv(part, sep="\t", index=False)
    return path


def _row(source: Path, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Return a question's row, its images in base64 and marked with ``<image N>``."""
    text, images = [], []
    for piece in entry["question"].split("<IMG>"):
        if piece.strip().lower().endswith(_IMAGE_SUFFIXES) and "/" not in piece:
            file = source / "images" / piece.strip()
            images.append(base64.b64encode(file.read_bytes()).decode("ascii"))
            text.append(f"<image {len(images)}>")
        elif piece.strip():
            text.append(piece.strip())
    if not images:
        raise ValueError(f"{name} has no image")
    return {
        "index": name,
        "image": images[0] if len(images) == 1 else str(images),
        "question": " ".join(text),
        "answer": entry["answer"],
        "category": ",".join(entry["capability"]),
    }
