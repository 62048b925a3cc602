"""Writes `results/nano/README.md` and its plots from the committed run results alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.lab import report_tables as tables
from rilbench.lab.claims import CLAIMS, PAPER
from rilbench.lab.experiment import Experiment, read_experiment
from rilbench.lab.grid_choice import read_tuned
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.mechanisms import MEASURES, read_mechanisms
from rilbench.lab.plots import (
    FOREST,
    FOREST_TITLE,
    MECHANISMS,
    MECHANISMS_TITLE,
    draw_forest,
    draw_mechanisms,
    draw_plots,
    plot_titles,
)
from rilbench.lab.run_result import RunResult, read_results, result_file
from rilbench.lab.verdicts import (
    RL_GAIN,
    SFT_GAIN,
    ClaimResult,
    Controls,
    judge_claims,
    regime_controls,
)
from rilbench.resources import resource

EXPERIMENTS = ("grid", "pilot", "headline", "regimes", "ablations", "replication", "verl")
"""The experiments of the report, in the order in which they run."""
COMPARED = ("headline", "regimes", "replication")
"""Those that compare RIL with other methods."""

_INTRODUCTION = """\
# Paper claims vs. nano sandbox results

Written by `rilbench lab report` from the files in `runs/`; do not edit. The rules were fixed before
the first run on test: [docs/protocol.md](../../docs/protocol.md). How to run it again, and what
the regimes are: [docs/lab.md](../../docs/lab.md). Why it came out so, as far as we know:
[docs/findings.md](../../docs/findings.md). A verdict here is about the method on models of a
million parameters and synthetic benchmarks. It says nothing about the paper's own numbers, and none
of them has been reproduced.
"""

_FRONT = """\
Points of the mean over {count} benchmarks, RIL with both teachers minus the other; the intervals
are below.
"""

_READING = """\
Differences are in points of the mean over the {count} benchmarks. "In the paper" is the same
difference between rows of its tables, over its students and the benchmarks that both rows have.
"Would have seen" is the smallest difference that so many seeds find with a chance of 80 %. A cost
ratio divides the better run (as claimed) by the other, everything before the loop included. Claims
that are not in the paper are questions of its readers; their verdict is "yes", "no, the opposite"
or "no difference".
"""

_CONTROLS = """\
A regime counts only where SFT gains at least {sft:g} points and one other method at least {rl:g},
with intervals above 0: otherwise there is nothing that a method could be better at.
"""

_AGAIN = """\
{seeds} new seeds each, planned after the verdicts above and before the first of them was run. A
verdict here is about the new seeds alone, and stands in place of the "cannot tell" above.
"""


@dataclass(frozen=True)
class _ReportData:
    """The experiments with their results, by name."""

    experiments: Mapping[str, Experiment]
    results: Mapping[str, Sequence[RunResult]]
    paths: LabPaths

    def pair(self, name: str) -> tuple[Experiment, Sequence[RunResult]]:
        return self.experiments[name], self.results[name]

    def controls(self) -> dict[str, Controls]:
        """Of every regime that was run on test."""
        return {
            regime: found
            for name in ("headline", "regimes")
            for regime, found in regime_controls(*self.pair(name)).items()
        }

    def claims(self, *names: str) -> list[ClaimResult]:
        """The claims of some experiments, in their order."""
        controls = self.controls()
        judged = [each for name in names for each in judge_claims(*self.pair(name), controls)]
        return sorted(judged, key=lambda result: CLAIMS.index(result.claim))


def write_report(paths: LabPaths | None = None) -> Path:
    """Write the README and the plots, and remove plots that the results no longer allow.

    Raises:
        UserError: a result cannot be read, or compared runs were asked different questions.
    """
    paths = paths or LabPaths()
    data = _read(paths)
    for old in [*paths.figures.glob("*.png"), *paths.figures.glob("*.svg")]:
        old.unlink()
    draw_plots(data.pair("headline"), data.pair("ablations"), paths.figures)
    draw_forest(data.claims(*COMPARED), paths.figures)
    draw_mechanisms(read_mechanisms(paths.mechanisms), paths.figures)
    readme = paths.results / "README.md"
    readme.write_text(_render(data), encoding="utf-8")
    return readme


def render(paths: LabPaths | None = None) -> str:
    """Return the README as `write_report` would write it."""
    return _render(_read(paths or LabPaths()))


def _read(paths: LabPaths) -> _ReportData:
    return _ReportData(
        {name: read_experiment(resource(f"recipes/lab/{name}.yaml")) for name in EXPERIMENTS},
        {name: read_results(paths.runs, name) for name in EXPERIMENTS},
        paths,
    )


def _render(data: _ReportData) -> str:
    every_result = [result for results in data.results.values() for result in results]
    return "\n".join(
        [
            _INTRODUCTION,
            *_front(data),
            *_claims(data),
            *_plots(data),
            *_scores(data),
            *_mechanisms(data),
            *_two_teachers(data),
            *_engines(data),
            *_planning(data),
            *_health(data),
            "## Runs that failed\n",
            tables.failures_table(every_result) + "\n",
            *_missing(data),
        ]
    )


def front_table(paths: LabPaths | None = None) -> str:
    """The answers to a reader's first questions, as the project's README quotes them."""
    return _front_table(_read(paths or LabPaths()))


def _front_table(data: _ReportData) -> str:
    return tables.questions_table(data.claims(*COMPARED))


def neighbours_table(paths: LabPaths | None = None) -> str:
    """RIL minus each other method at the paper's distance, and what it cost: docs/neighbours.md."""
    head = (
        "RIL minus",
        "RIL beats it?",
        "points",
        "over seeds, 95 %",
        "CPU time, ratio",
        "tokens, ratio",
    )
    rows = [
        (
            *(f"`{result.claim.worse}`", result.text),
            tables.signed(result.seeds.mean),
            tables.interval_text(result.seeds),
            tables.decimals(result.seconds, 2),
            tables.decimals(result.tokens, 2),
        )
        for result in _read(paths or LabPaths()).claims("headline")
        if result.claim.better == "ril" and not result.claim.reaches and result.seeds is not None
    ]
    return tables.markdown(head, rows, texts=2)


