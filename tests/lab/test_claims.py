import csv
import statistics

import pytest

from rilbench.lab.claims import (
    CLAIMS,
    MARGIN,
    NOT_IN_THE_PAPER,
    Claim,
    ClaimVerdict,
    decide,
    paper_differences,
    verdict_text,
)
from rilbench.lab.experiment import read_experiment
from rilbench.lab.regimes import REGIMES
from rilbench.resources import resource
from rilbench.stats import Interval

CLAIM = Claim("a beats b", "Table 1", "headline", "paper", "a", "b")
REACHES = next(claim for claim in CLAIMS if claim.text == "The student reaches 72b")


def around(mean, half):
    return Interval(mean, mean - half, mean + half)


@pytest.mark.parametrize(
    ("claim", "seeds", "questions", "p", "p_equal", "expected"),
    [
        (CLAIM, around(5, 2), around(5, 3), 0.01, 1, ClaimVerdict.SAME),
        (CLAIM, around(5, 2), around(5, 6), 0.01, 1, ClaimVerdict.CANNOT_TELL),
        (CLAIM, around(5, 6), around(5, 2), 0.20, 1, ClaimVerdict.CANNOT_TELL),
        (CLAIM, around(5, 2), around(5, 3), 0.06, 1, ClaimVerdict.CANNOT_TELL),
        (CLAIM, around(-5, 2), around(-5, 3), 0.01, 1, ClaimVerdict.OPPOSITE),
        (CLAIM, around(-5, 2), around(-5, 6), 0.01, 1, ClaimVerdict.CANNOT_TELL),
        (CLAIM, around(0.1, 0.5), around(0.1, 0.8), 0.5, 0.01, ClaimVerdict.NO_EFFECT),
        (CLAIM, around(0.1, 0.5), around(0.1, 0.8), 0.5, 0.06, ClaimVerdict.CANNOT_TELL),
        (CLAIM, around(0.1, 0.5), around(0.1, 0.95), 0.5, 0.01, ClaimVerdict.CANNOT_TELL),
        (CLAIM, around(0.5, 0.2), around(0.5, 0.3), 0.01, 0.01, ClaimVerdict.SAME),
        # The paper's own students are 13.9 points behind 72b at most.
        (REACHES, around(-10, 2), around(-10, 2), 0.01, 1, ClaimVerdict.SAME),
        (REACHES, around(-13, 2), around(-13, 2), 0.30, 1, ClaimVerdict.CANNOT_TELL),
        (REACHES, around(-20, 2), around(-20, 2), 0.01, 1, ClaimVerdict.OPPOSITE),
    ],
)
def test_the_rule(claim, seeds, questions, p, p_equal, expected):
    assert MARGIN == 1.0
    assert decide(claim, seeds, questions, p, p_equal) is expected


def test_a_verdict_is_relative_to_the_papers_range():
    beats = claim("RIL beats Dr.GRPO with 2G student responses")
    assert verdict_text(beats, ClaimVerdict.SAME, around(4.5, 2)) == "same direction"
    larger, smaller = around(28, 4), around(1, 0.5)
    assert verdict_text(beats, ClaimVerdict.SAME, larger).endswith(", larger than in the paper")
    assert verdict_text(beats, ClaimVerdict.SAME, smaller).endswith(", smaller than in the paper")
    assert verdict_text(REACHES, ClaimVerdict.SAME, around(-10, 2)) == (
        "as near as in the paper, or nearer"
    )
    assert verdict_text(REACHES, ClaimVerdict.OPPOSITE) == "further behind than in the paper"


def test_nothing_is_called_reproduced():
    simulated = Claim("", "", "ablations", "paper", "a", "b", simulated=True)
    asked = Claim("", NOT_IN_THE_PAPER, "ablations", "paper", "a", "b")
    for found in ClaimVerdict:
        for each in (simulated, asked, CLAIM):
            assert "reproduced" not in verdict_text(each, found)
    assert verdict_text(simulated, ClaimVerdict.SAME) == "simulated: yes"
    assert verdict_text(asked, ClaimVerdict.OPPOSITE) == "no, the opposite"
    assert verdict_text(CLAIM, ClaimVerdict.NO_EFFECT) == "no such effect here"


EXPERIMENTS = {
    name: read_experiment(resource(f"recipes/lab/{name}.yaml"))
    for name in ("headline", "regimes", "ablations", "replication")
}


def test_every_claim_is_about_runs_that_the_experiments_have():
    assert {claim.experiment for claim in CLAIMS} == set(EXPERIMENTS)
    for each in CLAIMS:
        jobs = EXPERIMENTS[each.experiment].jobs()
        runs = {job.spec.name for job in jobs if job.regime == each.regime}
        assert {each.better, each.worse} <= runs, each.text
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)


def test_each_regime_asks_what_the_discriminator_adds():
    for name in ("headline", "regimes"):
        for regime in EXPERIMENTS[name].regimes:
            asked = {c.worse for c in CLAIMS if (c.experiment, c.regime) == (name, regime)}
            assert {"teacher-rows", "teacher-bonus"} <= asked, regime


def test_what_the_judge_simulates_is_marked():
    errs = {
        spec.name
        for spec in EXPERIMENTS["ablations"].runs
        if any(key.startswith("judge.") for key in spec.settings)
    }
    for each in CLAIMS:
        simulated = each.worse in errs or bool(REGIMES[each.regime].judge)
        assert each.simulated == simulated, each.text


def paper(name):
    with resource(f"results/paper/{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def claim(text):
    return next(claim for claim in CLAIMS if claim.text == text)


def test_the_papers_numbers_are_its_tables():
    results = {
        result["method"]: [float(v) for k, v in result.items() if v and k not in row_labels]
        for row_labels in [("student", "method", "teacher", "source")]
        for result in paper("main_table")
        if result["student"] == "Qwen2.5-VL-7B" and result["teacher"] in ("none", "both")
    }
    expected = statistics.fmean(results["RIL"]) - statistics.fmean(results["Dr.GRPO"])
    found = paper_differences(claim("RIL beats Dr.GRPO with 2G student responses"))
    assert found["Qwen2.5-VL-7B"] == pytest.approx(expected)
    assert len(found) == 5
    # Table 5b: AI2D 86.1 - 77.1, MathVista 79.7 - 59.9, and so on, over six benchmarks.
    by_hand = (9.0 + 19.8 + 13.1 + 20.2 + 22.8 + 25.0) / 6
    assert paper_differences(claim("β = 0.01 beats 0")) == pytest.approx({"Qwen2.5-VL-7B": by_hand})
    # MMB-CN has no number in the teachers' results, so 13 benchmarks are compared.
    assert paper_differences(claim("The student reaches 78b"))["Qwen2.5-VL-7B"] == pytest.approx(
        -0.38, abs=0.01
    )
    assert paper_differences(claim("RIL beats SFT on the same teacher responses")) == {}


def test_every_claim_of_the_paper_has_its_number():
    for each in CLAIMS:
        if each.paper is not None:
            assert paper_differences(each), each.text
