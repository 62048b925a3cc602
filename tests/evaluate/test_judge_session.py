"""What --judge says."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from fake_judge import fake_judge, says

from rilbench.errors import UserError
from rilbench.evaluate.judge_session import Judge, read_judge, running_judge
from rilbench.judge.server import RULE_JUDGE


@pytest.mark.parametrize(
    ("text", "judge"),
    [
        (None, Judge()),
        ("exact", Judge()),
        ("http://127.0.0.1:8000/v1", Judge("http://127.0.0.1:8000/v1")),
        ("Qwen/Qwen2.5-32B@http://host:8000/v1/", Judge("http://host:8000/v1", "Qwen/Qwen2.5-32B")),
        ("m@https://host/v1/chat/completions", Judge("https://host/v1", "m")),
    ],
)
def test_a_judge_is_read(text: str | None, judge: Judge) -> None:
    assert read_judge(text) == judge


@pytest.mark.parametrize("text", ["gpt-4o", "", "m@host:8000", "sk-12@m@http://host/v1", "ftp://x"])
def test_another_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="give MODEL@URL, such as"):
        read_judge(text)


@pytest.mark.parametrize("option", [None, "exact", "rule", "parser", "mine.py:judge"])
def test_fields_for_a_judge_that_takes_none_are_refused(option: str | None) -> None:
    named = f"--judge is {option or 'exact'}; give --judge MODEL@URL"
    with pytest.raises(UserError, match=re.escape(named)):
        read_judge(option, {"temperature": 1})


def test_the_rules_read_no_option(tmp_path: Path) -> None:
    with running_judge(Judge(), tmp_path) as judge:
        assert (judge.name, judge.exact, judge.troubles) == (RULE_JUDGE, True, {})
        judge.begin()
        assert judge.provenance() == {"name": RULE_JUDGE}


def test_a_language_model_is_probed_and_tells_its_name(tmp_path: Path) -> None:
    with fake_judge(lambda _: says("hi")) as real:
        with running_judge(Judge(real.url, "org/m"), tmp_path) as judge:
            assert (judge.name, judge.exact) == ("judge-2026-01", False)
            assert judge.url != real.url
            assert judge.provenance()["model"] == "org/m"
            judge.begin()
            found = {"asked": 1, "judge": 1, "cached": 0, "failed": 0}
            body = json.dumps({"messages": [{"role": "user", "content": "is it?"}]}).encode()
            for verdicts in (found, {**found, "judge": 0, "cached": 1}):
                judge.begin()
                with urllib.request.urlopen(judge.url, body, timeout=30):
                    assert judge.provenance()["verdicts"] == verdicts
        with (
            pytest.raises(UserError, match=r"no judge: .* name it"),
            running_judge(Judge(real.url), tmp_path),
        ):
            pass


@pytest.mark.parametrize(
    ("listed", "fields", "refuses", "identity"),
    [
        ({"id": "org/m", "root": "org/m"}, None, False, "judge-2026-01"),
        ({"id": "org/m", "root": "/m/7", "revision": "a1"}, None, False, "judge-2026-01 /m/7 a1"),
        ({"id": "org/m"}, {}, False, "judge-2026-01 fields-44136fa3"),
        ({"id": "org/m"}, {"top_p": 1, "n": 1}, False, "judge-2026-01 fields-6a75f7fe"),
        ({"id": "org/m"}, {"n": 1, "top_p": 1}, False, "judge-2026-01 fields-6a75f7fe"),
        ({"id": "org/m"}, None, True, "judge-2026-01 without-temperature"),
    ],
)
def test_a_judge_is_its_name_its_revision_and_how_it_is_asked(
    tmp_path: Path,
    listed: dict[str, str],
    fields: dict[str, Any] | None,
    refuses: bool,
    identity: str,
) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        refused = refuses and "temperature" in body
        return (400, b"unsupported parameter: temperature") if refused else says("hi")

    with (
        fake_judge(answer, [listed]) as real,
        running_judge(Judge(real.url, "org/m", fields), tmp_path) as judge,
    ):
        assert judge.identity == judge.provenance()["name"] == identity