def _front(data: _ReportData) -> list[str]:
    count = len(data.experiments["headline"].benchmarks)
    parts = [_front_table(data) + "\n", _FRONT.format(count=count)]
    if any(result.seeds for result in data.claims(*COMPARED)):
        parts.append(f"![{FOREST_TITLE}](figures/{FOREST}.png)\n")
    return parts


def _claims(data: _ReportData) -> list[str]:
    return [
        "## Regimes\n",
        tables.controls_table(data.controls()) + "\n",
        _CONTROLS.format(sft=SFT_GAIN, rl=RL_GAIN),
        "## RIL compared with reinforcement learning, SFT, its teachers, and without D\n",
        tables.claims_table(data.claims("headline", "regimes")) + "\n",
        _READING.format(count=len(data.experiments["headline"].benchmarks)),
        "## What those seeds could not tell, asked again\n",
        _AGAIN.format(seeds=len(data.experiments["replication"].seeds)),
        tables.claims_table(data.claims("replication")) + "\n",
        "## Parts of the method (Table 5, and what the paper leaves open)\n",
        tables.claims_table(data.claims("ablations")) + "\n",
    ]


def _plots(data: _ReportData) -> list[str]:
    titles = plot_titles(data.pair("headline"), data.pair("ablations"))
    if not titles:
        return ["## Plots\n", "Not run yet.\n"]
    return [
        "## Plots\n",
        "Lines are means over seeds, and bands go from the lowest to the highest seed. Bars have "
        "95 % intervals over seeds. Each plot is also there as SVG.\n",
        *[f"![{title}](figures/{name}.png)\n" for name, title in titles.items()],
    ]


