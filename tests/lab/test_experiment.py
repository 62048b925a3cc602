import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.errors import UserError
from rilbench.evaluate.suite import suite_columns
from rilbench.lab.experiment import SUITE, read_experiment
from rilbench.resources import resource

GOOD = """\
name: small
regimes: [format]
seeds: [1, 2]
split: dev
benchmarks: [MMB, AI2D]
steps: 3
set: {schedule.prompts_per_step: 14}
runs:
  - {name: untrained, model: student}
  - name: ril
    method: ril
    set:
      policy.kl_coef: 1e-2
    tuned_by: [ril, sft]
  - name: dr
    method: dr-grpo
    grid:
      policy.lr: [1e-4, 2.0e-4]
      policy.kl_coef: [0, 0.01]
not_run:
  something: no time
"""


def read(tmp_path, text):
    file = tmp_path / "small.yaml"
    file.write_text(text)
    return read_experiment(file)


def test_a_file_becomes_jobs_seed_by_seed(tmp_path):
    found = read(tmp_path, GOOD)
    assert found.benchmarks == ("AI2D", "MMB"), "in the order of the suite"
    cells = [f"dr+lr={lr}+kl_coef={beta}" for lr in (0.0001, 0.0002) for beta in (0, 0.01)]
    labels = [(job.spec.name, job.seed) for job in found.jobs()]
    first = [("untrained", 0), ("ril", 1), *[(cell, 1) for cell in cells]]
    assert labels == [*first, ("ril", 2), *[(cell, 2) for cell in cells]]
    assert found.not_run == {"something": "no time"}
    ril = found.runs[1]
    assert ril.tuned_by == ("ril", "sft")
    assert ril.settings == {"schedule.prompts_per_step": 14, "policy.kl_coef": 0.01}
    assert found.runs[2].cell == {"policy.lr": 0.0001, "policy.kl_coef": 0}


def test_by_runs_the_first_have_all_their_seeds_first(tmp_path):
    found = read(tmp_path, GOOD.replace("runs:\n", "order: runs\nruns:\n", 1))
    labels = [(job.spec.name, job.seed) for job in found.jobs()]
    assert labels[:3] == [("untrained", 0), ("ril", 1), ("ril", 2)]
    assert sorted(labels) == sorted((j.spec.name, j.seed) for j in read(tmp_path, GOOD).jobs())
    with pytest.raises(UserError, match=r"small\.yaml:8: unknown order 'row'"):
        read(tmp_path, GOOD.replace("runs:\n", "order: row\nruns:\n", 1))


def test_regimes_alternate_within_a_seed(tmp_path):
    text = GOOD.replace("regimes: [format]", "regimes: [format, paper]")
    order = [(job.seed, job.regime) for job in read(tmp_path, text).jobs() if job.seed]
    assert order == sorted(order, key=lambda pair: pair[0])
    assert [regime for seed, regime in order if seed == 1] == ["format"] * 5 + ["paper"] * 5


def test_own_settings_win_over_the_chosen_cell(tmp_path):
    job = next(job for job in read(tmp_path, GOOD).jobs() if job.spec.name == "ril")
    recipe = job.recipe({"policy.lr": 4e-4, "policy.kl_coef": 0.5}, Path("models"))
    assert (recipe.policy.lr, recipe.policy.kl_coef) == (4e-4, 0.01)
    assert (recipe.seed, recipe.schedule.steps, recipe.schedule.prompts_per_step) == (1, 3, 14)
    assert recipe.student.model == "models/student"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("method: dr-grpo", "method: dr-gpro", 16, "unknown method 'dr-gpro'"),
        ("name: dr\n", "name: ril\n", 15, "taken by the run of line 10"),
        ("policy.lr: [1e-4, 2.0e-4]", "policy.lr: []", 18, "must not be empty"),
        (
            "    grid:\n      policy.lr: [1e-4, 2.0e-4]\n      policy.kl_coef: [0, 0.01]\n",
            "    grid: {}\n",
            17,
            "grid is empty",
        ),
        ("2.0e-4]", "1.0e-4]", 18, "is given twice"),
        ("regimes: [format]", "regimes: [formt]", 2, "unknown regime 'formt'"),
        ("regimes: [format]", "regimes: [format, format]", 2, "is given twice"),
        ("[MMB, AI2D]", "[MMB, AI3D]", 5, "unknown benchmark 'AI3D'"),
        ("policy.kl_coef: 1e-2", "policy.kl_coeff: 1e-2", 13, "the nearest is 'policy.kl_coef'"),
        ("policy.kl_coef: 1e-2", "policy.kl_coef: -1", 10, "must not be negative"),
        ("policy.kl_coef: 1e-2", "seed: 4", 13, "given by the experiment itself"),
        ("seeds: [1, 2]", "seeds: []", 3, "seeds must not be empty"),
        ("seeds: [1, 2]", "seeds: [1, 1]", 3, "is given twice"),
        ("seeds: [1, 2]", "seeds: [1.5]", 3, "whole number"),
        ("split: dev", "split: train", 4, "unknown split 'train'"),
        ("steps: 3", "steps: 0", 6, "1 or more"),
        ("steps: 3", "stpes: 3", 6, "no 'stpes'"),
        ("steps: 3\n", "", 1, "needs 'steps'"),
        ("split: dev", "split: dev\nsplit: dev", 5, "is given twice"),
        ("model: student}", "model: 99b}", 9, "unknown model '99b'"),
        ("model: student}", "model: student, method: ril}", 9, "either a method"),
        ("model: student}", "model: student, set: {group_size: 2}}", 9, "not trained"),
        ("name: small", "name: [", 3, "not YAML"),
        ("name: small", "name: Small/..", 1, "may have a-z"),
    ],
)
def test_bad_input_is_refused_with_its_line(tmp_path, old, new, line, message):
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        read(tmp_path, GOOD.replace(old, new))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'small.yaml'}:{line}: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("text", ["", "[]", "- 1"])
def test_a_file_without_an_experiment_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"small.yaml:1: "):
        read(tmp_path, text)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_experiment(tmp_path / "none.yaml")


