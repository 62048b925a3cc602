"""The verdicts as a JUnit file for continuous integration: each metric is a test."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from rilbench.check.compare import Verdict

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot carry: labels may have come from a folder's name."""


def write_junit(verdicts: Sequence[Verdict], path: Path) -> None:
    """Write a test suite for each entry, whole or not at all."""
    root = ET.Element("testsuites", {"name": "rilbench check", **_counts(verdicts)})
    for label in dict.fromkeys(verdict.entry for verdict in verdicts):
        group = [verdict for verdict in verdicts if verdict.entry == label]
        suite = ET.SubElement(root, "testsuite", {"name": _clean(label), **_counts(group)})
        for verdict in group:
            name = _clean(verdict.metric)
            case = ET.SubElement(suite, "testcase", classname=_clean(label), name=name, time="0")
            side = "at most" if verdict.lower_is_better else "at least"
            value = "-" if verdict.value is None else f"{verdict.value:.4f}"
            text = f"measured {value}, {side} {verdict.limit:.4f}, usual {verdict.usual:.4f}"
            why = _clean(verdict.why)
            if not verdict.open:
                ET.SubElement(case, "failure", type=verdict.state, message=why).text = text
                continue
            if verdict.state in ("skipped", "no bound"):
                ET.SubElement(case, "skipped", message=why)
            ET.SubElement(case, "system-out").text = text
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    ET.indent(root)
    ET.ElementTree(root).write(part, encoding="utf-8", xml_declaration=True)
    part.replace(path)


def _counts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    return {
        "tests": str(len(verdicts)),
        "failures": str(sum(not verdict.open for verdict in verdicts)),
        "errors": "0",
        "skipped": str(sum(verdict.open and verdict.state != "passed" for verdict in verdicts)),
        "time": "0",
    }


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
