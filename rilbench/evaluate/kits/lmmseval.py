"""lmms-eval, the cross-check."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rilbench.evaluate.benchmark import is_shipped
from rilbench.evaluate.image_resize import Pixels
from rilbench.evaluate.kits.base import JudgeAddress, ModelSettings
from rilbench.evaluate.kits.worker_process import KitProcess, kit_environment, worker_files
from rilbench.evaluate.suite import LMMSEVAL, Dataset


class LmmsEval:
    """See `rilbench.evaluate.kits.base.Adapter`."""

    name = LMMSEVAL
    sources = worker_files("lmmseval_worker", "lmmseval_data", "lmmseval_patches")
    worker = sources[0]
    styles: Mapping[str, str] = {}
    # The defaults of its classes for these models.
    model_settings: Mapping[str, ModelSettings] = {
        "qwen2_vl": ModelSettings(Pixels(3136, 602112)),
        "qwen2_5_vl": ModelSettings(Pixels(256 * 28 * 28, 1605632)),
    }

    def start(self, python: Path, log: Path, judge: Callable[[], JudgeAddress]) -> KitProcess:
        """Start the worker; its tasks read the judge's address when they are imported."""
        url, model = judge()
        no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        no_proxy = ",".join(filter(None, [no_proxy, "127.0.0.1,localhost"]))
        settings = {
            "no_proxy": no_proxy,
            "NO_PROXY": no_proxy,
            "API_TYPE": "openai",
            "OPENAI_API_KEY": "none",
            # Some tasks append the path to the address; MMBench posts to it as it is.
            "OPENAI_API_URL": url,
            "OPENAI_BASE_URL": url,
            "MODEL_VERSION": model,
        }
        return KitProcess(python, self.worker, log, kit_environment(settings, network=True))

    def files(self, datasets: Sequence[Dataset], data: Path) -> dict[str, list[Path]]:
        """Return the Parquet files in each dataset's folder, laid out as on the hub."""
        return {
            d.name: sorted((data / d.hub).rglob("*.parquet")) if d.hub else [] for d in datasets
        }

    def prepare(self, folder: Path, files: Sequence[Path]) -> None:
        """Do nothing: the kit only reads."""

    def spec(self, dataset: Dataset) -> dict[str, Any]:
        """Return what the worker needs to know about a dataset."""
        return {
            "name": dataset.name,
            "metric": dataset.metric,
            "judging": dataset.judging,
            "circular": dataset.circular,
            "parts": dataset.parts,
            "category": dataset.category,
            "only": dataset.only,
            "tried": not is_shipped(dataset),
        }

    def total(self, dataset: Dataset, result: Mapping[str, Any]) -> float | None:
        """Return the kit's own total on the 0-100 scale."""
        return float(result["total"]) * (100.0 / (dataset.scale or 100))
