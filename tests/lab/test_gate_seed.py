"""The gate of the tree's own baseline, with a real run."""

from pathlib import Path

import pytest

from rilbench.lab import regression_gate as gates
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.progress import LabProgress

BASELINE = Path(__file__).parents[2] / LabPaths().baseline


@pytest.mark.slow  # Minutes; on every commit .github/workflows/check.yml runs it as the command.
@pytest.mark.timeout(900)
def test_one_seed_of_ril_passes_the_gate(tmp_path):
    """A whole run through verl, then the kit: under six minutes on two cores."""
    paths = LabPaths(work=tmp_path, baseline=BASELINE)
    with LabProgress() as view:
        found = gates.run_gate(view, paths)
    assert [each for each in found if not each.open] == []
