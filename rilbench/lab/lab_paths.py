"""Where the laboratory reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rilbench.check.baseline import FILE


@dataclass(frozen=True)
class Places:
    """``results`` is committed; ``work`` is not and may be deleted when all rows are there.

    ``baseline`` has the gate's bounds, beside those of other models.
    """

    results: Path = Path("results/nano")
    work: Path = Path("runs/lab")
    baseline: Path = FILE

    @property
    def rows(self) -> Path:
        """One JSON file for each finished run."""
        return self.results / "rows"

    @property
    def tuned(self) -> Path:
        """The grid's choice."""
        return self.results / "tuned.json"

    @property
    def styles(self) -> Path:
        """What the worked style is worth to each model."""
        return self.results / "styles.json"

    @property
    def figures(self) -> Path:
        """PNG and SVG files."""
        return self.results / "figures"

    def run(self, experiment: str, student: str, name: str, seed: int) -> Path:
        """The run folder of one job."""
        return self.work / "runs" / experiment / student / f"{name}-{seed}"

    def collection(self, student: str) -> Path:
        """The saved responses that all runs of a student share."""
        return self.work / "collections" / student
