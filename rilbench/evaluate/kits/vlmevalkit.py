"""VLMEvalKit (``ms-vlmeval``), the default kit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.benchmark import is_shipped
from rilbench.evaluate.image_resize import Pixels
from rilbench.evaluate.kits.base import JudgeAddress, ModelSettings
from rilbench.evaluate.kits.worker_process import KitProcess, kit_environment, worker_files
from rilbench.evaluate.suite import VLMEVALKIT, Dataset

EXACT_MATCHING = "exact_matching"
"""The kit's name for reading an answer by its own rules, without a judge."""

_QWEN = ModelSettings(Pixels(1280 * 28 * 28, 16384 * 28 * 28), repetition_penalty=1.0)
"""Of the entries Qwen2-VL-* and Qwen2.5-VL-* in its ``config.py``, and of its class for them."""


class VLMEvalKit:
    """See `rilbench.evaluate.kits.base.Adapter`."""

    name = VLMEVALKIT
    sources = worker_files("vlmevalkit_worker", "vlmevalkit_data", "vlmevalkit_outcomes")
    worker = sources[0]
    styles: Mapping[str, str] = {
        "qwen2_vl": "qwen2_vl",
        "qwen2_5_vl": "qwen2_vl",
        "internvl": "internvl",
        "internvl_chat": "internvl",
    }
    model_settings: Mapping[str, ModelSettings] = {"qwen2_vl": _QWEN, "qwen2_5_vl": _QWEN}

    def start(self, python: Path, log: Path, judge: Callable[[], JudgeAddress]) -> KitProcess:
        """Start the worker; each job names the judge."""
        return KitProcess(python, self.worker, log, kit_environment({}))

    def files(self, datasets: Sequence[Dataset], data: Path) -> dict[str, list[Path]]:
        """Return the one TSV file of each dataset."""
        files = {d.name: [data / f"{d.name}.tsv"] for d in datasets}
        missing = [file.name for (file,) in files.values() if not file.is_file()]
        if missing:
            raise UserError(f"{data} lacks {', '.join(missing)}; make or copy the benchmarks there")
        return files

    def prepare(self, folder: Path, files: Sequence[Path]) -> None:
        """Copy the files: the kit may overwrite files that it does not know."""
        (folder / "LMUData").mkdir()
        for file in files:
            shutil.copyfile(file, folder / "LMUData" / file.name)

    def spec(self, dataset: Dataset) -> dict[str, Any]:
        """Return what the worker needs to know about a dataset."""
        return {
            "name": dataset.name,
            "circular": dataset.circular,
            "judging": dataset.judging,
            "split": dataset.split,
            "category": dataset.category,
            "tried": not is_shipped(dataset),
        }

    def total(self, dataset: Dataset, result: Mapping[str, Any]) -> float | None:
        """Return the kit's own total on the 0-100 scale."""
        records = result["records"]
        if records is None:
            return None
        rows = records
        if dataset.row is not None:
            column, value = dataset.row
            rows = [record for record in records if record.get(column) == value]
        # MME has no total of its two parts.
        names = [dataset.metric] if dataset.metric in records[0] else dataset.metric.split("+")
        if len(rows) != 1 or any(rows[0].get(name) is None for name in names):
            raise UserError(
                f"{dataset.name}: the kit's result has no single {dataset.metric} for "
                f"{dataset.row or 'all'}; its columns are {sorted(records[0])}; check the data "
                "file, or name metric and row in a TOML file (see docs/extending.md)"
            )
        total = sum(float(rows[0][name]) for name in names)
        return total * (100.0 / (dataset.scale or 100))
