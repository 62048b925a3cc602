"""The verdicts as a JUnit file for continuous integration: each metric is a test."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from rilbench.check.compare import Verdict
from rilbench.paths import whole_file
from rilbench.printable import printable


def write_junit(verdicts: Sequence[Verdict], path: Path) -> None:
    """Write a test suite for each entry, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    root = ET.Element("testsuites", {"name": "rilbench check", **_counts(verdicts)})
    for label in dict.fromkeys(verdict.entry for verdict in verdicts):
        group = [verdict for verdict in verdicts if verdict.entry == label]
        suite = ET.SubElement(root, "testsuite", {"name": printable(label), **_counts(group)})
        for verdict in group:
            name = printable(verdict.metric)
            case = ET.SubElement(suite, "testcase", classname=printable(label), name=name, time="0")
            side = "at most" if verdict.lower_is_better else "at least"
            value = "-" if verdict.value is None else f"{verdict.value:.4f}"
            text = f"measured {value}, {side} {verdict.limit:.4f}, usual {verdict.usual:.4f}"
            why = printable(verdict.why)
            if not verdict.open:
                ET.SubElement(case, "failure", type=verdict.state, message=why).text = text
                continue
            if verdict.state in ("skipped", "no bound"):
                ET.SubElement(case, "skipped", message=why)
            ET.SubElement(case, "system-out").text = text
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.indent(root)
    with whole_file(path) as part:
        ET.ElementTree(root).write(part, encoding="utf-8", xml_declaration=True)


def _counts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    return {
        "tests": str(len(verdicts)),
        "failures": str(sum(not verdict.open for verdict in verdicts)),
        "errors": "0",
        "skipped": str(sum(verdict.open and verdict.state != "passed" for verdict in verdicts)),
        "time": "0",
    }
