import math

import pytest

from rilbench.config import load_recipe
from rilbench.train.nan_guard import NotFiniteError, check_finite
from rilbench.train.pipeline.run_folder import open_run, stop_reason


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stops_and_names_step_and_number(tmp_path, wrong):
    run = open_run(tmp_path / "r", load_recipe("both", "nano"), resume=False)
    assert stop_reason(run) is None
    with pytest.raises(NotFiniteError, match="step 7: policy_loss not finite"):
        check_finite(run.folder, "step 7", {"policy_loss": wrong, "kl": 0.1})
    assert stop_reason(run) == "step 7: policy_loss not finite"


def test_finite_numbers_pass(tmp_path):
    check_finite(tmp_path, "step 1", {"policy_loss": -3.0, "kl": 0.0})
    assert list(tmp_path.iterdir()) == []
