"""The charts: Vega-Lite specifications made with Altair, in the page's colours.

Colours are the page's CSS variables, so one specification serves light and dark. Names come from
labels, which are hostile: they are put into data and titles, never into a field or an expression.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rilbench.ledger import Run
from rilbench.paths import cache_folder
from rilbench.report.escaping import label
from rilbench.report.scores import COLOURS, MEAN, ScoreRow, score_columns
from rilbench.table import rounding

_MOST_POINTS = 1500
"""A longer curve is thinned to every n-th step."""

_FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', sans-serif"

_TICK = "format(datum.value, datum.value && abs(datum.value) < 0.001 ? '~e' : '~g')"
"""The format of an axis' numbers: 0.002, but 2e-4."""

_MOST_NAMED = 4
"""Lines whose last values are beside a chart's heading."""

NO_COLOURS: Mapping[str, str] = {}

_LABEL_WIDTH = 40
"""Characters of a label's line, which stands above its bar; longer ones are broken."""
_LABEL_LINE, _BAR = 13, 13
"""Heights in pixels."""


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
        axis: the title of its axis.
        student: the name of the student's values in the run's curves.
        teacher: the name of the teachers' values; empty if there are none.
        note: its meaning.
        top: the end of the axis; None for the data's.
        at: where a horizontal line marks chance level.
        digits: number format.
    """

    name: str
    axis: str
    student: str
    teacher: str = ""
    note: str = ""
    top: float | None = None
    at: float | None = None
    digits: str = ".2f"


_SHARE = "share of responses"
_CURVES = (
    _Curve("Answer reward", _SHARE, "answer_reward_student", "answer_reward_teacher", top=1.0),
    _Curve(
        "Similarity reward",
        _SHARE,
        "similarity_reward_student",
        "similarity_reward_teacher",
        top=1.0,
    ),
    _Curve(
        "Discriminator accuracy",
        _SHARE,
        "discriminator_accuracy",
        note="chance 0.5",
        top=1.0,
        at=0.5,
    ),
    _Curve("Discriminator score", "score", "discriminator_score_student"),
    _Curve("KL to the start", "KL divergence", "kl"),
    _Curve("Reverse KL to the teacher", "nats of a token", "teacher_kl"),
    _Curve("Length", "tokens", "tokens_student", "tokens_teacher", digits=".1f"),
    _Curve("Entropy", "entropy", "entropy"),
    _Curve("Learning rate", "learning rate", "learning_rate", digits=".1e"),
    _Curve("Accuracy on dev", "share of questions", "dev_accuracy", top=1.0),
    _Curve("Groups without signal", "share of groups", "groups_without_signal", top=1.0),
)


def curve_charts(runs: Sequence[Run], colours: Mapping[str, str] = NO_COLOURS) -> list[Chart]:
    """Return one chart for each metric that a run has; several runs share a chart.

    Args:
        runs: with their curves.
        colours: of the models that they trained, by the run's path; others get one each.
    """
    charts = []
    for curve in _CURVES:
        series = _series(curve, runs, colours)
        drawn = {line: points for line, points in series.items() if points}
        if drawn:
            charts.append(_curve_chart(curve, drawn))
    return charts


def curve_legend(runs: Sequence[Run], colours: Mapping[str, str] = NO_COLOURS) -> list[LegendEntry]:
    """Return the legend of `curve_charts`."""
    if len(runs) == 1:
        return [
            LegendEntry(label="student", colour=_colour(runs, 0, colours)),
            LegendEntry(label="teachers", colour="var(--teacher)", dashed=True),
        ]
    return [
        *(
            LegendEntry(label=name, colour=_colour(runs, n, colours))
            for n, name in enumerate(_names(runs))
        ),
        LegendEntry(label="their teachers", colour="var(--soft)", dashed=True),
    ]


def _colour(runs: Sequence[Run], number: int, colours: Mapping[str, str]) -> str:
    return colours.get(runs[number].path, COLOURS[number % len(COLOURS)])


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the runs' names; those of one name with their place among the runs."""
    times = Counter(run.name for run in runs)
    return [
        label(run.name if times[run.name] == 1 else f"{run.name} ({number})")
        for number, run in enumerate(runs, start=1)
    ]


