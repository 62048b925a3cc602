"""VLMEvalKit's data files, checked before a question is asked, and their pictures."""

from __future__ import annotations

import ast
import base64
import io
import os
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from vlmeval import tools
from vlmeval.dataset import DATASET_CLASSES, build_dataset
from vlmeval.dataset.image_base import ImageBaseDataset
from vlmeval.dataset.image_mcq import CustomMCQDataset, MMMUDataset
from vlmeval.dataset.image_vqa import CustomVQADataset, ImageVQADataset, MMVet
from vlmeval.dataset.image_yorn import ImageYORNDataset
from vlmeval.smp import LMUDataRoot, file

if TYPE_CHECKING:
    from rilbench.evaluate.kits.worker_common import UNREADABLE, JobError, why
else:
    from worker_common import UNREADABLE, JobError, why

KIT_READS = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
"""Modes of pictures that the kit can save as PNG."""
ORIENTATION = 0x0112  # in EXIF
SHORTEST = 65
"""The kit reads a shorter text as the index of a row whose picture the question shares."""
NO_PICTURE = "no picture: "
"""Beginning of a text in place of a picture that cannot be read; the reason follows."""
OPTIONS = ("A", "B")
"""Columns that a multiple-choice file needs."""
WORDS = frozenset({"None", "NA", "N/A", "n/a", "null", "NULL", "<NA>"})
"""Texts of options and answers that pandas reads as missing. A written "nan" is missing."""
NEEDED = {
    "ChartQA_TEST": [],
    "MathVista_MINI": [
        "task",
        "skills",
        "question_type",
        "answer_type",
        "choices",
        "answer_option",
    ],
    "MMVet": ["category"],
    "MMVetV2": ["category"],
    "MMStar": list("ABCD"),
    "MMMU_Pro_10c": list("ABCDEFGHIJ"),
}
"""Columns without which the kit leaves out the options, or fails after all questions are answered.
Other datasets need two options, as a file may have no question with more."""


class MMVetV2(MMVet):  # type: ignore[misc]
    """MM-Vet v2, which the kit lacks: MM-Vet with ``<image k>`` in place of a picture."""

    DATASET_URL: ClassVar[dict[str, str]] = {"MMVetV2": ""}
    DATASET_MD5: ClassVar[dict[str, str]] = {}

    def build_prompt(self, line: Any) -> Any:
        """Return the kit's prompt for MM-Vet, with each picture in its place."""
        return MMMUDataset.split_MMMU(super().build_prompt(line))


DATASET_CLASSES.append(MMVetV2)
read_file = ImageBaseDataset.prepare_tsv
write_pictures, write_picture = tools.localize_df, file.decode_img_omni


def checked_file(dataset: Any, url: str, file_md5: str | None = None) -> Any:
    """Read a data file as the kit does, without anything that it would drop or fail on later."""
    options = OPTIONS if dataset.TYPE.startswith("MCQ") else ()
    table = read_file(dataset, url, file_md5)
    restore_words(table, dataset.data_path)
    return checked(dataset.dataset_name, table, options)


def restore_words(table: Any, path: str) -> None:
    """Put back options and answers such as "None" and "NA", which the kit's reader drops."""
    names = [c for c in table.columns if c == "answer" or c in string.ascii_uppercase]
    lacking = [name for name in names if table[name].isna().any()]
    if not lacking or not path.endswith(".tsv"):
        return
    written = pd.read_csv(path, sep="\t", usecols=lacking, dtype=str, keep_default_na=False)
    if len(written) != len(table):
        return
    for name in lacking:
        words = written[name].to_numpy()
        lost = table[name].isna().to_numpy() & np.isin(words, list(WORDS))
        if lost.any():
            table[name] = table[name].astype(object)
            table.loc[lost, name] = words[lost]


def checked_large_file(table: Any, name: str, *rest: Any, **settings: Any) -> Any:
    """Check a file above 1 GB before the kit writes its pictures and drops their column."""
    return write_pictures(checked(name, table), name, *rest, **settings)


def written(job: tuple[str, Any, Any]) -> Any:
    """Write a row's pictures of such a file; one that cannot be read harms no other row."""
    root, image, path = job
    try:
        several = image.startswith("[") and is_list(image)
        return write_picture((root, readable(ast.literal_eval(image) if several else image), path))
    except UNREADABLE:  # The question is not asked, as its file is missing.
        return [str(Path(root) / str(path))]


def checked(name: str, table: Any, options: tuple[str, ...] = ()) -> Any:
    """Return the table of a data file, ready for the kit; `NEEDED` goes before ``options``.

    Raises:
        JobError: it lacks a column, or names a file outside of its folder.
    """
    columns = ["index", "answer", *NEEDED.get(name, options)]
    if name != "MMMU_Pro_V":  # its questions are in the pictures
        columns.append("question")
    if "image_path" not in table:
        columns.append("image")
    for column in columns:
        if column not in table:
            raise JobError(f"{name}.tsv has no column {column!r}; make the data again")
    for index in table["index"]:
        if Path(str(index)).name != str(index):  # pictures are named after it
            raise JobError(f"{name}.tsv has index {index!r}, a path; make the data again")
    if "image" in table:
        if "image_path" in table:
            for index, path in zip(table["index"], table["image_path"], strict=True):
                refuse_outside(name, index, str(path))
        table["image"] = picture_texts(list(table["index"]), list(table["image"]))
    return table


