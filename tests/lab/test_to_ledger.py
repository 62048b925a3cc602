import dataclasses
import statistics
from pathlib import Path

import pytest

from rilbench.evaluate.suite import suite_columns
from rilbench.lab.experiment import Job, RunSpec
from rilbench.lab.run_result import Outcomes, read_result
from rilbench.lab.to_ledger import family, labels, record_results, to_evaluation, to_run
from rilbench.ledger import Ledger
from rilbench.ledger.builder import NOT_KEPT
from rilbench.table.measured_rows import Settings, measured_rows

ROWS = Path(__file__).parents[2] / "results" / "nano" / "runs"
SPEC = RunSpec("ril-both", "ril-both", method="ril")
JOB = Job("e", "format", 3, "test", ("AI2D", "MMB"), 5, SPEC)


def committed(name):
    return read_result(ROWS / f"{name}.json")


def test_seeds_of_one_run_share_a_family(make_result):
    row = make_result(JOB, {"policy.lr": 2e-4})
    seed = dataclasses.replace(row, seed=4)
    assert family(row) == family(seed)
    others = [{"steps": 6}, {"name": "x"}, {"settings": {"policy.lr": 1e-4}}, {"recipe": "72b"}]
    assert family(row) not in {family(dataclasses.replace(row, **each)) for each in others}


def test_a_row_is_recorded_once(tmp_path, make_result):
    row = make_result(JOB, {}, created="2026-01-01T00:00:00Z", kit="ms-vlmeval 0.0.20", judge="j")
    with Ledger(tmp_path / "l.db") as ledger:
        assert [record_results([row], ledger), record_results([row, row], ledger)] == [1, 0]
        again = dataclasses.replace(row, commit="later")
        assert record_results([row, again], ledger) == 1
        evaluations = ledger.evaluations()
        (run,) = ledger.runs()
        samples = ledger.samples(evaluations[0].id)
    assert len(evaluations) == 2
    assert len(samples) == sum(len(each.values) for each in row.outcomes.values())
    assert {(each.response, each.finish_reason) for each in samples} == {("", NOT_KEPT)}
    for each in evaluations:
        assert (each.family, each.seed, each.run) == (run.family, 3, run.name)
        assert {s.benchmark: s.value for s in each.scores} == row.scores
        assert {s.benchmark for s in each.scores if s.judge == "j"} == {
            *("MathVista", "MM-Vet", "MM-Vet-v2")
        }
    assert run.metrics["judge_calls"] == row.cost.judge_calls
    assert run.curves == row.curves
    assert run.status == "finished"


def test_a_failed_row_is_a_run_without_an_evaluation(tmp_path, make_result, failed_result):
    with Ledger(tmp_path / "l.db") as ledger:
        assert record_results([failed_result(JOB, {})], ledger) == 0
        assert ledger.evaluations() == []
        (run,) = ledger.runs()
    assert run.status == "stopped"
    assert run.metrics["failure"] == {"step": 7, "message": "the loss is NaN"}


def test_a_model_that_is_not_trained_is_no_run(tmp_path, make_result):
    spec = RunSpec("untrained", "untrained", model="student")
    row = make_result(dataclasses.replace(JOB, spec=spec), {})
    with Ledger(tmp_path / "l.db") as ledger:
        assert record_results([row], ledger) == 1
        (found,) = ledger.evaluations()
        assert ledger.runs() == []
    assert (found.student, found.method, found.teacher) == ("nano-format", "base", "none")
    assert (found.run, found.family, found.seed, found.start_fingerprint) == (None,) * 4


@pytest.mark.parametrize(
    ("name", "method", "recipe", "settings", "expected"),
    [
        ("ril-both", "ril", "both", {}, ("ril", "both")),
        ("ril-72b", "ril", "72b", {}, ("ril", "72b")),
        ("ril-beta=0.01", "ril", "both", {}, ("ril-beta=0.01", "both")),
        ("dr-grpo-8", "dr-grpo", "both", {}, ("dr-grpo-8", "none")),
        ("sft", "sft", "both", {"sft.steps": 30}, ("sft", "both")),
        ("sft-dr-grpo", "dr-grpo", "both", {"sft.steps": 30}, ("sft+dr-grpo", "both")),
        ("beta=0.1", "ril", "both", {}, ("ril beta=0.1", "both")),
        ("student-only", "dr-grpo", "both", {}, ("dr-grpo student-only", "none")),
        ("teacher-rows", "teacher-rows", "both", {}, ("teacher-rows", "both")),
    ],
)
def test_labels_are_those_of_checkpoints(make_result, name, method, recipe, settings, expected):
    changes = {"name": name, "method": method, "recipe": recipe, "settings": settings}
    row = dataclasses.replace(make_result(JOB, {}), **changes)
    assert labels(row) == ("nano-format", *expected)


