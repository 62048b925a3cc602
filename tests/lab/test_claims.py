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
from rilbench.resources import resource
from rilbench.stats import Interval

CLAIM = Claim("a beats b", "Table 1", "headline", "a", "b")
REACHES = Claim("a reaches b", "Table 2", "headline", "a", "b", reaches=True)


def around(mean, half):
    return Interval(mean, mean - half, mean + half)


@pytest.mark.parametrize(
    ("claim", "seeds", "questions", "p", "expected"),
    [
        (CLAIM, around(5, 2), around(5, 3), 0.01, ClaimVerdict.REPRODUCED),
        (CLAIM, around(5, 2), around(5, 6), 0.01, ClaimVerdict.NOT_DECIDED),
        (CLAIM, around(5, 6), around(5, 2), 0.20, ClaimVerdict.NOT_DECIDED),
        (CLAIM, around(5, 2), around(5, 3), 0.06, ClaimVerdict.NOT_DECIDED),
        (CLAIM, around(-5, 2), around(-5, 3), 0.01, ClaimVerdict.NOT_REPRODUCED),
        (CLAIM, around(-5, 2), around(-5, 6), 0.01, ClaimVerdict.NOT_DECIDED),
        (CLAIM, around(0.1, 0.5), around(0.1, 0.8), 0.5, ClaimVerdict.NOT_REPRODUCED),
        (CLAIM, around(0.1, 0.5), around(0.1, 0.95), 0.5, ClaimVerdict.NOT_DECIDED),
        (CLAIM, around(0.5, 0.2), around(0.5, 0.3), 0.01, ClaimVerdict.REPRODUCED),
        (REACHES, around(-0.2, 0.5), around(-0.2, 0.7), 0.01, ClaimVerdict.REPRODUCED),
        (REACHES, around(0.0, 1.5), around(0.0, 0.5), 0.30, ClaimVerdict.NOT_DECIDED),
        (REACHES, around(-4, 2), around(-4, 2), 0.01, ClaimVerdict.NOT_REPRODUCED),
        (REACHES, around(-1.5, 1), around(-1.5, 1), 0.30, ClaimVerdict.NOT_DECIDED),
    ],
)
def test_the_rule(claim, seeds, questions, p, expected):
    assert MARGIN == 1.0
    assert decide(claim, seeds, questions, p) is expected


def test_what_is_simulated_or_asked_is_never_reproduced():
    simulated = Claim("", "", "ablations", "a", "b", simulated=True)
    asked = Claim("", NOT_IN_THE_PAPER, "ablations", "a", "b")
    for found in ClaimVerdict:
        for claim in (simulated, asked):
            assert "reproduced" not in verdict_text(claim, found)
    assert verdict_text(simulated, ClaimVerdict.REPRODUCED) == "simulated: holds"
    assert verdict_text(CLAIM, ClaimVerdict.NOT_REPRODUCED) == "not reproduced"


def test_every_claim_is_about_runs_that_the_experiments_have():
    for name in ("headline", "ablations"):
        experiment = read_experiment(resource(f"recipes/lab/{name}.yaml"))
        runs = {spec.name for spec in experiment.runs}
        claims = [claim for claim in CLAIMS if claim.experiment == name]
        assert claims
        for claim in claims:
            assert {claim.better, claim.worse} <= runs, claim.text
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)


def test_what_the_judge_simulates_is_marked():
    experiment = read_experiment(resource("recipes/lab/ablations.yaml"))
    errs = {s.name for s in experiment.runs if any(k.startswith("judge.") for k in s.settings)}
    marked = {c.worse for c in CLAIMS if c.simulated}
    assert errs == marked


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
