from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.lab.experiment import read_experiment
from rilbench.lab.grid_choice import choose, read_tuned, settings_for, write_tuned

GRID = """\
name: grid
regimes: [format]
seeds: [1, 2]
split: dev
benchmarks: [AI2D, MMB]
steps: 2
runs:
  - name: ril
    method: ril
    grid:
      policy.lr: [1.0e-4, 2.0e-4]
      policy.kl_coef: [0.001, 0.01]
  - {name: untuned, method: grpo, tuned_by: ril}
"""


@pytest.fixture
def grid(tmp_path) -> object:
    path = Path(tmp_path) / "grid.yaml"
    path.write_text(GRID)
    return read_experiment(path)


def results(grid, make_result, means):
    """Rows with these means of AI2D and MMB by (rate, beta, seed)."""
    found = []
    for job in grid.jobs():
        if job.spec.cell:
            key = (job.spec.cell["policy.lr"], job.spec.cell["policy.kl_coef"], job.seed)
            if key in means:
                scores = {"AI2D": means[key] + 1, "MMB": means[key] - 1, "MMStar": 99.0}
                found.append(make_result(job, {}, scores=scores))
    return found


CELLS = [(r, b) for r in (1e-4, 2e-4) for b in (0.001, 0.01)]


def everywhere(value, **others):
    means = {(r, b, s): value for r, b in CELLS for s in (1, 2)}
    return means | others.get("others", {})


def test_the_best_mean_over_seeds_wins(grid, make_result):
    # Cell (2e-4, 0.001) has the best single seed, (2e-4, 0.01) the best mean.
    means = everywhere(50.0)
    means |= {(2e-4, 0.001, 1): 60.0, (2e-4, 0.001, 2): 42.0}
    means |= {(2e-4, 0.01, 1): 53.0, (2e-4, 0.01, 2): 53.0}
    chosen = choose(grid, results(grid, make_result, means))["format"]["ril"]
    assert chosen["settings"] == {"policy.lr": 2e-4, "policy.kl_coef": 0.01}
    assert chosen["mean"] == 53.0
    assert len(chosen["cells"]) == 4


def test_ties_go_to_the_smaller_lr_then_the_larger_kl_coef(grid, make_result):
    chosen = choose(grid, results(grid, make_result, everywhere(50.0)))["format"]["ril"]
    assert chosen["settings"] == {"policy.lr": 1e-4, "policy.kl_coef": 0.01}


def test_nothing_is_chosen_before_all_cells_and_seeds_have_finished(grid, make_result):
    means = everywhere(50.0)
    del means[(2e-4, 0.01, 2)]
    assert choose(grid, results(grid, make_result, means)) == {}


def test_a_failed_run_loses(grid, make_result, failed_result):
    found = results(grid, make_result, everywhere(50.0, others={(1e-4, 0.01, 1): 99.0}))
    failed = [
        failed_result(job, {})
        for job in grid.jobs()
        if job.spec.name == "ril+lr=0.0001+kl_coef=0.01" and job.seed == 2
    ]
    found = [r for r in found if (r.name, r.seed) != (failed[0].name, 2)] + failed
    chosen = choose(grid, found)["format"]["ril"]
    assert chosen["settings"] == {"policy.lr": 1e-4, "policy.kl_coef": 0.001}
    assert chosen["cells"]["ril+lr=0.0001+kl_coef=0.01"] is None


def test_the_choice_is_taken_over(grid, tmp_path, make_result):
    tuned = choose(grid, results(grid, make_result, everywhere(50.0)))
    write_tuned(tuned, tmp_path / "tuned.json")
    assert read_tuned(tmp_path / "tuned.json") == tuned
    spec = grid.runs[-1]
    assert settings_for(spec, "format", tuned) == {"policy.lr": 1e-4, "policy.kl_coef": 0.01}
    assert settings_for(spec, "paper", tuned) is None
    assert settings_for(grid.runs[0], "format", {}) == {}


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "tuned.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_tuned(tmp_path / "tuned.json")
    assert read_tuned(tmp_path / "none.json") == {}
