"""The JUnit file: a test for each metric, failures by name, whatever the labels hold."""

import xml.etree.ElementTree as ET

from rilbench.check.compare import Verdict
from rilbench.check.junit import write_junit

VERDICTS = [
    Verdict("nano/ril", "MMB", "passed", 70.0, 60.0, 71.0),
    Verdict("nano/ril", "mean", "failed", 50.0, 60.0, 71.0, "50 is below 60 <&>"),
    Verdict("nano/ril", "memory", "skipped", None, 2.0, 1.0, "no run"),
    Verdict("a\x00b\x1b[31m", "mean", "not measured", None, 60.0, 71.0, "no \x08score"),
]


def test_the_file(tmp_path):
    path = tmp_path / "reports" / "check.xml"
    write_junit(VERDICTS, path)
    root = ET.parse(path).getroot()
    assert (root.tag, root.get("tests"), root.get("failures"), root.get("skipped")) == (
        *("testsuites", "4", "2"),
        "1",
    )
    first, second = root
    assert (first.get("name"), first.get("tests"), first.get("failures")) == ("nano/ril", "3", "1")
    cases = {case.get("name"): case for case in first}
    assert cases["MMB"].find("failure") is None
    failure = cases["mean"].find("failure")
    assert failure.get("message") == "50 is below 60 <&>"
    assert failure.get("type") == "failed"
    assert "at least 60.0000" in failure.text
    assert cases["memory"].find("skipped") is not None
    assert second.get("name") == "a b [31m"
    assert [path.name for path in path.parent.iterdir()] == ["check.xml"]
