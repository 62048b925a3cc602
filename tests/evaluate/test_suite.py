"""The benchmarks' rows against the paper's table."""

import csv

import pytest

from rilbench.errors import UserError
from rilbench.evaluate.suite import PAPER_COLUMNS, SUITES, find_suite, suite, suite_columns
from rilbench.resources import resource


def test_columns_are_the_papers_in_its_order() -> None:
    with resource("results/paper/main_table.csv").open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert tuple(header[-14:]) == PAPER_COLUMNS


@pytest.mark.parametrize("name", list(SUITES))
def test_suites_are_in_order_without_repetition(name: str) -> None:
    columns = suite_columns(name)
    assert columns == [column for column in PAPER_COLUMNS if column in columns]
    assert len({b.dataset for b in suite(name)}) == len(columns)


def test_nano_is_scored_by_the_kits_own_datasets() -> None:
    assert {b.column: (b.dataset, b.scale, b.judged, b.circular) for b in suite("nano")} == {
        "MMStar": ("MMStar", 1, False, False),
        "MMB": ("MMBench_DEV_EN", 1, False, True),
        "ChartQA": ("ChartQA_TEST", 100, False, False),
        "MM-Vet": ("MMVet", 100, True, False),
    }
    assert find_suite("nano").max_tokens == 64


def test_unknown_suite_names_the_known() -> None:
    with pytest.raises(UserError, match=r"'nino'; there is nano"):
        suite("nino")
