"""The benchmarks' data files: their place, whether they are the published ones, their download.

VLMEvalKit reads one ``<dataset>.tsv`` per data set; lmms-eval reads Parquet files below a folder
laid out as on the hub. Existing files are never changed.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rilbench.errors import UserError
from rilbench.evaluate.data_content import read_contents, why_no_data
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.vlmevalkit import VLMEvalKit
from rilbench.evaluate.kits.worker_process import KitProcess, kit_environment
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, Dataset, Suite
from rilbench.paths import nano_folder

State = Literal["published", "stand-in", "unverified", "broken", "missing"]
"""The file whose hash the kit pins; our synthetic stand-in; another file with questions; what is no
whole data file; no file."""

CONVERTED = "MMVetV2"
"""The data set that VLMEvalKit does not offer: the user converts its release."""

DATA_VARIABLE = "LMUData"
"""VLMEvalKit's own environment variable for the folder of its data files."""


@dataclass(frozen=True)
class DataFile:
    """The data of one data set: a file, or a folder of Parquet files."""

    dataset: Dataset
    path: Path
    state: State
    sha256: str | None = None
    """Of the file, or of its files' hashes; None if it is missing."""
    size: int = 0
    """In bytes."""
    reason: str = ""
    """Why it is unverified or broken: the expected and the found hash, or that the kit pins none;
    and what is wrong with its questions."""


def data_folder(suite: Suite, chosen: Path | None = None) -> Path:
    """Return the folder of a suite's files: ``chosen``, else the nano sandbox's or the kit's."""
    if chosen is not None:
        return chosen
    if not suite.published:
        return nano_folder() / "benchmarks"
    kit_folder = Path(os.environ.get(DATA_VARIABLE) or "~/LMUData").expanduser()
    return kit_folder / "hub" if suite.kit == LMMSEVAL else kit_folder


def evaluated_files(suite: Suite, folder: Path) -> dict[str, DataFile]:
    """Return the data file behind each data set of the suite's kit, by the data set's name.

    lmms-eval's stand-ins are made from VLMEvalKit's, so they have the state of those.
    """
    if suite.published or suite.kit == VLMEVALKIT:
        return {file.dataset.name: file for file in check_data(suite, folder)}
    sources = evaluated_files(suite.by(VLMEVALKIT), folder)
    return {
        task.name: sources[dataset.name]
        for benchmark in suite.benchmarks
        for task, dataset in zip(benchmark.datasets, benchmark.by_kit[VLMEVALKIT], strict=True)
    }


def usable_files(suite: Suite, folder: Path) -> dict[str, DataFile]:
    """Return what `evaluated_files` does, where no file is broken.

    Raises:
        UserError: files are; no model should be asked for them.
    """
    files = evaluated_files(suite, folder)
    broken = [file for file in files.values() if file.state == "broken"]
    if broken:
        said = "; ".join(f"{file.path} is {file.reason}" for file in broken)
        raise UserError(
            f"{said}; get it again, or leave out {', '.join(file.dataset.name for file in broken)}"
        )
    return files


def check_data(suite: Suite, folder: Path) -> list[DataFile]:
    """Return the state of each data set's files. What is no published file is read as a whole.

    A missing data set of lmms-eval is not an error: the kit downloads it from the hub.
    """
    if suite.kit == LMMSEVAL and suite.published:
        return [_check_hub_folder(dataset, folder) for dataset in suite.datasets]
    return [
        _check_tsv(suite, dataset, folder / f"{dataset.name}.tsv") for dataset in suite.datasets
    ]


def _check_hub_folder(dataset: Dataset, folder: Path) -> DataFile:
    path = folder / dataset.hub
    (files,) = find_kit(LMMSEVAL).files([dataset], folder).values()
    if not files:
        return DataFile(dataset, path, "missing")
    hashes = [file_hashes(file)[0] for file in files]
    sha256 = hashes[0] if len(hashes) == 1 else joint_hash(hashes)
    size = sum(file.stat().st_size for file in files)
    if broken := [f"{why} ({file.name})" for file in files if (why := why_no_data(file))]:
        return DataFile(dataset, path, "broken", sha256, size, broken[0])
    return DataFile(dataset, path, "unverified", sha256, size, f"{LMMSEVAL} pins no hash of it")


