import dataclasses
from functools import partial

import numpy as np
import pytest

from rilbench.errors import UserError
from rilbench.lab import verdicts
from rilbench.lab.claims import ClaimVerdict
from rilbench.lab.experiment import read_experiment
from rilbench.lab.run_result import Outcomes, RunCost
from rilbench.lab.verdicts import judge_claims
from rilbench.resources import resource
from rilbench.stats import detectable_difference, question_interval

HEADLINE = read_experiment(resource("recipes/lab/headline.yaml"))
LEVELS = {"ril": 0.8, "dr-grpo": 0.6, "grpo": 0.6, "imitation": 0.7, "sft": 0.79}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """The bootstrap has its own tests; here it is called a thousand times."""
    monkeypatch.setattr(verdicts, "question_interval", partial(question_interval, resamples=400))


def results(make_result, keep=lambda job: True, **changes):
    return [
        make_result(job, {}, level=LEVELS.get(job.spec.method, 0.65), noise=0.004, **changes)
        for job in HEADLINE.jobs()
        if keep(job)
    ]


def find(found, text, student="nano"):
    return next(f for f in found if f.claim.text == text and f.student == student)


def test_without_results_no_claim_has_a_verdict():
    found = judge_claims(HEADLINE, [])
    assert {each.verdict for each in found} == {ClaimVerdict.NOT_RUN}
    assert {each.text for each in found} == {"not run yet"}
    assert len(found) == 13 * 2


def test_a_clear_difference_is_found_on_each_student(make_result):
    found = judge_claims(HEADLINE, results(make_result))
    for student in HEADLINE.students:
        each = find(found, "RIL beats Dr.GRPO with 2G student responses", student)
        assert each.verdict is ClaimVerdict.SAME
        assert each.pairs == 5
        assert each.seeds.low > 10


def test_the_difference_is_paired_by_seed_and_by_question(make_result):
    found = results(make_result)
    one = find(judge_claims(HEADLINE, found), "RIL beats the similarity reward alone")
    mine = {(r.name, r.seed): r for r in found if r.student == "nano"}
    gaps = [
        mine["ril-both", s].mean(HEADLINE.benchmarks)
        - mine["imitation", s].mean(HEADLINE.benchmarks)
        for s in HEADLINE.seeds
    ]
    assert one.seeds.mean == pytest.approx(np.mean(gaps))
    assert one.questions.mean == pytest.approx(np.mean(gaps), abs=1e-3)


def test_an_untrained_model_is_compared_with_every_seed(make_result):
    each = find(judge_claims(HEADLINE, results(make_result)), "RIL beats the untrained student")
    assert each.pairs == 5


def test_no_verdict_before_all_seeds_have_finished(make_result):
    found = judge_claims(HEADLINE, results(make_result, keep=lambda job: job.seed in (0, 11, 12)))
    each = find(found, "RIL beats Dr.GRPO with 2G student responses")
    assert each.verdict is ClaimVerdict.CANNOT_TELL
    assert each.text == "cannot tell (2 of 5 seeds so far)"


def test_one_failed_seed_leaves_a_verdict_two_do_not(make_result, failed_result):
    def with_failed(seeds):
        return [
            failed_result(job, {})
            if (job.spec.name, job.seed) in {("dr-grpo-8", s) for s in seeds}
            else make_result(job, {}, level=LEVELS.get(job.spec.method, 0.65), noise=0.004)
            for job in HEADLINE.jobs()
        ]

    text = "RIL beats Dr.GRPO with 2G student responses"
    one = find(judge_claims(HEADLINE, with_failed([11])), text)
    assert one.text == "same direction, larger than in the paper (1 of 5 seeds failed)"
    two = find(judge_claims(HEADLINE, with_failed([11, 12])), text)
    assert two.text == "cannot tell (2 of 5 seeds failed)"
    all_five = find(judge_claims(HEADLINE, with_failed(HEADLINE.seeds)), text)
    assert all_five.text == "cannot tell (5 of 5 seeds failed)"


def test_other_questions_are_not_compared(make_result):
    found = results(make_result)
    i = next(i for i, result in enumerate(found) if result.name == "ril-both")
    changed = dict(found[i].outcomes)
    changed["MMB"] = Outcomes("ffffffff", changed["MMB"].values)
    found[i] = dataclasses.replace(found[i], outcomes=changed)
    with pytest.raises(UserError, match="different questions of MMB"):
        judge_claims(HEADLINE, found)


def test_cost_ratios(make_result):
    def cost(result):
        if result.model:
            return RunCost()
        twice = 2 if result.name == "ril-both" else 1
        return RunCost(1000, 0, 0, 0, 0, {"ril": 50.0 * twice, "collect": 50.0 * twice})

    found = [dataclasses.replace(result, cost=cost(result)) for result in results(make_result)]
    each = find(judge_claims(HEADLINE, found), "RIL beats GRPO with G student responses")
    assert (each.seconds, each.tokens) == (2.0, 1.0)
    assert find(judge_claims(HEADLINE, found), "The student reaches 72b").seconds is None


def test_holm_counts_every_claim_of_a_part(make_result):
    """13 claims of one student: the largest p-value of few is 13 times what the test says."""
    rng = np.random.default_rng(0)
    noise = {}

    def shifted(result):
        gap = noise.setdefault((result.name, result.seed), rng.normal())
        return dataclasses.replace(result, scores=dict.fromkeys(result.scores, 50 + gap))

    found = judge_claims(HEADLINE, [shifted(result) for result in results(make_result)])
    beats = [each for each in found if each.student == "nano" and not each.claim.reaches]
    assert {each.verdict for each in beats} == {ClaimVerdict.CANNOT_TELL}
    # What would have been seen is said by the strictest of the corrected tests.
    each = beats[0]
    expected = detectable_difference(each.differences, level=1 - 0.05 / 13)
    assert each.text == f"cannot tell (would have seen {expected:.1f} or more)"
    assert expected > detectable_difference(each.differences)
