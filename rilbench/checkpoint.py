"""A model folder: is it complete, which model is it, and where does it come from?

Everything is read from the files' own headers, so a broken checkpoint is found in a second and not
after a server's start. Only safetensors weights are read: other formats can run code when loaded.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rilbench.errors import UserError

CONFIG_FILE = "config.json"
LABELS_FILE = "rilbench.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_USED_AROUND = (
    *(*TOKENIZER_FILES, "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *(*PROCESSOR_FILES, "generation_config.json", "chat_template.json", "chat_template.jinja"),
)
"""What decides, beside the weights, how the model is asked and answers."""

_CHUNK = 1 << 22
_COPY_AGAIN = "copy or download the file again"


@dataclass(frozen=True)
class Labels:
    """Where a checkpoint comes from, as the tables group it; kept beside the weights."""

    student: str
    """The student as the paper's tables name it, such as ``qwen2.5-vl-7b``."""
    method: str
    """``base``, ``sft``, ``grpo``, ``dr-grpo``, ``imitation`` or ``ril``."""
    teacher: str
    """``72b``, ``78b``, ``both`` or ``none``."""
    run: str | None = None
    """The training run that wrote it."""
    start_fingerprint: str | None = None
    """Fingerprint of the student that the training began from."""
    recipe_fingerprint: str | None = None
    """Of the recipe that it was trained by."""
    family: str | None = None
    """Of that recipe without its seed."""
    seed: int | None = None
    """The recipe's."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete vision-language checkpoint on this machine."""

    path: Path
    """The folder, absolute."""
    fingerprint: str
    """First 16 hex digits of a SHA-256 over ``config.json`` and the weights, bytes and names."""
    model_type: str
    """``model_type`` of ``config.json``, such as ``qwen2_5_vl``."""
    labels: Labels
    around: str = ""
    """The same of its tokenizer, processor, chat template and generation settings."""

    @property
    def content(self) -> str:
        """All that its answers depend on."""
        return f"{self.fingerprint}-{self.around}"


def inspect_checkpoint(path: str | Path) -> Checkpoint:
    """Check that a folder holds a complete vision-language model, and return what it is.

    The weights are read once for the fingerprint, after all other checks.

    Raises:
        UserError: the folder or one of its parts is missing, damaged or truncated, or the model
            reads no images; the message names the file and the remedy.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {state}; give the folder of a model that lies on this machine")
    config = _read_object(folder / CONFIG_FILE, "give a folder that save_pretrained wrote")
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(f"{folder / CONFIG_FILE} names no model_type; {_COPY_AGAIN}")
    if not isinstance(config.get("vision_config"), dict):
        raise UserError(
            f"{folder / CONFIG_FILE} has no vision_config: {model_type} reads no images; "
            "give a vision-language model"
        )
    _require_one(folder, "tokenizer", TOKENIZER_FILES)
    _require_one(folder, "image processor", PROCESSOR_FILES)
    weights = _weight_files(folder)
    labels = _read_labels(folder)
    fingerprint = _fingerprint([folder / CONFIG_FILE, *weights])
    around = _fingerprint([folder / name for name in _USED_AROUND if (folder / name).is_file()])
    return Checkpoint(folder, fingerprint, model_type, labels, around)


def write_labels(path: str | Path, labels: Labels) -> None:
    """Write ``rilbench.json`` into a checkpoint folder, whole or not at all.

    Raises:
        UserError: the folder does not exist.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; save the checkpoint before its labels")
    # A rename is all or nothing: a kill in between leaves the old labels as they were.
    part = folder / f"{LABELS_FILE}.part"
    part.write_text(json.dumps(asdict(labels), indent=2) + "\n", encoding="utf-8")
    part.replace(folder / LABELS_FILE)


def _read_labels(folder: Path) -> Labels:
    file = folder / LABELS_FILE
    if not file.exists():
        return Labels(student=folder.name, method="base", teacher="none")
    remedy = f"write it again, or delete it to label the model {folder.name!r}, base"
    found = _read_object(file, remedy)
    kinds = {field.name: int if field.name == "seed" else str for field in fields(Labels)}
    wrong = [k for k, v in found.items() if v is not None and not _is(v, kinds.get(k))]
    wrong += [k for k in ("student", "method", "teacher") if not isinstance(found.get(k), str)]
    if wrong:
        raise UserError(f"{file} has no valid {wrong[0]!r}; {remedy}")
    return Labels(**found)


