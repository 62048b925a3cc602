"""MM-Vet v2, as it is published, to the format of VLMEvalKit, which lacks it.

The published folder has ``mm-vet-v2.json``, {id: {"question", "answer", "capability"}}, and
``images``. A question's text and file names of pictures are put together with ``<IMG>``.
"""

import base64
import json
from pathlib import Path
from typing import Any

from rilbench.errors import UserError

_PICTURES = (".png", ".jpg", ".jpeg")


def convert_mmvetv2(source: Path, out: Path) -> Path:
    """Write ``out/MMVetV2.tsv`` and return it.

    Raises:
        UserError: the folder lacks a file, a question is not as it should be, or there is a file
            of that name already.
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
    part = out / ".MMVetV2.tsv.part"
    pandas.DataFrame(rows).to_csv(part, sep="\t", index=False)
    return part.replace(path)


def _row(source: Path, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    text, pictures = [], []
    for piece in entry["question"].split("<IMG>"):
        if piece.strip().lower().endswith(_PICTURES) and "/" not in piece:
            file = source / "images" / piece.strip()
            pictures.append(base64.b64encode(file.read_bytes()).decode("ascii"))
            text.append(f"<image {len(pictures)}>")
        elif piece.strip():
            text.append(piece.strip())
    if not pictures:
        raise ValueError(f"{name} has no picture")
    return {
        "index": name,
        "image": pictures[0] if len(pictures) == 1 else str(pictures),
        "question": " ".join(text),
        "answer": entry["answer"],
        "category": ",".join(entry["capability"]),
    }