def test_a_teacher_has_its_own_name(make_result):
    row = dataclasses.replace(make_result(JOB, {}), name="teacher-72b", method="", model="72b")
    assert labels(row) == ("nano-format-72b", "base", "none")


def test_test_rows_know_their_questions():
    found = to_evaluation(committed("headline/paper/ril-201"))
    assert found.suite == "nano"
    names = [each.question_id for each in found.samples if each.benchmark == "MMB"]
    assert sorted(names) == sorted(str(number) for number in range(100))
    golds = {each.gold for each in found.samples if each.benchmark == "MMB"}
    assert golds == {"A,B", "B,A"}
    strata = {each.stratum for each in found.samples if each.benchmark == "MMMU-Pro"}
    assert strata == {"MMMU_Pro_10c", "MMMU_Pro_V"}
    assert {each.data_state for each in found.scores} == {"stand-in"}


def test_other_questions_are_numbered_and_never_compared(make_result):
    row = committed("headline/paper/ril-201")
    changed = {column: Outcomes("ffffffff", each.values) for column, each in row.outcomes.items()}
    found = to_evaluation(dataclasses.replace(row, outcomes=changed))
    assert found.samples[0].question_id == "#1"
    here = {score.data_sha256 for score in to_evaluation(row).scores}
    assert not here & {score.data_sha256 for score in found.scores}


def test_dev_is_never_beside_test(tmp_path):
    rows = [committed(f"{name}/paper/untrained-0") for name in ("headline", "grid")]
    rows += [committed("headline/paper/ril-201"), committed("pilot/paper/ril-111")]
    with Ledger(tmp_path / "l.db") as ledger:
        assert record_results(rows, ledger) == 4
        table = measured_rows(ledger.evaluations(), Settings(suite_columns))
    assert sorted((row.suite, row.method) for row in table) == [
        *(("nano", "base"), ("nano", "ril"), ("nano-dev", "base"), ("nano-dev", "ril"))
    ]
    for row in table:
        assert row.average is not None
        assert not row.unlike
        assert (row.difference is None) == (row.method == "base")
    hashes = [
        {score.data_sha256 for score in row.evaluation.scores}
        for row in table
        if not row.difference
    ]
    assert not hashes[0] & hashes[1]


def test_scores_are_the_means_of_their_samples():
    for name in ("headline/paper/ril-201", "pilot/paper/sft-111", "pilot/format/ril-111"):
        found = to_evaluation(committed(name))
        for score in found.scores:
            values = [each.score for each in found.samples if each.benchmark == score.benchmark]
            assert score.value == pytest.approx(100 * statistics.fmean(values), abs=0.01)
            assert score.questions == score.answered == len(values)


def test_a_run_says_what_is_kept_of_its_recipe():
    run = to_run(committed("headline/paper/ril-201"))
    assert "policy.kl_coef: 0.01" in run.recipe_yaml
    assert run.created == run.finished
    assert run.created.startswith("2026-11-29T")
    assert set(run.metrics["cpu_seconds"]) == {"collect", "discriminator", "ril"}


@pytest.mark.slow
def test_every_committed_row_fits(tmp_path):
    rows = [read_result(path) for path in sorted(ROWS.glob("*/*/*.json"))]
    with Ledger(tmp_path / "l.db") as ledger:
        assert record_results(rows, ledger) == sum(row.failure is None for row in rows)
        assert record_results(rows, ledger) == 0
        headline = [each for each in ledger.evaluations("nano") if "headline" in (each.run or "")]
    families = {each.family for each in headline}
    assert all(sum(each.family == one for each in headline) == 12 for one in families)
