"""Plots of the report as PNG and SVG; equal run results give equal bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rilbench.lab.claims import GRADED, PAPER, paper_differences
from rilbench.lab.experiment import Experiment
from rilbench.lab.mechanisms import Mechanisms
from rilbench.lab.report_tables import finished, paired_differences
from rilbench.lab.run_result import RunResult
from rilbench.lab.verdicts import ClaimResult, ResultsByName, by_name
from rilbench.stats import Interval, seed_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "ril": "#0072b2",
    "dr-grpo-8": "#d55e00",
    "sft": "#009e73",
    "imitation": "#cc79a7",
    "teacher-rows": "#e69f00",
    "teacher-bonus": "#56b4e9",
    "untrained": "#999999",
    "teacher-72b": "#000000",
}
"""Okabe and Ito's colours, which most colour-blind readers can tell apart."""

MECHANISMS = "mechanisms"
MECHANISMS_TITLE = "Who is rewarded for what, over the steps"
FOREST = "forest"
FOREST_TITLE = "The differences beside the paper's"
_CURVES = ("ril", "imitation", "teacher-rows", "dr-grpo-8")
_WITH_DISCRIMINATOR = ("ril", "imitation")
_BARS = ("untrained", "dr-grpo-8", "sft", "ril", "teacher-72b")
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

Results = tuple[Experiment, Sequence[RunResult]]


def plot_titles(headline: Results, ablations: Results) -> dict[str, str]:
    """Return the title of every plot that the results allow, by the stem of its files."""
    titles: dict[str, str] = {}
    experiment, results = headline
    for regime in experiment.regimes:
        grouped = by_name(results, regime)
        if any(run.curves for name in _CURVES for run in grouped.get(name, {}).values()):
            titles[f"rewards-{regime}"] = f"Rewards over steps, {regime}"
        if sum(bool(finished(grouped, name)) for name in _BARS) > 1:
            count = len(experiment.benchmarks)
            titles[f"benchmarks-{regime}"] = f"The {count} benchmarks, {regime}"
    experiment, results = ablations
    for regime in experiment.regimes:
        if _differences(experiment, by_name(results, regime)):
            titles[f"ablations-{regime}"] = f"Ablations, {regime}"
    return titles


def draw_plots(headline: Results, ablations: Results, folder: Path) -> None:
    """Draw every plot of `plot_titles` into a folder."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(_STYLE):
        for stem in plot_titles(headline, ablations):
            kind, _, regime = stem.partition("-")
            experiment, results = ablations if kind == "ablations" else headline
            grouped = by_name(results, regime)
            if kind == "rewards":
                figure = _rewards(grouped)
            elif kind == "benchmarks":
                figure = _benchmarks(grouped, experiment.benchmarks)
            else:
                figure = _ablations(_differences(experiment, grouped))
            _save(figure, folder / stem)


def _save(figure: Figure, stem: Path) -> None:
    """Write PNG and SVG, without dates and versions: equal results give equal files."""
    figure.savefig(f"{stem}.svg", metadata={"Date": None, "Creator": None})
    figure.savefig(f"{stem}.png", metadata={"Software": None})


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


# ---- rewards over steps


def _rewards(grouped: ResultsByName) -> Figure:
    figure, ((left, right),) = _figure(8, 3.2, 1, 2)
    for name in _CURVES:
        _curve(left, grouped, name, "answer_reward_student")
        if name in _WITH_DISCRIMINATOR:
            _curve(right, grouped, name, "similarity_reward_student")
    left.set_title("answer reward of the student's responses")
    right.set_title("similarity reward of the student's responses")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.set_ylim(0, 1)
    if right.lines:
        right.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _curve(axes: Axes, grouped: ResultsByName, name: str, metric: str) -> None:
    """Mean over seeds, with the band from the lowest to the highest."""
    curves = [run.curves[metric] for run in finished(grouped, name) if metric in run.curves]
    steps = min((len(curve) for curve in curves), default=0)
    values = [[c[i] for c in curves if c[i] is not None] for i in range(steps)]
    if not steps or not all(values):
        return
    xs = range(1, steps + 1)
    axes.plot(xs, [statistics.fmean(v) for v in values], color=COLOURS[name], label=name)
    low, high = [min(v) for v in values], [max(v) for v in values]
    axes.fill_between(xs, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)


# ---- benchmarks


def _benchmarks(grouped: ResultsByName, benchmarks: Sequence[str]) -> Figure:
    runs = {name: finished(grouped, name) for name in _BARS if finished(grouped, name)}
    half = (len(benchmarks) + 1) // 2
    figure, axes = _figure(8, 5, 2, 1)
    width = 0.85 / len(runs)
    for (part,), chosen in zip(axes, (benchmarks[:half], benchmarks[half:]), strict=True):
        for i, (name, results) in enumerate(runs.items()):
            bars = [seed_interval([run.scores[b] for run in results]) for b in chosen]
            at = [x + (i - (len(runs) - 1) / 2) * width for x in range(len(chosen))]
            values = [bar.mean for bar in bars]
            part.bar(at, values, width, color=COLOURS[name], label=name)
            errors = _half_lengths(bars)
            part.errorbar(at, values, errors, fmt="none", ecolor="#333333", elinewidth=0.8)
        part.set_xticks(range(len(chosen)), chosen)
        part.set_xlim(-0.6, half - 0.4)
        part.set_ylim(0, 100)
        part.set_ylabel("score")
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(runs))
    return figure


def _half_lengths(intervals: Sequence[Interval]) -> list[float]:
    """Half of each interval's length; 0 where a single seed leaves it open."""
    lengths = [interval.high - interval.low for interval in intervals]
    return [length / 2 if length < 1000 else 0.0 for length in lengths]


