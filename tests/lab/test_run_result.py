import dataclasses

import pytest

from rilbench.errors import UserError
from rilbench.lab.experiment import Job, RunSpec
from rilbench.lab.run_result import outcomes_by_benchmark, read_result, read_results, write_result
from rilbench.ledger import Sample

JOB = Job("e", "format", 3, "dev", ("AI2D", "MMB"), 5, RunSpec("ril", "ril", method="ril"))


def sample(benchmark, name, score):
    return Sample(benchmark=benchmark, question_id=name, prompt_hash="", response="", score=score)


def test_a_result_comes_back_as_it_was(tmp_path, make_result, failed_result):
    for result in (make_result(JOB, {"policy.lr": 2e-4}), failed_result(JOB, {})):
        path = write_result(result, tmp_path)
        assert path == tmp_path / "e" / "format" / "ril-3.json"
        assert read_result(path) == result
        assert read_results(tmp_path, "e") == [result]
        assert [p.name for p in path.parent.iterdir()] == ["ril-3.json"]


def test_a_result_is_small(tmp_path, make_result):
    assert write_result(make_result(JOB, {}), tmp_path).stat().st_size < 12_000


def test_nan_is_not_written(tmp_path, make_result):
    result = dataclasses.replace(make_result(JOB, {}), curves={"kl": [float("nan")]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(result, tmp_path)
    assert read_results(tmp_path, "e") == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"outcomes": {}, "cost": {"x": 1}}'])
def test_a_file_that_is_not_a_result_is_refused(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"r\.json is not a run result"):
        read_result(path)


def test_outcomes_have_one_order_and_know_their_questions():
    data = {"MMB": "data"}
    forward = outcomes_by_benchmark([sample("MMB", "a", 1.0), sample("MMB", "b", 0.25)], data)
    backward = outcomes_by_benchmark([sample("MMB", "b", 0.25), sample("MMB", "a", 1.0)], data)
    assert forward == backward
    assert forward["MMB"].values == (1.0, 0.25)
    names = outcomes_by_benchmark([sample("MMB", "a", 1.0), sample("MMB", "c", 0.25)], data)
    pictures = outcomes_by_benchmark(
        [sample("MMB", "a", 1.0), sample("MMB", "b", 0.25)], {"MMB": "other"}
    )
    assert len({each["MMB"].questions for each in (forward, names, pictures)}) == 3


def test_a_missing_verdict_is_not_a_wrong_answer():
    with pytest.raises(UserError, match="no verdict"):
        outcomes_by_benchmark([sample("MMB", "a", None)], {"MMB": "data"})


def test_the_mean_needs_every_benchmark(make_result, failed_result):
    result = make_result(JOB, {})
    assert result.mean(["AI2D", "MMB"]) == pytest.approx(
        (result.scores["AI2D"] + result.scores["MMB"]) / 2
    )
    assert result.mean(["AI2D", "unknown"]) is None
    assert failed_result(JOB, {}).mean(["AI2D"]) is None
