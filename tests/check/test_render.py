"""The verdicts in a job summary and as annotations, whatever the labels hold."""

from rilbench.check.compare import Verdict
from rilbench.check.render import append_job_summary, error_annotations

HOSTILE = "a|b\n<img src=x>`c`[d](e) @you\x1b[31m"
VERDICTS = [
    Verdict("nano/ril", "MMB", "passed", 70.0, 60.0, 71.0),
    Verdict("nano/ril", "mean", "failed", 50.0, 60.0, 71.0, "50 is below 60"),
    Verdict("nano/ril", "memory", "skipped", None, 2.0, 1.0, "no run"),
    Verdict(HOSTILE, "OwnBench", "not measured", None, 60.0, 71.0, f"100 %\r\n::error::{HOSTILE}"),
]


def test_each_entry_has_a_table_with_its_failures_first(tmp_path):
    append_job_summary(VERDICTS, tmp_path / "summary.md")
    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert lines[0] == "### rilbench check: failed"
    assert lines[2] == "2 of 4 metrics outside their bounds or not comparable."
    rows = [line for line in lines if line.startswith(("| ✅", "| ❌", "| ·"))]
    assert rows[0] == "| ❌ | mean | 50.000 | ≥ 60.000 | 71.000 | failed: 50 is below 60 |"
    assert rows[1] == "| ✅ | MMB | 70.000 | ≥ 60.000 | 71.000 | passed |"
    assert rows[2] == "| · | memory | - | ≤ 2.000 | 1.000 | skipped: no run |"


def test_a_passed_check_says_so_and_steps_share_the_file(tmp_path):
    path = tmp_path / "summary.md"
    append_job_summary(VERDICTS[:1], path)
    append_job_summary(VERDICTS[2:3], path)
    assert path.read_text().count("### rilbench check: passed") == 2
    assert path.read_text().count("1 metrics within their bounds.") == 1
    assert path.read_text().count("0 metrics within their bounds.") == 1, "skipped is not passed"


def test_hostile_text_stays_in_its_table_cell(tmp_path):
    append_job_summary(VERDICTS[3:], tmp_path / "summary.md")
    text = (tmp_path / "summary.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| ❌")]
    bare = row.replace("\\|", "")
    assert bare.count("|") == 7
    assert "<img" not in row.replace("\\<", "")
    assert "\x1b" not in text


def test_one_annotation_for_each_metric_that_closes_the_gate():
    first, second = error_annotations(VERDICTS)
    assert first == "::error title=rilbench check%3A mean failed::nano/ril: 50 is below 60"
    assert "\n" not in second
    assert "\r" not in second
    assert "100 %25  " in second
