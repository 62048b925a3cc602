import dataclasses

import numpy as np
import pytest

from rilbench.errors import UserError
from rilbench.lab.claims import Verdict
from rilbench.lab.experiment import read_experiment
from rilbench.lab.run_result import Cost, Outcomes
from rilbench.lab.verdicts import findings
from rilbench.resources import resource

HEADLINE = read_experiment(resource("recipes/lab/headline.yaml"))
LEVELS = {"ril": 0.8, "dr-grpo": 0.6, "grpo": 0.6, "imitation": 0.7, "sft": 0.79}


def rows(make_row, keep=lambda job: True, **changes):
    return [
        make_row(job, {}, level=LEVELS.get(job.spec.method, 0.65), noise=0.004, **changes)
        for job in HEADLINE.jobs()
        if keep(job)
    ]


def find(found, text, student="nano"):
    return next(f for f in found if f.claim.text == text and f.student == student)


def test_no_rows_no_verdicts():
    found = findings(HEADLINE, [])
    assert {each.verdict for each in found} == {Verdict.NOT_RUN}
    assert {each.words for each in found} == {"not run yet"}
    assert len(found) == 13 * 2


def test_a_clear_difference_is_found_on_each_student(make_row):
    found = findings(HEADLINE, rows(make_row))
    for student in HEADLINE.students:
        each = find(found, "RIL beats Dr.GRPO with 2G own rows", student)
        assert each.verdict is Verdict.REPRODUCED
        assert each.pairs == 5
        assert each.seeds.low > 10


def test_the_difference_is_paired_by_seed_and_by_question(make_row):
    found = rows(make_row)
    one = find(findings(HEADLINE, found), "RIL beats the similarity reward alone")
    mine = {(r.name, r.seed): r for r in found if r.student == "nano"}
    gaps = [
        mine["ril-both", s].mean(HEADLINE.benchmarks)
        - mine["imitation", s].mean(HEADLINE.benchmarks)
        for s in HEADLINE.seeds
    ]
    assert one.seeds.mean == pytest.approx(np.mean(gaps))
    assert one.questions.mean == pytest.approx(np.mean(gaps), abs=1e-3)


def test_an_untrained_model_is_compared_with_every_seed(make_row):
    each = find(findings(HEADLINE, rows(make_row)), "RIL beats the untrained student")
    assert each.pairs == 5


def test_no_verdict_before_all_seeds_are_there(make_row):
    found = findings(HEADLINE, rows(make_row, keep=lambda job: job.seed in (0, 11, 12)))
    each = find(found, "RIL beats Dr.GRPO with 2G own rows")
    assert each.verdict is Verdict.NOT_DECIDED
    assert each.words == "not decided (2 of 5 seeds so far)"


def test_one_failed_seed_leaves_a_verdict_two_do_not(make_row, failed_row):
    def with_failed(seeds):
        return [
            failed_row(job, {})
            if (job.spec.name, job.seed) in {("dr-grpo-8", s) for s in seeds}
            else make_row(job, {}, level=LEVELS.get(job.spec.method, 0.65), noise=0.004)
            for job in HEADLINE.jobs()
        ]

    text = "RIL beats Dr.GRPO with 2G own rows"
    one = find(findings(HEADLINE, with_failed([11])), text)
    assert one.words == "reproduced (1 of 5 seeds failed)"
    two = find(findings(HEADLINE, with_failed([11, 12])), text)
    assert two.words == "not decided (2 of 5 seeds failed)"
    all_five = find(findings(HEADLINE, with_failed(HEADLINE.seeds)), text)
    assert all_five.words == "not decided (5 of 5 seeds failed)"


def test_other_questions_are_not_compared(make_row):
    found = rows(make_row)
    i = next(i for i, row in enumerate(found) if row.name == "ril-both")
    changed = dict(found[i].outcomes)
    changed["MMB"] = Outcomes("ffffffff", changed["MMB"].values)
    found[i] = dataclasses.replace(found[i], outcomes=changed)
    with pytest.raises(UserError, match="different questions of MMB"):
        findings(HEADLINE, found)


def test_cost_ratios(make_row):
    def cost(row):
        if row.model:
            return Cost()
        twice = 2 if row.name == "ril-both" else 1
        return Cost(1000, 0, 0, 0, 0, {"ril": 50.0 * twice, "collect": 50.0 * twice})

    found = [dataclasses.replace(row, cost=cost(row)) for row in rows(make_row)]
    each = find(findings(HEADLINE, found), "RIL beats GRPO with G own rows")
    assert (each.seconds, each.tokens) == (2.0, 1.0)
    assert find(findings(HEADLINE, found), "The student reaches 72b").seconds is None


def test_holm_counts_every_claim_of_a_part(make_row):
    """13 claims of one student: the largest p-value of few is 13 times what the test says."""
    rng = np.random.default_rng(0)
    noise = {}

    def shifted(row):
        gap = noise.setdefault((row.name, row.seed), rng.normal())
        return dataclasses.replace(row, scores=dict.fromkeys(row.scores, 50 + gap))

    found = findings(HEADLINE, [shifted(row) for row in rows(make_row)])
    assert all(each.verdict is not Verdict.REPRODUCED for each in found if each.student == "nano")
