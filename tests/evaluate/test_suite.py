"""Suites against the paper's table."""

import csv

import pytest

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.evaluate.suite import SUITES, find_suite, suite, suite_columns
from rilbench.resources import resource


def test_the_14_names_are_the_papers_in_its_order() -> None:
    with resource("results/paper/main_table.csv").open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert tuple(header[-14:]) == PAPER_14


@pytest.mark.parametrize("name", list(SUITES))
def test_suites_are_in_order_without_repetition(name: str) -> None:
    columns = suite_columns(name)
    assert columns == [column for column in PAPER_14 if column in columns]
    names = [dataset.name for dataset in find_suite(name).datasets]
    assert len(set(names)) == len(names)


def test_nano_is_scored_by_the_kits_own_datasets() -> None:
    assert suite_columns("nano") == list(PAPER_14)
    assert suite_columns("mano") == []  # One byte has changed in a ledger: its table is shown.
    datasets = {dataset.name: dataset for dataset in find_suite("nano").datasets}
    assert {name for name, d in datasets.items() if d.circular} == {
        "MMBench_DEV_CN",
        "MMBench_DEV_EN",
    }
    assert {name for name, d in datasets.items() if d.judged} == {
        "MMVet",
        "MMVetV2",
        "MathVista_MINI",
    }
    assert {name for name, d in datasets.items() if d.scale == 100} == {
        "ChartQA_TEST",
        "MMVet",
        "MMVetV2",
        "MathVista_MINI",
    }
    assert find_suite("nano").max_tokens == 64


def test_a_benchmark_of_several_datasets_says_so() -> None:
    benchmarks = {b.column: b for b in suite("nano")}
    pro, mmmu = benchmarks["MMMU-Pro"], benchmarks["MMMU"]
    assert (pro.name, pro.metric) == ("MMMU_Pro_10c+MMMU_Pro_V", "mean of Overall")
    assert (mmmu.name, mmmu.metric) == ("MMMU_DEV_VAL", "Overall")
    assert benchmarks["MathVista"].judged
    assert not pro.judged


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown suite 'nino'; choose from paper, nano"):
        suite("nino")
