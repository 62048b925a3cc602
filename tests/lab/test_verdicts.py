import dataclasses
from functools import partial

import numpy as np
import pytest

from rilbench.errors import UserError
from rilbench.lab import verdicts
from rilbench.lab.claims import ClaimVerdict
from rilbench.lab.experiment import read_experiment
from rilbench.lab.run_result import Outcomes, RunCost
from rilbench.lab.verdicts import judge_claims, regime_controls
from rilbench.resources import resource
from rilbench.stats import detectable_difference, question_interval

HEADLINE = read_experiment(resource("recipes/lab/headline.yaml"))
REGIMES = read_experiment(resource("recipes/lab/regimes.yaml"))
SEEDS = len(HEADLINE.seeds)
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


def judged(found, controls=None):
    return judge_claims(HEADLINE, found, controls or {})


def find(found, text):
    return next(f for f in found if f.claim.text == text)


def test_without_results_no_claim_has_a_verdict():
    for experiment, number in ((HEADLINE, 18), (REGIMES, 13)):
        found = judge_claims(experiment, [], {})
        assert {each.verdict for each in found} == {ClaimVerdict.NOT_RUN}
        assert {each.text for each in found} == {"not run yet"}
        assert len(found) == number


def test_a_clear_difference_is_found(make_result):
    each = find(judged(results(make_result)), "RIL beats Dr.GRPO with 2G student responses")
    assert each.verdict is ClaimVerdict.SAME
    assert each.pairs == SEEDS
    assert each.seeds.low > 10


def test_each_regime_is_judged_by_its_own_runs(make_result):
    """RIL is ahead in one regime and behind in another: both are found."""
    levels = {"format": {"ril": 0.8}, "graded-style": {"ril": 0.4}}
    found = [
        make_result(job, {}, level=levels.get(job.regime, {}).get(job.spec.method, 0.6))
        for job in REGIMES.jobs()
    ]
    verdicts = {each.claim.text: each.verdict for each in judge_claims(REGIMES, found, {})}
    for name, expected in (("format", ClaimVerdict.SAME), ("graded-style", ClaimVerdict.OPPOSITE)):
        assert verdicts[f"RIL beats teacher responses without D ({name})"] is expected


def test_a_regime_counts_only_where_something_can_be_gained(make_result):
    """SFT gains 3 points or more, another method 1 or more, both beyond chance."""

    def controls(sft, ril, noise=0.001):
        levels = {"": 0.5, "sft": 0.5 + sft, "ril": 0.5 + ril}
        found = [
            make_result(job, {}, level=levels.get(job.spec.method, 0.3), noise=noise)
            for job in HEADLINE.jobs()
        ]
        return found, regime_controls(HEADLINE, found)

    text = "RIL beats Dr.GRPO with 2G student responses"
    found, passed = controls(0.1, 0.05)
    assert passed["paper"].passed
    assert passed["paper"].rl[0] == "ril"
    assert find(judged(found, passed), text).verdict is ClaimVerdict.SAME
    for sft, ril in ((0.01, 0.05), (0.1, -0.1)):
        found, failed = controls(sft, ril)
        assert not failed["paper"].passed
        each = find(judged(found, failed), text)
        assert each.verdict is ClaimVerdict.NO_CONTROL
        assert each.text == "no verdict, the regime's controls failed"
    # Before all seeds have finished a regime has no controls.
    part = [result for result in found if result.seed in (0, HEADLINE.seeds[0])]
    assert regime_controls(HEADLINE, part)["paper"].sft is None


def test_the_difference_is_paired_by_seed_and_by_question(make_result):
    found = results(make_result)
    one = find(judged(found), "RIL beats the similarity reward alone")
    mine = {(r.name, r.seed): r for r in found}
    gaps = [
        mine["ril", s].mean(HEADLINE.benchmarks) - mine["imitation", s].mean(HEADLINE.benchmarks)
        for s in HEADLINE.seeds
    ]
    assert one.seeds.mean == pytest.approx(np.mean(gaps))
    assert one.questions.mean == pytest.approx(np.mean(gaps), abs=1e-3)


def test_an_untrained_model_is_compared_with_every_seed(make_result):
    each = find(judged(results(make_result)), "RIL beats the untrained student")
    assert each.pairs == SEEDS


def test_no_verdict_before_all_seeds_have_finished(make_result):
    found = judged(results(make_result, keep=lambda job: job.seed in (0, *HEADLINE.seeds[:2])))
    each = find(found, "RIL beats Dr.GRPO with 2G student responses")
    assert each.verdict is ClaimVerdict.CANNOT_TELL
    assert each.text == f"cannot tell (2 of {SEEDS} seeds so far)"


def test_one_failed_seed_leaves_a_verdict_two_do_not(make_result, failed_result):
    def with_failed(seeds):
        return [
            failed_result(job, {})
            if (job.spec.name, job.seed) in {("dr-grpo-8", s) for s in seeds}
            else make_result(job, {}, level=LEVELS.get(job.spec.method, 0.65), noise=0.004)
            for job in HEADLINE.jobs()
        ]

    text = "RIL beats Dr.GRPO with 2G student responses"
    one = find(judged(with_failed(HEADLINE.seeds[:1])), text)
    assert one.text == f"same direction, larger than in the paper (1 of {SEEDS} seeds failed)"
    two = find(judged(with_failed(HEADLINE.seeds[:2])), text)
    assert two.text == f"cannot tell (2 of {SEEDS} seeds failed)"
    all_seeds = find(judged(with_failed(HEADLINE.seeds)), text)
    assert all_seeds.text == f"cannot tell ({SEEDS} of {SEEDS} seeds failed)"


def test_other_questions_are_not_compared(make_result):
    found = results(make_result)
    i = next(i for i, result in enumerate(found) if result.name == "ril")
    changed = dict(found[i].outcomes)
    changed["MMB"] = Outcomes("ffffffff", changed["MMB"].values)
    found[i] = dataclasses.replace(found[i], outcomes=changed)
    with pytest.raises(UserError, match="different questions of MMB"):
        judged(found)


def test_cost_ratios(make_result):
    def cost(result):
        if result.model:
            return RunCost()
        twice = 2 if result.name == "ril" else 1
        return RunCost(1000, 0, 0, 0, 0, {"ril": 50.0 * twice, "collect": 50.0 * twice})

    found = [dataclasses.replace(result, cost=cost(result)) for result in results(make_result)]
    each = find(judged(found), "RIL beats GRPO with G student responses")
    assert (each.seconds, each.tokens) == (2.0, 1.0)
    assert find(judged(found), "The student reaches 72b").seconds is None


def test_holm_counts_every_claim_of_a_part(make_result):
    """Four claims about one question: the smallest of their p-values counts four times."""
    rng = np.random.default_rng(0)
    noise = {}

    def shifted(result):
        gap = noise.setdefault((result.name, result.seed), rng.normal())
        return dataclasses.replace(result, scores=dict.fromkeys(result.scores, 50 + gap))

    found = judged([shifted(result) for result in results(make_result)])
    beats = [each for each in found if "RPO with" in each.claim.text]
    assert len(beats) == 4
    assert {each.verdict for each in beats} == {ClaimVerdict.CANNOT_TELL}
    # What would have been seen is said by the strictest of the corrected tests.
    each = beats[0]
    expected = detectable_difference(each.differences, level=1 - 0.05 / 4)
    assert each.text == f"cannot tell (would have seen {expected:.1f} or more)"
    assert expected > detectable_difference(each.differences)
