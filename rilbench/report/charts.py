"""The charts: Vega-Lite specifications made with Altair, in the page's colours.

Colours are the page's CSS variables, so one specification serves light and dark. Names come from
labels, which are hostile: they are put into data and titles, never into a field or an expression.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rilbench.ledger import Run
from rilbench.report.escaping import label
from rilbench.report.scores import MEAN, ScoreRow, score_columns

_MOST_POINTS = 1500
"""A longer curve is thinned to every n-th step."""

_FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', sans-serif"

_TICK = "format(datum.value, datum.value && abs(datum.value) < 0.001 ? '~e' : '~g')"
"""The format of an axis' numbers: 0.002, but 2e-4."""

_ROLE_COLOURS = {
    "before": "var(--before)",
    "after": "var(--after)",
    "teacher": "var(--teacher)",
    "": "var(--paper)",
}
_RUN_COLOURS = tuple(f"var(--run{n})" for n in range(6))


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart.

    Attributes:
        name: its heading.
        note: the value that a reader looks for first, or its meaning.
        summary: the chart in words, for screen readers.
        spec: the Vega-Lite specification.
    """

    name: str
    note: str
    summary: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """One entry of a legend."""

    label: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class _Curve:
    """A metric over the steps of a run.

    Attributes:
        name: its heading.
        student: the name of the student's values in the run's curves.
        teacher: the name of the teachers' values; empty if there are none.
        note: its meaning.
        top: the end of the axis; None for the data's.
        at: where a horizontal line marks chance level.
        digits: number format.
    """

    name: str
    student: str
    teacher: str = ""
    note: str = ""
    top: float | None = None
    at: float | None = None
    digits: str = ".2f"


_CURVES = (
    _Curve("Answer reward", "answer_reward_student", "answer_reward_teacher", top=1.0),
    _Curve("Similarity reward", "similarity_reward_student", "similarity_reward_teacher", top=1.0),
    _Curve("Discriminator accuracy", "discriminator_accuracy", note="chance 0.5", top=1.0, at=0.5),
    _Curve("KL to the start", "kl"),
    _Curve("Length, tokens", "tokens_student", "tokens_teacher", digits=".1f"),
    _Curve("Entropy", "entropy"),
    _Curve("Learning rate", "learning_rate", digits=".1e"),
    _Curve("Accuracy on dev", "dev_accuracy", top=1.0),
    _Curve("Groups without signal", "groups_without_signal", top=1.0),
)


def curve_charts(runs: Sequence[Run]) -> list[Chart]:
    """Return one chart for each metric that a run has; several runs share a chart."""
    charts = []
    for curve in _CURVES:
        series = _series(curve, runs)
        if any(series.values()):
            charts.append(_curve_chart(curve, series))
    return charts


def curve_legend(runs: Sequence[Run]) -> list[LegendEntry]:
    """Return the legend of `curve_charts`."""
    if len(runs) == 1:
        return [
            LegendEntry(label="student", colour=_RUN_COLOURS[0]),
            LegendEntry(label="teachers", colour="var(--teacher)", dashed=True),
        ]
    return [
        *(LegendEntry(label=label(run.name), colour=_colour(n)) for n, run in enumerate(runs)),
        LegendEntry(label="their teachers", colour="var(--soft)", dashed=True),
    ]


def _colour(number: int) -> str:
    return _RUN_COLOURS[number % len(_RUN_COLOURS)]


def _series(curve: _Curve, runs: Sequence[Run]) -> dict[LegendEntry, list[tuple[int, float]]]:
    """Return the points (step, value) of each line of a chart."""
    series = {}
    for number, run in enumerate(runs):
        name = f"{label(run.name)} " if len(runs) > 1 else ""
        sides = [("student" if curve.teacher else "", curve.student, False)]
        if curve.teacher:
            sides.append(("teachers", curve.teacher, True))
        for side, values, dashed in sides:
            colour = "var(--teacher)" if dashed and len(runs) == 1 else _colour(number)
            text = (name + side).strip() or "value"
            line = LegendEntry(label=text, colour=colour, dashed=dashed)
            series[line] = _points(run.curves.get(values, ()))
    return series


def _points(values: Sequence[Any]) -> list[tuple[int, float]]:
    """Return (step, value) for the steps that have a value; steps count from 1."""
    points = [
        (step, float(value))
        for step, value in enumerate(values, start=1)
        if isinstance(value, (int, float)) and math.isfinite(value)
    ]
    every = math.ceil(len(points) / _MOST_POINTS) or 1
    return points[::every]


def _curve_chart(curve: _Curve, series: Mapping[LegendEntry, list[tuple[int, float]]]) -> Chart:
    last = {line.label: points[-1][1] for line, points in series.items() if points}
    words = ", ".join(f"{name} {format(value, curve.digits)}" for name, value in last.items())
    shown = words.removeprefix("value ")
    note = " · ".join(part for part in (f"last {shown}", curve.note) if part)
    steps = max(points[-1][0] for points in series.values() if points)
    return Chart(
        name=curve.name,
        note=note,
        summary=f"{curve.name} over {steps} steps; last: {words}",
        spec=_curve_spec(curve, series),
    )


def _curve_spec(
    curve: _Curve, series: Mapping[LegendEntry, list[tuple[int, float]]]
) -> Mapping[str, Any]:
    import altair as alt

    lines = list(series)
    keys = [f"s{number}" for number in range(len(lines))]
    rows: list[Any] = [
        {"step": step, "value": value, "key": key}
        for key, points in zip(keys, series.values(), strict=True)
        for step, value in points
    ]
    steps = alt.X(
        "step:Q",
        title=None,
        axis=alt.Axis(grid=False, tickCount=5, format="d"),
        scale=alt.Scale(domain=[0, max(row["step"] for row in rows)], nice=False),
    )
    top = [0.0, curve.top] if curve.top is not None else alt.Undefined
    values = alt.Y(
        "value:Q",
        title=None,
        scale=alt.Scale(domain=top, nice=curve.top is None, zero=True),
        axis=alt.Axis(tickCount=4, labelExpr=_TICK),
    )
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=steps)
    colour = alt.Scale(domain=keys, range=[line.colour for line in lines])
    dash = alt.Scale(domain=keys, range=[[4, 3] if line.dashed else [1, 0] for line in lines])
    # A curve of a few values, such as dev accuracy, is lost without its points.
    few = len(rows) <= 12 * len(lines)
    drawn = base.mark_line(strokeWidth=1.8, point={"size": 22} if few else False).encode(
        y=values,
        color=alt.Color("key:N", scale=colour, legend=None),
        strokeDash=alt.StrokeDash("key:N", scale=dash, legend=None),
    )
    layers: list[Any] = [drawn, _pointer(base, curve, dict(zip(keys, lines, strict=True)))]
    if curve.at is not None:
        chance = alt.Chart(alt.InlineData(values=[{"at": curve.at}])).mark_rule(
            color="var(--soft)", strokeDash=[2, 3], opacity=0.7
        )
        layers.insert(0, chance.encode(y="at:Q"))
    return _finished(alt.layer(*layers), height=150)


def _pointer(base: Any, curve: _Curve, lines: Mapping[str, LegendEntry]) -> Any:
    """Return the vertical line at the pointer's step, whose tooltip has all values there."""
    import altair as alt

    near = alt.selection_point(
        fields=["step"], nearest=True, on="pointermove", clear="pointerout", empty=False
    )
    tooltip = [alt.Tooltip("step:Q", title="step", format="d")]
    tooltip += [
        alt.Tooltip(f"{key}:Q", title=line.label, format=curve.digits)
        for key, line in lines.items()
    ]
    return (
        base.transform_pivot("key", value="value", groupby=["step"], op="max")
        .mark_rule(color="var(--soft)")
        .encode(opacity=alt.condition(near, alt.value(0.5), alt.value(0)), tooltip=tooltip)
        .add_params(near)
    )


