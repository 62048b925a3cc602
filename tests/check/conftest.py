import pytest
from measured import seeds

from rilbench.check.baseline import read_baseline
from rilbench.check.update import update_baseline
from rilbench.ledger import Ledger


@pytest.fixture
def fill():
    """Writes evaluations, each with its run or None, into a ledger; returns its path."""

    def write(path, pairs):
        with Ledger(path) as ledger:
            for each, run in pairs:
                if run is not None:
                    ledger.record_run(run)
                ledger.record(each)
        return path

    return write


@pytest.fixture
def baseline(tmp_path, fill):
    """The file of a family of nine seeds."""
    path = tmp_path / "baseline.json"
    with Ledger(fill(tmp_path / "calibration.db", seeds())) as ledger:
        update_baseline(ledger, path, "nine seeds")
    read_baseline(path)
    return path
