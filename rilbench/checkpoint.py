"""Model folders: check that one is complete, fingerprint it, and read where it comes from.

Only the files' headers are read for the checks, so that a broken checkpoint is found in a second
and not after a server has started. Weights must be safetensors: other formats can run code when
they are loaded.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.paths import whole_file

CONFIG_FILE = "config.json"
LABELS_FILE = "rilbench.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
GENERATION_FILE = "generation_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_OTHER_FILES = (
    *TOKENIZER_FILES,
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    *PROCESSOR_FILES,
    GENERATION_FILE,
    "chat_template.json",
    "chat_template.jinja",
)
"""The other files that a model's responses depend on."""

_CHUNK = 1 << 22
_COPY_AGAIN = "copy or download the file again"


@dataclass(frozen=True)
class Labels:
    """Where a checkpoint comes from, by which tables group it; saved as ``rilbench.json``."""

    student: str
    """The student's name in the paper's tables, such as ``qwen2.5-vl-7b``."""
    method: str
    """``base``, or the name of a training method (`rilbench.ril.methods`)."""
    teacher: str
    """``72b``, ``78b``, ``both`` or ``none``."""
    run: str | None = None
    """The training run that saved it."""
    start_fingerprint: str | None = None
    """Fingerprint of the student that the training began from."""
    recipe_fingerprint: str | None = None
    """Fingerprint of the training recipe."""
    family: str | None = None
    """Fingerprint of the training recipe without its seed."""
    seed: int | None = None
    """Seed of the training recipe."""


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
    """The same over its tokenizer, processor, chat template and generation settings."""

    @property
    def content(self) -> str:
        """Everything that its responses depend on."""
        return f"{self.fingerprint}-{self.around}"

    @property
    def generation_config(self) -> dict[str, Any]:
        """The model's own way to generate; empty without a ``generation_config.json``."""
        file = self.path / GENERATION_FILE
        return _read_object(file, _COPY_AGAIN) if file.is_file() else {}


def inspect_checkpoint(path: str | Path) -> Checkpoint:
    """Check that a folder has a complete vision-language model, and describe it.

    The weights are read once, for the fingerprint, after all other checks.

    Raises:
        UserError: the folder or one of its parts is missing, damaged or truncated, or the model
            reads no images; the message names the file and the remedy.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {state}; give a model's folder on this machine")
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
    around = _fingerprint([folder / name for name in _OTHER_FILES if (folder / name).is_file()])
    return Checkpoint(folder, fingerprint, model_type, labels, around)


def write_labels(path: str | Path, labels: Labels) -> None:
    """Write ``rilbench.json`` into a checkpoint folder, whole or not at all.

    Raises:
        UserError: the folder does not exist.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; save the checkpoint before its labels")
    # A rename is atomic: a kill leaves the old labels or the new ones.
    with whole_file(folder / LABELS_FILE) as part:
        part.write_text(json.dumps(asdict(labels), indent=2) + "\n", encoding="utf-8")


def _read_labels(folder: Path) -> Labels:
    file = folder / LABELS_FILE
    if not file.exists():
        return Labels(student=folder.name, method="base", teacher="none")
    remedy = f"write it again, or delete it to label the model {folder.name!r}, base"
    labels = _read_object(file, remedy)
    types = {field.name: int if field.name == "seed" else str for field in fields(Labels)}
    required = ("student", "method", "teacher")
    for name in (*labels, *required):
        value = labels.get(name)
        # type() and not isinstance(): in JSON, true is not a number.
        valid = name not in required if value is None else type(value) is types.get(name)
        if not valid:
            raise UserError(f"{file} has no valid {name!r}; {remedy}")
    return Labels(**labels)


def _require_one(folder: Path, part: str, names: tuple[str, ...]) -> None:
    """Check that at least one of the JSON files exists, and that each can be read."""
    existing = [folder / name for name in names if (folder / name).exists()]
    if not existing:
        raise UserError(
            f"{folder} has no {part} ({' or '.join(names)}); copy it from the base model"
        )
    for file in existing:
        _read_object(file, _COPY_AGAIN)


def _weight_files(folder: Path) -> list[Path]:
    """Return the weight files in order: one file, or the shards of the index. Each is checked."""
    # A single file takes precedence over an index, as in transformers.
    if (folder / WEIGHTS_FILE).is_file():
        if not _tensor_names(folder / WEIGHTS_FILE):
            raise UserError(f"{folder / WEIGHTS_FILE} has no weights; {_COPY_AGAIN}")
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return _shards(folder)
    other = next(iter(sorted([*folder.glob("*.bin"), *folder.glob("*.pt")])), None)
    why = f"{other.name} is not read, as it can run code" if other else "it has no weights"
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
    """Return the tensor names of a safetensors file, after checking its size.

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
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} is not a JSON object; {remedy}")
    return value


def _fingerprint(files: list[Path]) -> str:
    """Return 16 hex digits over the names, sizes and bytes of the files, in this order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:16]