def bar_charts(rows: Sequence[ScoreRow], paper: Sequence[ScoreRow]) -> list[Chart]:
    """Return one chart for each measured benchmark.

    Args:
        rows: measured rows, a bar each, with its interval.
        paper: rows of the paper to compare with.
    """
    charts = []
    for column in score_columns(rows):
        bars = [_bar(row, column) for row in (*rows, *paper)] if column != MEAN else []
        values = [bar for bar in bars if bar is not None]
        if not any(value["role"] for value in values):
            continue
        words = "; ".join(
            f"{bar['label']} {bar['text']}"
            + (f" ({bar['low']:.1f} to {bar['high']:.1f})" if bar["low"] is not None else "")
            for bar in values
        )
        charts.append(
            Chart(name=column, note="", summary=f"{column}: {words}", spec=_bar_spec(values))
        )
    return charts


def _bar(row: ScoreRow, column: str) -> dict[str, Any] | None:
    cell = row.cell(column)
    if cell.value is None:
        return None
    high = None if cell.high is None else round(cell.high, 2)
    return {
        "label": row.label if row.role else f"paper {row.label}",
        "role": row.role,
        "value": round(cell.value, 2),
        "low": None if cell.low is None else round(cell.low, 2),
        "high": high,
        "end": round(cell.value, 2) if high is None else high,
        "text": f"{cell.value:.1f}",
    }