def _check_tsv(suite: Suite, dataset: Dataset, path: Path) -> DataFile:
    if not path.is_file():
        return DataFile(dataset, path, "missing")
    sha256, md5 = file_hashes(path)
    state: State = "unverified"
    if suite.published:
        if md5 == dataset.md5:
            state, reason = "published", ""
        elif not dataset.questions:
            reason = f"its published hash is not known here, as it was named by {VLMEVALKIT}: only"
        elif dataset.md5 is None:
            reason = f"{VLMEVALKIT} pins no hash of it"
        else:
            reason = f"MD5 is {md5}, expected {dataset.md5}"
    else:
        stand_in = nano_folder() / "benchmarks" / path.name
        if not stand_in.is_file():
            reason = "rilbench/nano has no such file"
        elif sha256 == (expected := file_hashes(stand_in)[0]):
            state, reason = "stand-in", ""
        else:
            reason = f"SHA-256 is {sha256[:16]}, expected {expected[:16]}"
    if state == "unverified":
        contents = read_contents(path, dataset)
        state = "broken" if contents.broken else state
        faults = contents.faults((dataset.questions or None) if suite.published else None)
        if contents.broken:
            reason = contents.broken + (f"; {reason}" if dataset.md5 else "")
        else:
            reason = "; ".join([reason, *faults])
    return DataFile(dataset, path, state, sha256, path.stat().st_size, reason)


def file_hashes(path: Path) -> tuple[str, str]:
    """Return a file's SHA-256, and its MD5, by which VLMEvalKit pins its files."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()


def joint_hash(hashes: Sequence[str]) -> str:
    """Return one SHA-256 of several files' hashes."""
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def ensure_data(
    suite: Suite, folder: Path, python: Path, on_progress: Callable[[str], None]
) -> None:
    """Download a published suite's missing files, by VLMEvalKit's own addresses.

    Args:
        suite: to be evaluated.
        folder: of the data files. Existing files stay as they are.
        python: VLMEvalKit's.
        on_progress: called with a line for each file.

    Raises:
        UserError: a file is missing and cannot be downloaded.
    """
    absent = absent_data(suite, folder)
    if absent and not suite.published:
        raise UserError(
            f"{_names(absent, folder)} missing; make the benchmarks, or copy them there"
        )
    check_converted(suite, folder)
    _download(absent, folder, python, on_progress)


def absent_data(suite: Suite, folder: Path) -> list[Dataset]:
    """Return the data sets whose file is not there."""
    return [d for d in suite.datasets if not (folder / f"{d.name}.tsv").is_file()]


def check_converted(suite: Suite, folder: Path) -> None:
    """Check that the data set which VLMEvalKit does not offer was converted by the user.

    Raises:
        UserError: it was not; says how to.
    """
    if not suite.published or suite.kit != VLMEVALKIT:
        return
    if converted := [d for d in absent_data(suite, folder) if d.name == CONVERTED]:
        raise UserError(
            f"{_names(converted, folder)} missing; get mm-vet-v2.zip from MM-Vet's release v2, "
            f"unpack it, then: rilbench data mm-vet-v2 FOLDER --data {folder}"
        )


def download_data(
    suite: Suite, folder: Path, python: Path, on_progress: Callable[[str], None]
) -> None:
    """Download the missing files that VLMEvalKit offers; then say what has to be converted.

    Args are those of `ensure_data`.

    Raises:
        UserError: a file cannot be downloaded, or the user has to convert one.
    """
    absent = [dataset for dataset in absent_data(suite, folder) if dataset.name != CONVERTED]
    _download(absent, folder, python, on_progress)
    check_converted(suite, folder)


def _download(
    absent: Sequence[Dataset], folder: Path, python: Path, on_progress: Callable[[str], None]
) -> None:
    if not absent:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as place:
        log = Path(place) / "log"
        environment = kit_environment({DATA_VARIABLE: place}, network=True)
        with KitProcess(python, VLMEvalKit.worker, log, environment) as kit:
            for dataset in absent:
                on_progress(f"downloading {dataset.name}.tsv")
                try:
                    kit.run("download", {"folder": place, "name": dataset.name})
                except UserError as error:
                    raise UserError(
                        f"{_names([dataset], folder)} missing, and cannot be downloaded ({error}); "
                        "copy it there, or give the folder that has it with --data"
                    ) from error
                (Path(place) / f"{dataset.name}.tsv").replace(folder / f"{dataset.name}.tsv")
                shutil.rmtree(Path(place) / "images", ignore_errors=True)


def _names(datasets: Sequence[Dataset], folder: Path) -> str:
    """The subject of a sentence: "A.tsv, B.tsv in FOLDER are"."""
    names = ", ".join(f"{dataset.name}.tsv" for dataset in datasets)
    return f"{names} in {folder} {'is' if len(datasets) == 1 else 'are'}"
