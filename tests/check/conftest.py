import shutil

import pytest
from measured import seeds

from rilbench.check.baseline import read_baseline
from rilbench.check.update import update_baseline
from rilbench.ledger import Ledger


@pytest.fixture
def fill():
    """Writes evaluations, each with its run or None, into a ledger; returns its path."""
    return _write


def _write(path, pairs):
    with Ledger(path) as ledger:
        for each, run in pairs:
            if run is not None:
                ledger.record_run(run)
            ledger.record(each)
    return path


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory):
    """The baseline of a family of nine seeds, written once: it simulates false alarms."""
    folder = tmp_path_factory.mktemp("calibrated")
    with Ledger(_write(folder / "calibration.db", seeds())) as ledger:
        update_baseline(ledger, folder / "baseline.json", "nine seeds")
    read_baseline(folder / "baseline.json")
    return folder / "baseline.json"


@pytest.fixture
def baseline(calibrated, tmp_path):
    """A copy of that baseline's file."""
    return shutil.copy(calibrated, tmp_path / "baseline.json")