def _scores(data: _ReportData) -> list[str]:
    parts = ["## Scores and costs\n"]
    for name in COMPARED:
        experiment, results = data.pair(name)
        for regime in experiment.regimes:
            heading = f"{regime}, again" if name == "replication" else regime
            parts += [f"### {heading}\n", tables.scores_table(experiment, results, regime) + "\n"]
    experiment, results = data.pair("ablations")
    for regime in experiment.regimes:
        table = tables.ablations_table(experiment, results, regime)
        parts += [f"### Ablations, {regime}\n", table + "\n"]
    engines = Counter(r.engine for results in data.results.values() for r in results if r.method)
    made = ", ".join(f"{count} runs by the {name} engine" for name, count in engines.items())
    return [
        *parts,
        "`-4` and `-8`: student responses for each question, G and 2G. Mean: ± half the 95 % "
        "interval over seeds. Costs are those of one run. The shared collection is counted in full "
        f"for every run that needs it; evaluation is not counted. {made or 'No run yet'}.\n",
    ]


def _mechanisms(data: _ReportData) -> list[str]:
    found = read_mechanisms(data.paths.mechanisms)
    if not found:
        return []
    meaning = "; ".join(f"{name.replace('_', ', ')}: {text}" for name, text in MEASURES.items())
    parts = [
        "## Why, from the recorded responses\n",
        "Means over seeds of the first three and the last three steps, of runs that differ in the "
        f"reward of teacher responses alone. {meaning[0].upper()}{meaning[1:]}. "
        "[docs/findings.md](../../docs/findings.md) reads them.\n",
        tables.mechanisms_table(found) + "\n",
    ]
    if PAPER in found:
        parts.insert(1, f"![{MECHANISMS_TITLE}](figures/{MECHANISMS}.png)\n")
    return parts


def _two_teachers(data: _ReportData) -> list[str]:
    regime = "complementary"
    models, results = data.pair("regimes")
    trained = data.pair("replication")
    kept = [result for result in results if not result.method]
    return [
        "## What one teacher teaches of what it does not know\n",
        f"Means over the halves of the benchmarks in `{regime}`: those that one teacher answers "
        "without looking, and those of the other; `ril` learns from both.\n",
        tables.blind_benchmarks_table(regime, (models, kept), trained) + "\n",
    ]


def _engines(data: _ReportData) -> list[str]:
    return [
        "## The same runs through verl\n",
        "The fast engine made the rows above; verl is the product's path. Its scores should lie in "
        "the 95 % prediction interval of the fast engine's seeds.\n",
        tables.engines_table(data.pair("headline"), data.pair("verl")) + "\n",
    ]


def _planning(data: _ReportData) -> list[str]:
    families = Counter(
        (claim.experiment, claim.regime, spec.part)
        for claim in CLAIMS
        for spec in data.experiments[claim.experiment].runs
        if spec.name == claim.worse and claim.experiment != "ablations"
    )
    return [
        "## Planning, on dev\n",
        f"The seeds with which a difference of {tables.EFFECT} points is found with a chance of "
        "80 %, at the spread of the pilot's seeds: for one claim alone, and for the strictest test "
        "of the largest family.\n",
        tables.power_table(*data.pair("pilot"), max(families.values())) + "\n",
        "The grid's choice, with another seed.\n",
        tables.grid_table(read_tuned(data.paths.tuned)) + "\n",
    ]


def _health(data: _ReportData) -> list[str]:
    parts = [
        "## Health of training\n",
        "Means of the first three and the last three steps, over seeds.\n",
        "### The warnings on dev\n",
        "The grid's runs: change of their score on dev from the untrained student's, for runs in "
        "which `rilbench train` warned in any step, and for the others.\n",
        tables.warnings_table(*data.pair("grid")) + "\n",
    ]
    for name in (*COMPARED, "ablations"):
        experiment, results = data.pair(name)
        for regime in experiment.regimes:
            table = tables.health_table(experiment, results, regime)
            parts += [f"### {name}, {regime}\n", table + "\n"]
    return parts


def _missing(data: _ReportData) -> list[str]:
    lines = []
    for name, experiment in data.experiments.items():
        jobs = experiment.jobs()
        files = [
            result_file(data.paths.runs, name, job.regime, job.spec.name, job.seed) for job in jobs
        ]
        missing = sum(not file.exists() for file in files)
        if missing:
            lines.append(f"- {name}: {missing} of {len(jobs)} runs are missing")
        lines += [f"- {what}: {why}" for what, why in experiment.not_run.items()]
    return ["## Not run\n", "\n".join(lines) + "\n"]
