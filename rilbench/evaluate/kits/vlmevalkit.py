"""VLMEvalKit (``ms-vlmeval``), which scores the table."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.kits.base import Address
from rilbench.evaluate.kits.worker_process import KitProcess, kit_environment, worker_files
from rilbench.evaluate.suite import VLMEVALKIT, Dataset

EXACT_MATCHING = "exact_matching"
"""What the kit calls reading an answer by its own rules, without a judge."""


class VLMEvalKit:
    """See `rilbench.evaluate.kits.base.Adapter`."""

    name = VLMEVALKIT
    sources = worker_files("vlmevalkit_worker", "vlmevalkit_data")
    worker = sources[0]
    styles: Mapping[str, str] = {
        **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), "qwen2_vl"),
        **dict.fromkeys(("internvl", "internvl_chat"), "internvl"),
    }

    def start(self, python: Path, log: Path, judge: Callable[[], Address]) -> KitProcess:
        """Start the worker; the judge is told to it with each job."""
        return KitProcess(python, self.worker, log, kit_environment({}))

    def files(self, datasets: Sequence[Dataset], data: Path) -> dict[str, list[Path]]:
        """The one TSV file of each."""
        found = {d.name: data / f"{d.name}.tsv" for d in datasets}
        absent = [file.name for file in found.values() if not file.is_file()]
        if absent:
            raise UserError(f"{data} lacks {', '.join(absent)}; make or copy the benchmarks there")
        return {name: [file] for name, file in found.items()}

    def prepare(self, folder: Path, files: Sequence[Path]) -> None:
        """Copy the files: the kit has been seen to overwrite those that it does not know."""
        (folder / "LMUData").mkdir()
        for file in files:
            shutil.copyfile(file, folder / "LMUData" / file.name)

    def spec(self, dataset: Dataset) -> dict[str, Any]:
        """What the worker has to know of a dataset."""
        return {
            "name": dataset.name,
            "circular": dataset.circular,
            "judging": dataset.judging,
            "split": dataset.split,
        }

    def total(self, dataset: Dataset, found: Mapping[str, Any]) -> float | None:
        """The kit's own number on the 0-100 scale."""
        records = found["records"]
        if records is None:
            return None
        rows = records
        if dataset.row is not None:
            column, wanted = dataset.row
            rows = [r for r in records if r.get(column) == wanted]
        if len(rows) != 1 or rows[0].get(dataset.metric) is None:
            raise UserError(
                f"{dataset.name}: the kit's result has no single {dataset.metric} for "
                f"{dataset.row or 'all'}; its columns are {sorted(records[0])}; check the data file"
            )
        return float(rows[0][dataset.metric]) * (100.0 / dataset.scale)
