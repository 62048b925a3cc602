"""A small ledger with a run, its evaluations, its questions and its recorded rows."""

from pathlib import Path

import pytest
from report_place import Place, make_place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)