def _is(value: object, kind: type | None) -> bool:
    """Of a JSON value; a truth value is no number."""
    return kind is not None and isinstance(value, kind) and not isinstance(value, bool)


def _require_one(folder: Path, part: str, names: tuple[str, ...]) -> None:
    """Read the JSON files of these names that are there; at least one must be."""
    there = [folder / name for name in names if (folder / name).exists()]
    if not there:
        raise UserError(
            f"{folder} has no {part} ({' or '.join(names)}); copy it from the base model"
        )
    for file in there:
        _read_object(file, _COPY_AGAIN)


def _weight_files(folder: Path) -> list[Path]:
    """Return the weight files in order, each whole: one file, or the shards of the index."""
    # One file wins over an index beside it, as in transformers.
    if (folder / WEIGHTS_FILE).is_file():
        if not _tensor_names(folder / WEIGHTS_FILE):
            raise UserError(f"{folder / WEIGHTS_FILE} holds no weights; {_COPY_AGAIN}")
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return _shards(folder)
    other = next(iter(sorted([*folder.glob("*.bin"), *folder.glob("*.pt")])), None)
    why = f"{other.name} is not read, as it can run code" if other else "it holds no weights"
    raise UserError(
        f"{folder} has no {WEIGHTS_FILE} or {INDEX_FILE}: {why}; "
        "save the model as safetensors with save_pretrained"
    )


def _shards(folder: Path) -> list[Path]:
    """Return the files that the index names, after checking each against the index."""
    index = folder / INDEX_FILE
    shards: dict[str, set[str]] = {}
    for tensor, name in _weight_map(index).items():
        shards.setdefault(name, set()).add(tensor)
    for name, tensors in sorted(shards.items()):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing, {INDEX_FILE} names it; {_COPY_AGAIN}")
        lacking = sorted(tensors - _tensor_names(folder / name))
        if lacking:
            raise UserError(
                f"{folder / name} lacks {len(lacking)} of the tensors that {INDEX_FILE} puts there "
                f"({lacking[0]}); copy all shards and the index from one save"
            )
    return [folder / name for name in sorted(shards)]


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = _read_object(index, _COPY_AGAIN).get("weight_map")
    valid = isinstance(weight_map, dict) and all(
        # A plain name: an index must not reach out of its folder.
        isinstance(name, str) and name == Path(name).name
        for name in weight_map.values()
    )
    if not weight_map or not valid:
        raise UserError(f"{index} has no valid weight_map; {_COPY_AGAIN}")
    return dict(weight_map)


def _tensor_names(file: Path) -> set[str]:
    """Return the names in a safetensors file whose size is what its header promises.

    The format: 8 bytes, little endian, the length of a JSON header; the header, with the start and
    end of every tensor within the data; the data.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise UserError(f"{file} is a git-lfs pointer, not weights; run git lfs pull there")
        if len(start) < 8 or 8 + length > size:
            raise UserError(f"{file} is truncated in its header; {_COPY_AGAIN}")
        text = stream.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        raise UserError(f"{file} has no valid safetensors header; {_COPY_AGAIN}") from error
    expected = 8 + length + end
    if size != expected:
        state = "truncated" if size < expected else "too long"
        raise UserError(
            f"{file} is {state}: {size} bytes where its header promises {expected}; {_COPY_AGAIN}"
        )
    return set(header)


def _read_object(file: Path, remedy: str) -> dict[str, Any]:
    """Return the JSON object in a file."""
    if not file.is_file():
        raise UserError(f"{file} is missing; {remedy}")
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} is not a JSON object; {remedy}")
    return found


def _fingerprint(files: list[Path]) -> str:
    """Return 16 hex digits over the names, sizes and bytes of the files, in this order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        for chunk in _chunks(file):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