def checked_own_file(read: Any) -> Any:
    """The reader of a data set that the kit does not know, whose rows it then finds checked."""

    def load(dataset: Any, name: str) -> Any:
        table = read(dataset, name)
        restore_words(table, f"{LMUDataRoot()}/{name}.tsv")
        return checked(name, table)

    return load


def without_options(dataset: Any, name: str) -> Any:
    """Refuse a data set that the kit does not know and cannot score."""
    raise JobError(
        f"{name}.tsv has no columns 'A' and 'B', and VLMEvalKit does not know {name}; of data sets "
        "that it does not know it scores multiple choice only"
    )


ImageBaseDataset.prepare_tsv = checked_file
CustomMCQDataset.load_data = checked_own_file(CustomMCQDataset.load_data)
CustomVQADataset.load_data = without_options
tools.localize_df, file.decode_img_omni = checked_large_file, written


def refuse_outside(name: str, index: Any, paths: str) -> None:
    """Refuse paths to which the kit would write a picture outside of its own folder."""
    # One path, or a list of them as text.
    for path in paths.strip("[]").split(","):
        bare = Path(path.strip().strip("'\""))
        if bare.is_absolute() or ".." in bare.parts:
            raise JobError(
                f"{name}.tsv names a picture outside of its folder, {path.strip()} of index "
                f"{index}; make the data again"
            )


def picture_texts(indices: list[Any], images: list[Any]) -> list[str]:
    """Return the column of pictures, each as a text that the kit keeps.

    It drops a row that has none, and refuses a file with a short text that is no index.
    """
    pairs = zip(indices, images, strict=True)
    whole = {str(index) for index, image in pairs if len(str(image)) >= SHORTEST}
    texts = []
    for image in images:
        text = image if isinstance(image, str) else "" if image != image else str(image)
        if not text.strip():
            text = NO_PICTURE + "there is none"
        elif len(text) < SHORTEST and text not in whole:
            text = NO_PICTURE + f"{text!r} is neither one nor the index of a row that has one"
        elif text.startswith("[") and not is_list(text):
            text = NO_PICTURE + "its list is broken"
        texts.append(text.ljust(SHORTEST) if text.startswith(NO_PICTURE) else text)
    return texts


def is_list(text: str) -> bool:
    """Return whether a text is a list of texts. The kit would run any other as code."""
    try:
        several = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return bool(several) and all(isinstance(item, str) for item in several)


def open_dataset(folder: Path, name: str) -> Any:
    """Build a dataset on the files in ``folder/LMUData``."""
    os.environ.update({"LMUData": str(folder / "LMUData")})
    for kind in DATASET_CLASSES:
        # Otherwise the kit replaces a file that is not the hub's own by a download.
        if getattr(kind, "DATASET_MD5", None):
            kind.DATASET_MD5 = {}
    try:
        dataset = build_dataset(name)
        if dataset is None:
            raise JobError(f"{name}.tsv has no column 'question'; make the data again")
    except JobError:
        raise
    except Exception as error:  # a file can make the kit's code raise anything
        raise JobError(f"the kit cannot read {name}.tsv ({why(error)}); make the data again") from (
            error
        )
    # One folder each: the kit keeps MMBench's pictures in both languages under the same names.
    dataset.img_root = str(folder / "LMUData" / "images" / name)
    table = dataset.data
    if not len(table):
        raise JobError(f"{name}.tsv has no question; make the data again")
    repeated = table["index"][table["index"].duplicated()]
    if len(repeated):
        # The kit keys its results by index and would count one of them for both.
        raise JobError(f"{name}.tsv has index {repeated.iloc[0]} twice; make the data again")
    return dataset


def refuse_unscored(dataset: Any, spec: dict[str, Any]) -> None:
    """Raise, before anything is asked, where the worker could not read the kit's result."""
    known = isinstance(dataset, ImageVQADataset | ImageYORNDataset)
    if spec["judging"] != "grader" and not dataset.TYPE.startswith("MCQ") and not known:
        raise JobError(
            f"{spec['name']}: its type {dataset.TYPE} in VLMEvalKit is not supported, only "
            "multiple choice, yes or no, and short answers scored by rules; try lmms-eval"
        )


def asked_rows(table: Any, spec: dict[str, Any]) -> Any:
    """Return the rows of the dataset's split."""
    name, split = spec["name"], spec["split"]
    if split is None:
        return table
    rows = table[table["split"] == split] if "split" in table else ()
    if not len(rows):
        raise JobError(f"{name}.tsv has no question of the split {split!r}; make the data again")
    return rows


def refuse_empty(rows: Any, name: str) -> None:
    """Raise where a question has no text or no answer: the kit reads "nan", or fails."""
    for column in ("question", "answer"):
        for index, value in zip(rows["index"], rows[column], strict=True):
            if value != value or not str(value).strip():
                raise JobError(
                    f"{name}.tsv has no {column} at index {index}; fill it in, or remove the row"
                )


def readable(image: Any) -> Any:
    """Return a picture in base64, or a list of them, upright and in a mode that the kit reads."""
    if isinstance(image, list):
        return [readable(picture) for picture in image]
    if image.startswith(NO_PICTURE):
        raise ValueError(image.removeprefix(NO_PICTURE).strip())
    with Image.open(io.BytesIO(base64.b64decode(image))) as picture:
        picture.load()
        if picture.mode in KIT_READS and picture.getexif().get(ORIENTATION, 1) == 1:
            return image
        stream = io.BytesIO()
        ImageOps.exif_transpose(picture).convert("RGB").save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
