"""How fast a run trains: what is measured, and that two machines share the ratio."""

import statistics

import pytest

from rilbench.train.pipeline.step_time import Pace, Yardstick


def test_a_step_is_counted_without_the_start_and_beside_the_yardstick():
    spent = iter([40.0, 45.0, 50.0, 56.0])
    work = iter([0.05, 0.06, 0.07, 0.05])
    told = []
    pace = Pace(lambda: next(spent), lambda: next(work))
    line = pace.watching(lambda kind, values: told.append((kind, values["step"])))
    line("discriminator", {"step": 1})
    for step in (11, 12, 13, 14):
        line("ril", {"step": step})
    assert pace.figures == pytest.approx({"step_cpu_seconds": 16.0 / 3, "yardstick_seconds": 0.055})
    assert told == [("discriminator", 1), *(("ril", step) for step in (11, 12, 13, 14))]


def test_one_step_says_nothing():
    pace = Pace(lambda: 1.0, lambda: 0.05)
    pace.watching(lambda kind, values: None)("ril", {"step": 1})
    assert pace.figures == {}


def test_the_yardstick_repeats_itself_and_leaves_torch_as_it_was():
    import torch

    torch.manual_seed(3)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    yardstick = Yardstick()
    found = [statistics.median(yardstick() for _ in range(10)) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert 0.5 < found[0] / found[1] < 2
