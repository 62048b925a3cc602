"""Step time on a CPU, and the yardstick beside it."""

import statistics

import pytest

from rilbench.train.pipeline.step_time import StepTimer, Yardstick


def test_step_time_leaves_out_the_start_of_verl():
    spent = iter([40.0, 45.0, 50.0, 56.0])
    work = iter([0.05, 0.06, 0.07, 0.05])
    lines = []
    timer = StepTimer(lambda: next(spent), lambda: next(work))
    line = timer.measuring(lambda kind, values: lines.append((kind, values["step"])))
    line("discriminator", {"step": 1})
    for step in (11, 12, 13, 14):
        line("ril", {"step": step})
    assert timer.metrics == pytest.approx(
        {"step_cpu_seconds": 16.0 / 3, "yardstick_seconds": 0.055}
    )
    assert lines == [("discriminator", 1), *(("ril", step) for step in (11, 12, 13, 14))]


def test_one_step_has_no_step_time():
    timer = StepTimer(lambda: 1.0, lambda: 0.05)
    timer.measuring(lambda kind, values: None)("ril", {"step": 1})
    assert timer.metrics == {}


def test_the_yardstick_is_stable_and_leaves_torchs_state_unchanged():
    import torch

    torch.manual_seed(3)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    yardstick = Yardstick()
    medians = [statistics.median(yardstick() for _ in range(10)) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert 0.5 < medians[0] / medians[1] < 2