def _series(
    curve: _Curve, runs: Sequence[Run], colours: Mapping[str, str]
) -> dict[LegendEntry, list[tuple[int, float]]]:
    """Return the points (step, value) of each line of a chart."""
    series = {}
    for number, (run, own) in enumerate(zip(runs, _names(runs), strict=True)):
        name = f"{own} " if len(runs) > 1 else ""
        sides = [("student" if curve.teacher else "", curve.student, False)]
        if curve.teacher:
            sides.append(("teachers", curve.teacher, True))
        for side, values, dashed in sides:
            colour = (
                "var(--teacher)" if dashed and len(runs) == 1 else _colour(runs, number, colours)
            )
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
    last = {line.label: points[-1][1] for line, points in series.items()}
    words = ", ".join(f"{name} {format(value, curve.digits)}" for name, value in last.items())
    shown = words.removeprefix("value ")
    shown = f"last {shown}" if len(last) <= _MOST_NAMED else ""
    note = " · ".join(part for part in (shown, curve.note) if part)
    steps = max(points[-1][0] for points in series.values())
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
        {"step": step, "value": value, "key": key, "line": line.label}
        for key, (line, points) in zip(keys, series.items(), strict=True)
        for step, value in points
    ]
    steps = alt.X(
        "step:Q",
        title="step",
        axis=alt.Axis(grid=False, tickCount=5, format="d"),
        scale=alt.Scale(domain=[0, max(row["step"] for row in rows)], nice=False),
    )
    top = [0.0, curve.top] if curve.top is not None else alt.Undefined
    values = alt.Y(
        "value:Q",
        title=curve.axis,
        scale=alt.Scale(domain=top, nice=curve.top is None, zero=True),
        axis=alt.Axis(tickCount=4, labelExpr=_TICK),
    )
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=steps)
    # By label, not by key, for the legend of a chart that is saved as a file.
    names = [line.label for line in lines]
    colour = alt.Scale(domain=names, range=[line.colour for line in lines])
    dash = alt.Scale(domain=names, range=[[4, 3] if line.dashed else [1, 0] for line in lines])
    # A curve of a few values, such as dev accuracy, is lost without its points.
    few = len(rows) <= 12 * len(lines)
    drawn = base.mark_line(strokeWidth=1.8, point={"size": 22} if few else False).encode(
        y=values,
        color=alt.Color("line:N", scale=colour, legend=None),
        strokeDash=alt.StrokeDash("line:N", scale=dash, legend=None),
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
    """Return a chart of the means, of their changes, and of each measured benchmark.

    Args:
        rows: measured rows, a bar each, with its interval.
        paper: rows of the paper to compare with; those without levels have a bar of their change.
    """
    charts = []
    columns = [(MEAN, "Mean"), *((name, name) for name in score_columns(rows) if name != MEAN)]
    for column, name in columns:
        bars = [_bar(row, row.cell(column).value, column) for row in (*rows, *paper)]
        charts += _bar_chart(name, "score, points of 100", bars, top=100.0)
        if column == MEAN:
            bars = [_bar(row, row.cell(column).difference, "") for row in (*rows, *paper)]
            charts += _bar_chart("Change of the mean", "points from the start", bars)
    return charts


def _bar(row: ScoreRow, value: float | None, column: str) -> dict[str, Any] | None:
    """Return a bar of a row's value; with the interval of a column's score, if one is given."""
    if value is None:
        return None
    cell = row.cell(column)
    low, high = (None if end is None else round(end, 2) for end in (cell.low, cell.high))
    return {
        "label": row.label if row.role else f"paper {row.label}",
        "colour": row.colour,
        "value": round(value, 2),
        "low": low,
        "high": high,
        "text": rounding.number(value) if column else rounding.signed(value),
    }


def _bar_chart(
    name: str, axis: str, bars: Sequence[dict[str, Any] | None], top: float | None = None
) -> list[Chart]:
    """Return the chart of those bars that have a value; none if no measured row has one."""
    shown = [bar for bar in bars if bar is not None]
    if all(bar["colour"] == "var(--paper)" for bar in shown):
        return []
    number = rounding.number
    words = "; ".join(
        f"{bar['label']} {bar['text']}"
        + (f" ({number(bar['low'])} to {number(bar['high'])})" if bar["low"] is not None else "")
        for bar in shown
    )
    spec = _bar_spec(shown, axis, top)
    return [Chart(name=name, note="", summary=f"{name}: {words}", spec=spec)]


def _bar_spec(bars: Sequence[dict[str, Any]], axis: str, top: float | None) -> Mapping[str, Any]:
    import altair as alt

    broken = [textwrap.wrap(bar["label"], _LABEL_WIDTH) or [""] for bar in bars]
    ends = [(min(0, b["value"], b["low"] or 0), max(0, b["value"], b["high"] or 0)) for b in bars]
    rows = [
        {**bar, "row": number, "shown": "\n".join(lines), "end": high}
        for number, (bar, lines, (_, high)) in enumerate(zip(bars, broken, ends, strict=True))
    ]
    # Room for the number beside the longest bar.
    least, most = min(low for low, _ in ends), top or max(high for _, high in ends)
    scale = alt.Scale(domain=[least, most + 0.22 * ((most - least) or 1.0)], nice=False)
    marks = [0, 50, 100] if top else alt.Undefined
    place = alt.Scale(paddingInner=0, paddingOuter=0)
    base = alt.Chart(alt.InlineData(values=rows)).encode(y=alt.Y("row:O", axis=None, scale=place))
    tooltip = [
        alt.Tooltip("label:N", title="model"),
        alt.Tooltip("value:Q", title=axis.partition(",")[0], format=".1f"),
        alt.Tooltip("low:Q", title="95 % from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
    ]
    step = _LABEL_LINE * max(map(len, broken)) + _BAR + 9
    middle = step / 2 - _BAR / 2 - 4
    ticks = alt.Axis(values=marks, title=axis, grid=True, tickCount=4)
    bar = base.mark_bar(size=_BAR, yOffset=middle, cornerRadiusEnd=2).encode(
        x=alt.X("value:Q", scale=scale, axis=ticks),
        color=alt.Color("colour:N", scale=None),
        tooltip=tooltip,
    )
    names = base.mark_text(
        align="left", baseline="top", yOffset=2 - step / 2, lineBreak="\n", color="var(--ink)"
    ).encode(x=alt.datum(least), text="shown:N")
    # An edge in the colour of the page: the line is seen on a bar of any colour.
    whiskers = [
        base.mark_rule(color=f"var(--{colour})", strokeWidth=width, yOffset=middle).encode(
            x="low:Q", x2="high:Q"
        )
        for colour, width in (("panel", 3.5), ("ink", 1.5))
    ]
    text = base.mark_text(align="left", dx=5, yOffset=middle, color="var(--ink)").encode(
        x="end:Q", text="text:N"
    )
    return _finished(alt.layer(bar, *whiskers, names, text), height=step * len(rows))


def _finished(chart: Any, height: int) -> Mapping[str, Any]:
    """Return a chart's specification with the page's look, as wide as its container."""
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict(
        validate=False
    )
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
            "titleColor": "var(--soft)",
            "titleFontSize": 11,
            "titleFontWeight": "normal",
        },
    }
    return spec


# Browsers send no event when a module that a script added has run: it sends its own.
_CODE = "window.vegaEmbed = vegaEmbed; window.dispatchEvent(new Event('vega'));"


@functools.cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one module that sets ``vegaEmbed``.

    Making it takes seconds; it is kept in the user's cache (`kept_javascript`).
    """
    if kept := kept_javascript():
        return kept
    import vl_convert

    bundle = str(vl_convert.javascript_bundle(_CODE))
    assert "</script" not in bundle.lower()
    assert "<!--" not in bundle
    file = _kept_file()
    part = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):  # then it is made again the next time
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(bundle, encoding="utf-8")
        part.replace(file)
    return bundle


def kept_javascript() -> str:
    """Return what `javascript` made before, by this version of vl-convert; "" before the first."""
    with suppress(OSError):
        return _kept_file().read_text(encoding="utf-8")
    return ""


def _kept_file() -> Path:
    made_by = f"{version('vl-convert-python')} {_CODE}"
    digest = hashlib.blake2b(made_by.encode(), digest_size=6).hexdigest()
    return cache_folder() / f"charts-{digest}.js"
