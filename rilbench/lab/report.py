"""Writes `results/nano/README.md` and its plots from the committed run results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.lab import report_tables as tables
from rilbench.lab.claims import CLAIMS
from rilbench.lab.experiment import Experiment, read_experiment
from rilbench.lab.grid_choice import read_tuned
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.plots import FOREST, FOREST_TITLE, draw_forest, draw_plots, plot_titles
from rilbench.lab.run_result import RunResult, read_results, result_file
from rilbench.lab.style_probe import read_styles
from rilbench.lab.verdicts import ClaimResult, judge_claims
from rilbench.resources import resource

EXPERIMENTS = ("grid", "headline", "longer", "ablations")
"""The experiments of the report, in the order in which they run."""

_INTRODUCTION = """\
# Paper claims vs. nano sandbox results

Written by `rilbench lab report` from the files in `runs/`; do not edit. The rules were fixed before
the first run on test: [docs/protocol.md](../../docs/protocol.md). How to run it again:
[docs/lab.md](../../docs/lab.md). A verdict here is about the method on models of a million
parameters and synthetic benchmarks. It says nothing about the paper's own numbers.
"""

_FRONT = """\
Points of the mean over {count} benchmarks, RIL with both teachers minus the other; the intervals
are below.
"""

_READING = """\
Differences are in points of the mean over the {count} benchmarks. "In the paper" is the same
difference between rows of its tables, over its students and the benchmarks that both rows have. A
cost ratio divides the better run (as claimed) by the other, everything before the loop included.
Claims that are not in the paper are questions of its readers; their verdict is "yes", "no, the
opposite" or "no difference". "Reproduced" is kept for the paper's own models. A verdict on one
student holds for that student only.
"""


@dataclass(frozen=True)
class _ReportData:
    """The experiments with their results, by name."""

    experiments: Mapping[str, Experiment]
    results: Mapping[str, Sequence[RunResult]]
    paths: LabPaths

    def pair(self, name: str) -> tuple[Experiment, Sequence[RunResult]]:
        return self.experiments[name], self.results[name]

    def claims(self, name: str) -> list[ClaimResult]:
        """Claim by claim, the students next to each other."""
        judged = judge_claims(*self.pair(name))
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
    draw_forest(data.claims("headline"), paths.figures)
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
            *_ablations(data),
            *_investigation(data),
            *_health(data),
            "## The grid's choice\n",
            "On dev questions and a dev seed; the headline uses other seeds and questions.\n",
            tables.grid_table(read_tuned(data.paths.tuned)) + "\n",
            "## Runs that failed\n",
            tables.failures_table(every_result) + "\n",
            *_missing(data),
        ]
    )


def front_table(paths: LabPaths | None = None) -> str:
    """The answers to a reader's first questions, as the project's README quotes them."""
    return _front_table(_read(paths or LabPaths()))


def _front_table(data: _ReportData) -> str:
    return tables.questions_table(data.claims("headline"), data.experiments["headline"].students)


def _front(data: _ReportData) -> list[str]:
    count = len(data.experiments["headline"].benchmarks)
    parts = [_front_table(data) + "\n", _FRONT.format(count=count)]
    if any(result.seeds for result in data.claims("headline")):
        parts.append(f"![{FOREST_TITLE}](figures/{FOREST}.png)\n")
    return parts


def _claims(data: _ReportData) -> list[str]:
    ablations = data.experiments["ablations"].benchmarks
    return [
        "## RIL compared with reinforcement learning, SFT and the teachers\n",
        tables.claims_table(data.claims("headline")) + "\n",
        _READING.format(count=len(data.experiments["headline"].benchmarks)),
        "## Parts of the method (Table 5, and what the paper leaves open)\n",
        tables.claims_table(data.claims("ablations")) + "\n",
        f"Here the mean is over the paper's own benchmarks of Tables 5c to 5f: "
        f"{', '.join(ablations)}.\n",
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
    experiment, results = data.pair("headline")
    parts = ["## Scores and costs\n"]
    for student in experiment.students:
        table = tables.scores_table(experiment, results, student)
        parts += [f"### {student}\n", table + "\n"]
    return [
        *parts,
        "`-4` and `-8`: student responses for each question, G and 2G. Mean: ± half the 95 % "
        "interval over seeds. Costs are those of one run. The shared collection is counted in full "
        "for every run that needs it; evaluation is not counted.\n",
        "## Teachers\n",
        "RIL prompts: sampled answers, judged by the judge of the loop, over the saved responses "
        "that the runs with that teacher alone used. Test: greedy answers, scored by the kit.\n",
        tables.teachers_table(experiment, results) + "\n",
    ]


def _ablations(data: _ReportData) -> list[str]:
    experiment, results = data.pair("ablations")
    parts = ["## Ablations: scores and costs\n"]
    for student in experiment.students:
        table = tables.ablations_table(experiment, results, student)
        parts += [f"### {student}\n", table + "\n"]
    return parts


def _investigation(data: _ReportData) -> list[str]:
    experiment, results = data.pair("longer")
    parts = [
        "## Why: longer runs, and what the style is worth\n",
        "[docs/findings.md](../../docs/findings.md) discusses these two tables. They are on dev "
        "and not a part of the protocol.\n",
        f"Answer reward of the student's responses over {experiment.steps} steps, one seed; the "
        f"headline has {data.experiments['headline'].steps} steps.\n",
    ]
    for student in experiment.students:
        table = tables.longer_table(experiment, results, student)
        parts += [f"### Longer, {student}\n", table + "\n"]
    return [
        *parts,
        "### The style\n",
        "Before any training, sampled at temperature 1, in %. Opened: the model continues the "
        "first three words of the worked answer. Digits: share of the digits in the answer's first "
        "sentence that are those of the picture; chance is 10.\n",
        tables.styles_table(read_styles(data.paths.styles)) + "\n",
    ]


def _health(data: _ReportData) -> list[str]:
    parts = [
        "## Health of training\n",
        "Means of the first three and the last three steps, over seeds.\n",
        "### The warnings on dev\n",
        "The grid's runs: change of their score on dev from the untrained student's, for runs in "
        "which `rilbench train` warned in any step, and for the others. The thresholds come from "
        "these runs (`rilbench/train/health.py`).\n",
        tables.warnings_table(*data.pair("grid")) + "\n",
    ]
    for name in ("headline", "ablations"):
        experiment, results = data.pair(name)
        for student in experiment.students:
            table = tables.health_table(experiment, results, student)
            parts += [f"### {name}, {student}\n", table + "\n"]
    return parts


def _missing(data: _ReportData) -> list[str]:
    lines = []
    for name, experiment in data.experiments.items():
        jobs = experiment.jobs()
        files = [
            result_file(data.paths.runs, name, job.student, job.spec.name, job.seed) for job in jobs
        ]
        missing = sum(not file.exists() for file in files)
        if missing:
            lines.append(f"- {name}: {missing} of {len(jobs)} runs are missing")
        lines += [f"- {what}: {why}" for what, why in experiment.not_run.items()]
    return ["## Not run\n", "\n".join(lines) + "\n"]