def test_the_shipped_experiments_fit_together():
    found = {
        name: read_experiment(resource(f"recipes/lab/{name}.yaml"))
        for name in (
            *("grid", "pilot", "headline", "regimes", "ablations"),
            *("replication", "verl", "gate"),
        )
    }
    tuned = {(job.regime, job.spec.entry) for job in found["grid"].jobs() if job.spec.cell}
    for name, experiment in found.items():
        assert experiment.name == name
        for job in experiment.jobs():
            for entry in job.spec.tuned_by:
                assert (job.regime, entry) in tuned, job.label
    # Headline and regimes share their seeds; no other two purposes do.
    seeds = [set(e.seeds) for name, e in found.items() if name != "regimes"]
    assert sum(map(len, seeds)) == len(set().union(*seeds)), "no seed is used for two purposes"
    assert set(found["regimes"].seeds) < set(found["headline"].seeds)
    for name in ("grid", "pilot", "gate"):
        assert found[name].split == "dev"
    for name in ("headline", "regimes", "ablations", "replication", "verl"):
        assert found[name].benchmarks == tuple(suite_columns(SUITE))
        assert found[name].split == "test"
    regimes = {*found["headline"].regimes, *found["regimes"].regimes}
    assert set(found["grid"].regimes) == regimes


def test_a_run_may_be_for_some_regimes_only(tmp_path):
    run = "  - {name: ril, method: ril, recipe: 72b"
    found = read(tmp_path, REGIMES.replace(run, f"{run}, only: [judge-errs-10]"))
    assert [(job.regime, job.spec.name) for job in found.jobs()] == [
        ("paper", "sft-accepted"),
        ("judge-errs-10", "ril"),
        ("judge-errs-10", "sft-accepted"),
    ]
    with pytest.raises(UserError, match=r"small\.yaml:9: unknown regime 'format'; known: paper"):
        read(tmp_path, REGIMES.replace(run, f"{run}, only: [format]"))


REGIMES = """
name: regimes
regimes: [paper, judge-errs-10]
engine: fast
seeds: [1]
split: dev
steps: 2
runs:
  - {name: ril, method: ril, recipe: 72b}
  - {name: sft-accepted, method: sft, responses: accepted, set: {sft.steps: 2}}
"""


def test_a_regimes_recipe_has_its_models_and_its_judge(tmp_path):
    experiment = read(tmp_path, REGIMES)
    assert experiment.engine == "fast"
    jobs = experiment.jobs()
    assert {job.engine for job in jobs} == {"fast"}
    assert [job.label for job in jobs][:2] == ["paper/ril-1", "paper/sft-accepted-1"]
    paper, errs = (
        next(j for j in jobs if j.regime == name).recipe({}, Path("regimes") / name)
        for name in ("paper", "judge-errs-10")
    )
    assert (paper.student.name, paper.student.model) == ("paper", "regimes/paper/student")
    assert paper.teachers.models["72b"] == "regimes/paper/72b"
    assert paper.judge.false_positive_rate == 0
    assert (errs.judge.false_positive_rate, errs.judge.false_negative_rate) == (0.1, 0.1)
    assert [job.spec.responses for job in jobs[:2]] == ["", "accepted"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("regimes: [paper, judge-errs-10]", "regimes: [papr]", "unknown regime 'papr'; known: pap"),
        ("engine: fast", "engine: slow", "unknown engine 'slow'; known: fast, verl"),
        ("engine: fast", "engine: verl", "'responses' needs 'engine: fast'"),
        ("recipe: 72b", "responses: accepted", "only SFT can learn accepted responses alone"),
    ],
)
def test_what_a_regime_does_not_go_with(tmp_path, old, new, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read(tmp_path, REGIMES.replace(old, new))


def test_an_unknown_name_is_refused_with_the_known_ones():
    result = CliRunner().invoke(app, ["lab", "run", "nosuch"])
    assert "unknown experiment 'nosuch'; known: ablations, " in str(result.exception)
