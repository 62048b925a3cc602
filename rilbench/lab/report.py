"""`results/nano/README.md` and its figures, from the committed rows and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.lab import report_tables as tables
from rilbench.lab.claims import CLAIMS
from rilbench.lab.experiment import Experiment, read_experiment
from rilbench.lab.grid_choice import Tuned, read_tuned
from rilbench.lab.lab_paths import Places
from rilbench.lab.plots import draw_all
from rilbench.lab.run_result import Row, read_rows, row_file
from rilbench.lab.style_probe import Styles, read_styles
from rilbench.lab.verdicts import Finding, findings
from rilbench.resources import resource

EXPERIMENTS = ("grid", "headline", "longer", "ablations")
"""The experiments of the report, in the order in which they run."""

_INTRODUCTION = """\
# The paper claims, the laboratory finds

Written by `rilbench lab report` from the files in `rows/`; do not edit. The rules were fixed before
the first run on test: [docs/protocol.md](../../docs/protocol.md). How to run it again:
[docs/lab.md](../../docs/lab.md). A verdict here is about the method on models of a million
parameters and look-alike benchmarks; it says nothing about the paper's own numbers.
"""

_READING = """\
Differences are in points of the mean over the 14 benchmarks. "In the paper" is the same difference
between rows of its tables, over its students and the benchmarks that both rows have. A cost ratio
is that of the better run (as claimed) to the other's, everything before the loop included. What the
paper does not claim stands here because its readers ask; then the verdict is "holds" or "does not
hold". A verdict on one student holds for that student only.
"""


@dataclass(frozen=True)
class _Material:
    """Everything that a report is made of."""

    experiments: Mapping[str, Experiment]
    rows: Mapping[str, Sequence[Row]]
    tuned: Tuned
    styles: Styles
    places: Places

    def pair(self, name: str) -> tuple[Experiment, Sequence[Row]]:
        return self.experiments[name], self.rows[name]

    def findings(self, name: str) -> list[Finding]:
        """Claim by claim, the students of each beside each other."""
        found = findings(*self.pair(name))
        return sorted(found, key=lambda each: CLAIMS.index(each.claim))


def write_report(places: Places | None = None) -> Path:
    """Write the README and the figures anew; figures that the rows no longer allow are removed.

    Raises:
        UserError: a row cannot be read, or rows that are compared do not fit.
    """
    places = places or Places()
    found = _material(places)
    for old in [*places.figures.glob("*.png"), *places.figures.glob("*.svg")]:
        old.unlink()
    draw_all(found.pair("headline"), found.pair("ablations"), places.figures)
    readme = places.results / "README.md"
    readme.parent.mkdir(parents=True, exist_ok=True)
    readme.write_text(_render(found), encoding="utf-8")
    return readme


def render(places: Places | None = None) -> str:
    """The README as `write_report` would write it."""
    return _render(_material(places or Places()))


def _material(places: Places) -> _Material:
    experiments = {
        name: read_experiment(resource(f"recipes/lab/{name}.yaml")) for name in EXPERIMENTS
    }
    rows = {name: read_rows(places.rows, name) for name in EXPERIMENTS}
    return _Material(
        experiments, rows, read_tuned(places.tuned), read_styles(places.styles), places
    )


def _render(found: _Material) -> str:
    titles = draw_all(found.pair("headline"), found.pair("ablations"), None)
    parts = [
        _INTRODUCTION,
        *_claims(found),
        *_figures(titles),
        *_scores(found),
        "## Teachers\n",
        "The RIL prompts are answered by sampling and judged by the judge of the loop, over the "
        "saved responses that the runs with that teacher alone drew; test is answered greedily and "
        "scored by the kit.\n",
        tables.teachers_table(*found.pair("headline")) + "\n",
        *_ablations(found),
        *_investigation(found),
        *_health(found),
        "## The grid's choice\n",
        "On dev questions and a dev seed; the headline's seeds and questions had no part in it.\n",
        tables.grid_table(found.tuned) + "\n",
        "## Runs that failed\n",
        tables.failures_table([row for rows in found.rows.values() for row in rows]) + "\n",
        *_missing(found),
    ]
    return "\n".join(parts)


def _claims(found: _Material) -> list[str]:
    headline, ablations = found.findings("headline"), found.findings("ablations")
    four = ", ".join(found.experiments["ablations"].benchmarks)
    return [
        "## The comparison with reinforcement learning, SFT and the teachers\n",
        tables.claims_table(headline) + "\n",
        _READING,
        "## Its parts (Table 5 and what it leaves open)\n",
        tables.claims_table(ablations) + "\n",
        f"Here the mean is over the paper's own four benchmarks of Tables 5c to 5f: {four}.\n",
    ]


def _figures(titles: Mapping[str, str]) -> list[str]:
    if not titles:
        return ["## Figures\n", "Not run yet.\n"]
    shown = [f"![{title}](figures/{name}.png)\n" for name, title in titles.items()]
    return [
        "## Figures\n",
        "Lines are means over seeds, bands go from the lowest to the highest seed; bars have 95 % "
        "intervals over seeds. Each is there as SVG, too.\n",
        *shown,
    ]


def _scores(found: _Material) -> list[str]:
    experiment, rows = found.pair("headline")
    parts = ["## Scores and costs\n"]
    for student in experiment.students:
        parts += [f"### {student}\n", tables.scores_table(experiment, rows, student) + "\n"]
    parts.append(
        "`-4` and `-8`: own rows of a question, G and 2G. Mean: ± half the 95 % interval over "
        "seeds. Costs are of one run; the shared collection is counted in full for every run that "
        "needs it, evaluation is not counted.\n"
    )
    return parts


def _ablations(found: _Material) -> list[str]:
    experiment, rows = found.pair("ablations")
    parts = ["## Ablations: scores and costs\n"]
    for student in experiment.students:
        parts += [f"### {student}\n", tables.ablations_table(experiment, rows, student) + "\n"]
    return parts


def _investigation(found: _Material) -> list[str]:
    experiment, rows = found.pair("longer")
    parts = [
        "## Why: longer runs, and what the style is worth\n",
        "What these two tables say is in [docs/findings.md](../../docs/findings.md). They are no "
        "part of the protocol, and on dev.\n",
        f"Answer reward of the student's own rows over {experiment.steps} steps, one seed; the "
        f"headline has {found.experiments['headline'].steps} steps.\n",
    ]
    for student in experiment.students:
        parts += [f"### Longer, {student}\n", tables.longer_table(experiment, rows, student) + "\n"]
    parts += [
        "### The style\n",
        "Before any training, sampled at temperature 1, in %. Opened: the model goes on from the "
        "first three words of the worked answer. Digits: those that the answer's first sentence "
        "names as the picture has them; chance is 10.\n",
        tables.styles_table(found.styles) + "\n",
    ]
    return parts


def _health(found: _Material) -> list[str]:
    parts = [
        "## Health of the game\n",
        "Means of the first three and the last three steps, over seeds.\n",
    ]
    parts += [
        "### The warnings on dev\n",
        "The grid's runs: how their score on dev changed from the untrained student's when "
        "`rilbench train` warned in any step, and when it did not. The thresholds come from these "
        "runs (`rilbench/train/health.py`).\n",
        tables.warnings_table(*found.pair("grid")) + "\n",
    ]
    for name in ("headline", "ablations"):
        experiment, rows = found.pair(name)
        for student in experiment.students:
            parts += [
                f"### {name}, {student}\n",
                tables.health_table(experiment, rows, student) + "\n",
            ]
    return parts


def _missing(found: _Material) -> list[str]:
    lines = []
    for name, experiment in found.experiments.items():
        jobs = experiment.jobs()
        missing = [
            job
            for job in jobs
            if not row_file(found.places.rows, name, job.student, job.spec.name, job.seed).exists()
        ]
        if missing:
            lines.append(f"- {name}: {len(missing)} of {len(jobs)} runs are missing")
        lines += [f"- {what}: {why}" for what, why in experiment.not_run.items()]
    return ["## Not run\n", "\n".join(lines) + "\n"]
