"""The baseline file, whole, damaged and of another rilbench."""

import json

import pytest

from rilbench.check.baseline import read_baseline, write_baseline
from rilbench.errors import UserError


def test_it_is_read_as_it_was_written(baseline):
    found = read_baseline(baseline)
    copy = baseline.with_name("copy.json")
    write_baseline(found, copy)
    assert copy.read_bytes() == baseline.read_bytes()
    (entry,) = found.entries
    assert entry.label == "nano/ms-vlmeval/nano/ril/both@ffffffff"
    assert entry.seeds == tuple(range(1, 10))
    assert [reason.reason for reason in found.history] == ["nine seeds"]


def test_it_records_false_alarms_and_power(baseline):
    stored = json.loads(baseline.read_text())
    assert stored["false_alarm"] <= 0.01
    (entry,) = stored["entries"]
    assert entry["power"] >= max(0.9, entry["power_wide"])
    upper = {metric["name"] for metric in entry["metrics"] if "at_most" in metric}
    assert upper == {"step_time", "memory"}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[:700], "cannot be read"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "newer rilbench"),
        (lambda text: text.replace('"values"', '"worth"'), "no baseline"),
        (lambda text: text.replace('"family"', '"kin"'), "no baseline"),
        (lambda text: "[]", "no baseline"),
        (lambda text: '{"format": 1, "entries": [], "history": []}', "no entry"),
    ],
)
def test_a_damaged_file_is_refused(baseline, damage, words):
    baseline.write_text(damage(baseline.read_text()))
    with pytest.raises(UserError, match=words) as found:
        read_baseline(baseline)
    assert str(baseline) in str(found.value)
    assert "\n" not in str(found.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="--update"):
        read_baseline(tmp_path / "none.json")
