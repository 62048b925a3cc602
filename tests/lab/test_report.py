import re
from pathlib import Path

import pytest

from rilbench.lab.claims import CLAIMS
from rilbench.lab.experiment import read_experiment
from rilbench.lab.grid_choice import choose, write_tuned
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.report import EXPERIMENTS, render, write_report
from rilbench.lab.run_result import read_results, write_result
from rilbench.resources import resource
from rilbench.stats import seeds_needed

HEADLINE = read_experiment(resource("recipes/lab/headline.yaml"))
JOBS = {
    name: len(read_experiment(resource(f"recipes/lab/{name}.yaml")).jobs()) for name in EXPERIMENTS
}
ROOT = Path(__file__).parents[2]
COMMITTED = LabPaths(results=ROOT / "results" / "nano")


def fill(paths, make_result, keep=lambda job: True):
    """Rows of all experiments, as if they had been run."""
    for name in EXPERIMENTS:
        experiment = read_experiment(resource(f"recipes/lab/{name}.yaml"))
        for job in filter(keep, experiment.jobs()):
            level = {"ril": 0.8, "sft": 0.75}.get(job.spec.method, 0.65)
            write_result(make_result(job, {}, level=level), paths.runs)
        if name == "grid":
            write_tuned(choose(experiment, read_results(paths.runs, name)), paths.tuned)


@pytest.fixture
def paths(tmp_path):
    return LabPaths(results=tmp_path / "results", work=tmp_path / "work")


def test_the_committed_readme_is_what_its_results_say():
    """No cell is typed by hand."""
    assert (COMMITTED.results / "README.md").read_text(encoding="utf-8") == render(COMMITTED)


def test_the_committed_figures_are_those_of_the_readme():
    readme = (COMMITTED.results / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\]\(figures/([\w-]+)\.png\)", readme))
    for suffix in ("png", "svg"):
        assert {path.stem for path in COMMITTED.figures.glob(f"*.{suffix}")} == shown


def test_without_results_it_says_so(paths):
    readme = write_report(paths).read_text(encoding="utf-8")
    assert readme.startswith("# Paper claims vs. nano sandbox results\n")
    assert "| question | in the paper |" in readme.split("##")[0], "the answers come first"
    assert readme.count("**not run yet**") == len(CLAIMS)
    assert f"headline: {JOBS['headline']} of {JOBS['headline']} runs are missing" in readme
    assert "RIL after distillation" in readme
    assert not re.search(r"\d\.\d ±", readme)
    assert not list(paths.results.rglob("*.png"))


def test_with_a_part_of_the_results_it_says_which(paths, make_result):
    fill(
        paths,
        make_result,
        keep=lambda job: (
            job.seed in (0, HEADLINE.seeds[0]) and job.experiment not in ("ablations", "regimes")
        ),
    )
    readme = write_report(paths).read_text(encoding="utf-8")
    assert f"cannot tell (1 of {len(HEADLINE.seeds)} seeds so far)" in readme
    assert "headline: 187 of 207 runs are missing" in readme
    assert f"ablations: {JOBS['ablations']} of {JOBS['ablations']} runs are missing" in readme
    assert "ablations-paper" not in readme
    assert "| paper | not run yet |" in readme, "no controls before all seeds have finished"


@pytest.fixture(scope="module")
def full(tmp_path_factory, make_result):
    root = tmp_path_factory.mktemp("full")
    paths = LabPaths(results=root / "results", work=root / "work")
    fill(paths, make_result)
    write_report(paths)
    return paths


def test_with_all_results_every_claim_has_its_numbers(full):
    readme = (full.results / "README.md").read_text(encoding="utf-8")
    assert "not run yet" not in readme
    assert (
        "| RIL beats Dr.GRPO with 2G student responses | Table 1 | +3.2 to +5.9 (5 students) |"
        in readme
    )
    assert "**same direction" in readme
    lines = re.findall(r"^\| ril \| (?:12|8) \| .* ± .*$", readme, re.M)
    assert len(lines) == 6, "one for each regime"
    for line in lines:
        assert len(line.split("|")) == 2 + 3 + 14 + 6, "mean, 14 benchmarks, six costs"
    for run in (r"teacher-72b \| 1", r"ril \| 32", r"ril-78b \| 32"):
        assert re.search(rf"^\| {run} \| \d+\.\d \| \d+\.\d \|$", readme, re.M), run
    assert readme == render(full)


def test_a_changed_result_changes_the_report(full, make_result):
    experiment = read_experiment(resource("recipes/lab/headline.yaml"))
    job = next(job for job in experiment.jobs() if job.spec.name == "ril")
    before = render(full)
    write_result(make_result(job, {}, level=0.2), full.runs)
    changed = render(full)
    write_result(make_result(job, {}, level=0.8), full.runs)
    assert changed != before
    assert render(full) == before


def test_figures_are_the_same_bytes_again_and_stale_ones_go(full):
    first = {path.name: path.read_bytes() for path in full.figures.iterdir()}
    assert {Path(name).stem for name in first} == {
        *("rewards-paper", "benchmarks-paper", "ablations-paper", "forest"),
    }
    (full.figures / "old.png").touch()
    write_report(full)
    assert {path.name: path.read_bytes() for path in full.figures.iterdir()} == first


def test_figures_show_what_the_results_say(full):
    """The SVG keeps its texts: names of runs and benchmarks can be read in it."""
    bars = (full.figures / "benchmarks-paper.svg").read_text(encoding="utf-8")
    for text in ("ril", "untrained", "MMStar", "SEED2+"):
        assert text in bars
    ablations = (full.figures / "ablations-paper.svg").read_text(encoding="utf-8")
    assert "teacher-rows-off" in ablations
    assert "dc:date" not in bars


def test_scores_through_verl_are_placed_in_the_fast_engines_interval(full):
    readme = (full.results / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| paper \| (?:ril|teacher-bonus|dr-grpo-8) \| .* of 3 \|$", readme, re.M)
    assert len(lines) == 3
    scores, interval = lines[0].split("|")[3:5]
    low, high = map(float, interval.split(" to "))
    inside = sum(low <= float(score) <= high for score in scores.split(","))
    assert f"| {inside} of 3 |" in lines[0]


def test_the_planning_says_how_many_seeds_the_pilots_spread_needs(full):
    readme = (full.results / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\| RIL minus sft \| paper \| 4 \| .*$", readme, re.M)
    sd, alone, family = (float(cell) for cell in line.split("|")[5:8])
    assert (
        alone == seeds_needed(sd, 1.5) or abs(alone - seeds_needed(sd, 1.5)) <= 1
    )  # sd is rounded
    assert alone < family
