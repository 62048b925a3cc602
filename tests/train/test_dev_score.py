"""The dev score through verl's own arithmetic: unknown is not wrong, and failed is."""

import math

import pytest
from verl.trainer.ppo.metric_utils import process_validation_metrics

from rilbench.train.dev_score import dev_accuracy, judged_only

UIDS = ["a", "b", "c", "d"]
SOURCES = ["chartqa", "chartqa", "ai2d", "ai2d"]


def score(verdicts, failed=()):
    expected = dict.fromkeys(zip(SOURCES, UIDS, strict=True), 1)
    came = [i for i, uid in enumerate(UIDS) if uid not in failed]
    judged = judged_only(
        [SOURCES[i] for i in came],
        [UIDS[i] for i in came],
        {"acc": [verdicts[i] for i in came], "reward": [verdicts[i] for i in came]},
        expected,
    )
    found = process_validation_metrics(*judged[:3], expected_acc_counts=judged.expected)
    means = {source: values["acc"]["mean@1"] for source, values in found.items()}
    return dev_accuracy({f"val-core/{source}/acc/mean@1": mean for source, mean in means.items()})


@pytest.mark.parametrize(
    ("verdicts", "failed", "expected"),
    [
        ([1.0, 0.0, 1.0, 1.0], (), 0.75),
        ([1.0, math.nan, 1.0, 1.0], (), 1.0),
        ([1.0, math.nan, 0.0, 1.0], (), 0.75),
        ([1.0, 1.0, 1.0, 1.0], ("b",), 0.75),
        ([1.0, math.nan, 1.0, 1.0], ("d",), 0.75),
        ([math.nan, math.nan, 1.0, 0.0], (), 0.5),
    ],
)
def test_a_response_without_a_verdict_is_left_out_and_a_failed_question_is_wrong(
    verdicts, failed, expected
):
    assert score(verdicts, failed) == expected


def test_no_score_where_verl_has_none():
    assert dev_accuracy({"actor/loss": 1.0}) is None
