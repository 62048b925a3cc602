"""Where the lab reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rilbench.check.baseline import FILE


@dataclass(frozen=True)
class LabPaths:
    """Folders and files of the lab.

    Attributes:
        results: the committed results.
        work: run folders and collections; may be deleted once all results are written.
        baseline: the gate's file, shared with other models.
    """

    results: Path = Path("results/nano")
    work: Path = Path("runs/lab")
    baseline: Path = FILE

    @property
    def runs(self) -> Path:
        """Folder with one JSON file for each finished run."""
        return self.results / "runs"

    @property
    def tuned(self) -> Path:
        """The grid's choice."""
        return self.results / "tuned.json"

    @property
    def mechanisms(self) -> Path:
        """What the recorded responses say about why."""
        return self.results / "mechanisms.json"

    @property
    def figures(self) -> Path:
        """Folder with the report's plots, as PNG and SVG."""
        return self.results / "figures"

    @property
    def regimes(self) -> Path:
        """Folder with the models and responses of each regime."""
        return self.work / "regimes"

    def run_folder(self, experiment: str, regime: str, name: str, seed: int) -> Path:
        """Folder in which one job trains."""
        return self.work / "runs" / experiment / regime / f"{name}-{seed}"