def _bar_spec(values: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    import altair as alt

    names = alt.Axis(title=None, labelLimit=118, labelColor="var(--ink)")
    place = alt.Scale(paddingInner=0.32, paddingOuter=0.1)
    base = alt.Chart(alt.InlineData(values=list(values))).encode(
        y=alt.Y("label:N", sort=None, axis=names, scale=place)
    )
    # Room for the number of a bar that reaches 100.
    scale = alt.Scale(domain=[0, 122], nice=False)
    colour = alt.Color(
        "role:N",
        legend=None,
        scale=alt.Scale(domain=list(_ROLE_COLOURS), range=list(_ROLE_COLOURS.values())),
    )
    tooltip = [
        alt.Tooltip("label:N", title="model"),
        alt.Tooltip("value:Q", title="score", format=".1f"),
        alt.Tooltip("low:Q", title="95 % from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
    ]
    axis = alt.Axis(values=[0, 50, 100], title=None, grid=True)
    bar = base.mark_bar(cornerRadiusEnd=2).encode(
        x=alt.X("value:Q", scale=scale, axis=axis), color=colour, tooltip=tooltip
    )
    rule = base.mark_rule(color="var(--ink)", strokeWidth=1.2, opacity=0.75).encode(
        x="low:Q", x2="high:Q"
    )
    text = base.mark_text(align="left", dx=5, fontSize=11, color="var(--ink)").encode(
        x="end:Q", text="text:N"
    )
    return _finished(alt.layer(bar, rule, text), height=21 * len(values))


def _finished(chart: Any, height: int) -> Mapping[str, Any]:
    """Return a chart's specification with the page's look, as wide as its container."""
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict()
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    spec["config"] = {
        "background": None,
        "font": _FONT,
        "padding": {"left": 2, "right": 6, "top": 4, "bottom": 2},
        "view": {"stroke": None},
        "axis": {
            "labelColor": "var(--soft)",
            "labelFontSize": 11,
            "gridColor": "var(--line)",
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
            "labelFlush": False,
        },
    }
    return spec


@functools.cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one module that sets ``vegaEmbed``; slow."""
    import vl_convert

    # Browsers send no event when a module that a script added has run: it sends its own.
    code = "window.vegaEmbed = vegaEmbed; window.dispatchEvent(new Event('vega'));"
    bundle = str(vl_convert.javascript_bundle(code))
    assert "</script" not in bundle.lower()
    assert "<!--" not in bundle
    return bundle
