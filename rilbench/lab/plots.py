"""Figures of the report: PNG and SVG, the same bytes from the same rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rilbench.lab.experiment import Experiment
from rilbench.lab.report_tables import paired
from rilbench.lab.run_result import Row
from rilbench.lab.verdicts import Group, by_name
from rilbench.stats import Interval, seed_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "ril-both": "#0072b2",
    "dr-grpo-8": "#d55e00",
    "sft": "#009e73",
    "imitation": "#cc79a7",
    "teacher-rows": "#e69f00",
    "untrained": "#999999",
    "teacher-72b": "#000000",
}
"""Okabe and Ito's colours, which most colour-blind readers can tell apart."""

_CURVES = ("ril-both", "imitation", "teacher-rows", "dr-grpo-8")
_BARS = ("untrained", "dr-grpo-8", "sft", "ril-both", "teacher-72b")
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "rilbench",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.dpi": 100,
}


def draw_all(
    headline: tuple[Experiment, Sequence[Row]],
    ablations: tuple[Experiment, Sequence[Row]],
    folder: Path | None,
) -> dict[str, str]:
    """Draw every figure that the rows allow, and return its title by the stem of its files.

    Nothing is written, and matplotlib not needed, when ``folder`` is None.
    """
    if folder is None:
        return _draw(headline, ablations, None)
    from matplotlib import rc_context

    with rc_context(_STYLE):
        return _draw(headline, ablations, folder)


def _draw(
    headline: tuple[Experiment, Sequence[Row]],
    ablations: tuple[Experiment, Sequence[Row]],
    folder: Path | None,
) -> dict[str, str]:
    titles: dict[str, str] = {}
    experiment, rows = headline
    for student in experiment.students:
        group = by_name(rows, student)
        if any(row.curves for name in _CURVES for row in group.get(name, {}).values()):
            titles[f"rewards-{student}"] = f"Rewards over steps, {student}"
            if folder:
                _save(_rewards(group), folder, f"rewards-{student}")
        if sum(bool(_finished(group, name)) for name in _BARS) > 1:
            titles[f"benchmarks-{student}"] = f"The 14 benchmarks, {student}"
            if folder:
                _save(_benchmarks(group, experiment.benchmarks), folder, f"benchmarks-{student}")
    experiment, rows = ablations
    for student in experiment.students:
        bars = _differences(experiment, by_name(rows, student))
        if bars:
            titles[f"ablations-{student}"] = f"Ablations, {student}"
            if folder:
                _save(_ablations(bars), folder, f"ablations-{student}")
    return titles


def _finished(group: Group, name: str) -> list[Row]:
    return [row for row in group.get(name, {}).values() if not row.failure]


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Figure, folder: Path, name: str) -> None:
    """Write both formats without dates or versions, so that equal rows give equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})


# ---- rewards over steps


def _rewards(group: Group) -> Figure:
    figure, ((left, right),) = _figure(8, 3.2, 1, 2)
    for name in _CURVES:
        _curve(left, group, name, "answer_reward_student")
        _curve(right, group, name, "similarity_reward_student")
    left.set_title("answer reward of the student's rows")
    right.set_title("similarity reward of the student's rows")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.set_ylim(0, 1)
    if right.lines:
        right.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _curve(axes: Axes, group: Group, name: str, what: str) -> None:
    """Mean over seeds, with the band from the lowest to the highest."""
    curves = [row.curves[what] for row in _finished(group, name) if what in row.curves]
    steps = min((len(curve) for curve in curves), default=0)
    found = [[c[i] for c in curves if c[i] is not None] for i in range(steps)]
    if not steps or not all(found):
        return
    if name != "ril-both" and name != "imitation" and what.startswith("similarity"):
        return  # without a discriminator there is no such reward
    xs = range(1, steps + 1)
    axes.plot(xs, [statistics.fmean(v) for v in found], color=COLOURS[name], label=name)
    low, high = [min(v) for v in found], [max(v) for v in found]
    axes.fill_between(xs, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)


# ---- benchmarks


def _benchmarks(group: Group, columns: Sequence[str]) -> Figure:
    names = [name for name in _BARS if _finished(group, name)]
    half = (len(columns) + 1) // 2
    figure, axes = _figure(8, 5, 2, 1)
    for (part,), chosen in zip(axes, (columns[:half], columns[half:]), strict=True):
        width = 0.85 / len(names)
        for i, name in enumerate(names):
            found = [seed_interval([r.scores[c] for r in _finished(group, name)]) for c in chosen]
            at = [x + (i - (len(names) - 1) / 2) * width for x in range(len(chosen))]
            values = [each.mean for each in found]
            part.bar(at, values, width, color=COLOURS[name], label=name)
            part.errorbar(at, values, _half(found), fmt="none", ecolor="#333333", elinewidth=0.8)
        part.set_xticks(range(len(chosen)), chosen)
        part.set_xlim(-0.6, half - 0.4)
        part.set_ylim(0, 100)
        part.set_ylabel("score")
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(names))
    return figure


def _half(found: Sequence[Interval]) -> list[float]:
    """Half the interval's length; 0 where one seed alone leaves it open."""
    lengths = [each.high - each.low for each in found]
    return [length / 2 if length < 1000 else 0.0 for length in lengths]


# ---- ablations

_Bar = tuple[str, str, Interval]


def _differences(experiment: Experiment, group: Group) -> list[_Bar]:
    """Part, run, and its difference from the full run."""
    reference = group.get(experiment.runs[0].name, {})
    bars = []
    for spec in experiment.runs[1:]:
        gaps = paired(_finished(group, spec.name), reference, experiment.benchmarks)
        if gaps:
            bars.append((spec.part, spec.name, seed_interval(gaps)))
    return bars


def _ablations(bars: Sequence[_Bar]) -> Figure:
    figure, ((axes,),) = _figure(8, 1.2 + 0.28 * len(bars), 1, 1)
    at = list(range(len(bars)))
    values = [each.mean for _, _, each in bars]
    colours = [COLOURS["ril-both"] if value >= 0 else COLOURS["dr-grpo-8"] for value in values]
    axes.barh(at, values, color=colours)
    half = _half([each for _, _, each in bars])
    axes.errorbar(values, at, xerr=half, fmt="none", ecolor="#333333", elinewidth=0.8)
    axes.set_yticks(at, [name for _, name, _ in bars])
    axes.invert_yaxis()
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("points of the mean, minus full RIL (95 % over seeds)")
    return figure