# ---- why


def draw_mechanisms(mechanisms: Mechanisms, folder: Path) -> None:
    """Draw who is rewarded for what over the steps."""
    from matplotlib import rc_context

    if PAPER in mechanisms:
        with rc_context(_STYLE):
            _save(_mechanisms(mechanisms), folder / MECHANISMS)


def _mechanisms(mechanisms: Mechanisms) -> Figure:
    figure, ((shared, advantage), (similarity, graded)) = _figure(8, 6, 2, 2)
    for (regime, runs), colour in zip(mechanisms.items(), COLOURS.values(), strict=False):
        _line(shared, runs["ril"]["shared"], regime, colour)
    own = mechanisms[PAPER]
    sources = {"student": "ril", "72b": "dr-grpo-8", "78b": "teacher-rows"}
    for axes, regime in ((similarity, PAPER), (graded, GRADED)):
        for source, colour in sources.items() if regime in mechanisms else ():
            curve = mechanisms[regime]["ril"][f"similarity_{source}"]
            _line(axes, curve, source, COLOURS[colour])
        axes.set_title(f"RIL, {regime}: similarity reward")
    for run, values in own.items():
        _line(advantage, values["advantage_teacher"], run, COLOURS[run])
    shared.set_title("RIL: texts that both sides have")
    advantage.set_title("paper: advantage of teacher responses")
    for axes in (shared, advantage, similarity, graded):
        axes.set_xlabel("step")
        axes.set_ylim(0, 1.02)
        if axes.lines:
            axes.legend(fontsize=7)
    return figure


def _line(axes: Axes, values: Sequence[float | None], label: str, colour: str) -> None:
    drawn = [math.nan if value is None else value for value in values]
    axes.plot(range(1, len(drawn) + 1), drawn, color=colour, label=label)


# ---- the claims


def draw_forest(results: Sequence[ClaimResult], folder: Path) -> None:
    """Draw each claim's difference with its interval, and the paper's range as a band."""
    from matplotlib import rc_context

    shown = [result for result in results if result.seeds is not None]
    if not shown:
        return
    with rc_context(_STYLE):
        _save(_forest(shown), folder / FOREST)


def _forest(results: Sequence[ClaimResult]) -> Figure:
    figure, ((axes,),) = _figure(8, 1.4 + 0.28 * len(results), 1, 1)
    for row, result in enumerate(results):
        paper = list(paper_differences(result.claim).values())
        if paper:
            low = min(paper) - 0.3 * (len(paper) == 1)
            width = max(max(paper) - low, 0.6)
            axes.barh(row, width, left=low, height=0.8, color="#dddddd", label="in the paper")
    bars = [result.seeds for result in results if result.seeds is not None]
    axes.errorbar(
        [bar.mean for bar in bars],
        range(len(bars)),
        xerr=_half_lengths(bars),
        fmt="o",
        markersize=4,
        color=COLOURS["ril"],
        label="nano sandbox",
    )
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(results)), [result.claim.text for result in results])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("points of the mean (95 % over seeds)")
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
    return figure


# ---- ablations


def _differences(experiment: Experiment, grouped: ResultsByName) -> dict[str, Interval]:
    """Return each run's difference from the full run."""
    full = grouped.get(experiment.runs[0].name, {})
    differences = {}
    for spec in experiment.runs[1:]:
        gaps = paired_differences(finished(grouped, spec.name), full, experiment.benchmarks)
        if gaps:
            differences[spec.name] = seed_interval(gaps)
    return differences


def _ablations(differences: Mapping[str, Interval]) -> Figure:
    bars = list(differences.values())
    figure, ((axes,),) = _figure(8, 1.2 + 0.28 * len(bars), 1, 1)
    at = list(range(len(bars)))
    values = [bar.mean for bar in bars]
    colours = [COLOURS["ril"] if value >= 0 else COLOURS["dr-grpo-8"] for value in values]
    axes.barh(at, values, color=colours)
    errors = _half_lengths(bars)
    axes.errorbar(values, at, xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.8)
    axes.set_yticks(at, list(differences))
    axes.invert_yaxis()
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("points of the mean, minus full RIL (95 % over seeds)")
    return figure
