"""The benchmarks' data files: where they are, whether they are the published ones, how to get them.

A file is named ``<dataset>.tsv``, in VLMEvalKit's format; lmms-eval reads Parquet files below a
folder laid out as the hub. Files of the user's are only read.
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
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.vlmevalkit import VLMEvalKit
from rilbench.evaluate.kits.worker_process import KitProcess, kit_environment
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, Dataset, Suite
from rilbench.paths import nano_folder

State = Literal["published", "look-alike", "unverified", "missing"]
"""The file that the kit knows by its hash; the laboratory's; another; none."""

DATA_VARIABLE = "LMUData"
"""VLMEvalKit's own environment variable for the folder of its data files."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class DataFile:
    """One data file."""

    dataset: Dataset
    path: Path
    state: State
    sha256: str | None
    """None where there is no file."""
    size: int
    """In bytes."""


def data_folder(suite: Suite, chosen: Path | None = None) -> Path:
    """Where a suite's files are: as chosen, else the laboratory's, else the kit's own place."""
    if chosen is not None:
        return chosen
    if not suite.published:
        return nano_folder() / "benchmarks"
    own = Path(os.environ.get(DATA_VARIABLE) or "~/LMUData").expanduser()
    return own / "hub" if suite.kit == LMMSEVAL else own


def data_states(suite: Suite, folder: Path) -> dict[str, State]:
    """The state of each dataset of the suite's kit.

    lmms-eval knows no file by its hash, so that none of the published suite's can be verified;
    look-alikes are made for it from VLMEvalKit's files.
    """
    if suite.kit == VLMEVALKIT:
        return {found.dataset.name: found.state for found in check_data(suite, folder)}
    if suite.published:
        return {dataset.name: "unverified" for dataset in suite.datasets}
    found = data_states(suite.by(VLMEVALKIT), folder)
    return {
        task.name: found[dataset.name]
        for benchmark in suite.benchmarks
        for task, dataset in zip(benchmark.datasets, benchmark.by_kit[VLMEVALKIT], strict=True)
    }


def check_data(suite: Suite, folder: Path) -> list[DataFile]:
    """Look at a suite's files, each read once; of lmms-eval's datasets at their folders.

    lmms-eval has from the hub itself what is not there.
    """
    if suite.kit == LMMSEVAL and suite.published:
        return [_look_below(d, folder) for d in suite.datasets]
    return [_look(suite, dataset, folder / f"{dataset.name}.tsv") for dataset in suite.datasets]


def _look_below(dataset: Dataset, folder: Path) -> DataFile:
    (files,) = find_kit(LMMSEVAL).files([dataset], folder).values()
    if not files:
        return DataFile(dataset, folder / dataset.hub, "missing", None, 0)
    digests = [file_hashes(file)[0] for file in files]
    whole = hashlib.sha256(" ".join(digests).encode()).hexdigest()
    sha256 = digests[0] if len(files) == 1 else whole
    size = sum(file.stat().st_size for file in files)
    return DataFile(dataset, folder / dataset.hub, "unverified", sha256, size)


def _look(suite: Suite, dataset: Dataset, path: Path) -> DataFile:
    if not path.is_file():
        return DataFile(dataset, path, "missing", None, 0)
    sha256, md5 = file_hashes(path)
    state: State = "unverified"
    if suite.published and md5 == dataset.md5:
        state = "published"
    own = nano_folder() / "benchmarks" / path.name
    if not suite.published and own.is_file() and sha256 == file_hashes(own)[0]:
        state = "look-alike"
    return DataFile(dataset, path, state, sha256, path.stat().st_size)


def file_hashes(path: Path) -> tuple[str, str]:
    """SHA-256, and MD5 by which the kit knows its files."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()


def ensure_data(
    suite: Suite, folder: Path, python: Path, on_progress: Callable[[str], None]
) -> None:
    """Get the files of a published suite that are not there, by the kit's own download.

    Args:
        suite: what is to be evaluated.
        folder: where the files are to be. What is there stays as it is.
        python: the kit's.
        on_progress: called with a line for each file.

    Raises:
        UserError: a file is missing and cannot be had.
    """
    absent = [d for d in suite.datasets if not (folder / f"{d.name}.tsv").is_file()]
    if not absent:
        return
    if not suite.published:
        raise UserError(
            f"{_named(absent, folder)} missing; make the benchmarks, or copy them there"
        )
    own = [d for d in absent if d.name == "MMVetV2"]
    if own:
        raise UserError(
            f"{_named(own, folder)} missing; get mm-vet-v2.zip from MM-Vet's release v2, unpack "
            f"it, then: rilbench data mm-vet-v2 FOLDER --data {folder}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as place:
        log = Path(place) / "log"
        environment = kit_environment({"LMUData": place}, network=True)
        with KitProcess(python, VLMEvalKit.worker, log, environment) as kit:
            for dataset in absent:
                on_progress(f"downloading {dataset.name}.tsv")
                try:
                    kit.run("download", {"folder": place, "name": dataset.name})
                except UserError as error:
                    raise UserError(
                        f"{_named([dataset], folder)} missing, and cannot be downloaded ({error}); "
                        "copy it there, or give the folder that has it with --data"
                    ) from error
                (Path(place) / f"{dataset.name}.tsv").replace(folder / f"{dataset.name}.tsv")
                shutil.rmtree(Path(place) / "images", ignore_errors=True)


def _named(datasets: Sequence[Dataset], folder: Path) -> str:
    names = ", ".join(f"{dataset.name}.tsv" for dataset in datasets)
    return f"{names} in {folder} {'is' if len(datasets) == 1 else 'are'}"
