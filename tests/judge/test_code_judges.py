"""Judges of other installed packages: found by name, checked, served, asked by train and eval."""

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from plugin_package import install_plugin

from rilbench.errors import UserError
from rilbench.evaluate.judge_session import Judge, code_judge_name, read_judge, running_judge
from rilbench.judge.client import JudgeClient, Verdict
from rilbench.judge.code_judges import JUDGES_GROUP, RULE_JUDGE, find_judge, judge_names
from rilbench.judge.server import serve_judge

LENIENT = """
def plugin(question, reference, response):
    if "?" not in question and "1 + 1" not in question:
        return None
    return reference.lower() in response.lower()
"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, code: str) -> str:
    return install_plugin(monkeypatch, folder, JUDGES_GROUP, name, code)


def grading_prompt(question: str, truth: str, prediction: str) -> str:
    examples = "Just complete the last space of the correctness score.\n\n"
    examples += "that these contradictions and their actual physical characteristics. | 1.0\n\n"
    return examples + " | ".join([question, truth, prediction, ""])


def verdicts(url: str, *asked: tuple[str, str, str]) -> list[Verdict]:
    async def ask() -> list[Verdict]:
        async with JudgeClient(url, backoff=0.001) as client:
            return [await client.verdict(*texts) for texts in asked]

    return asyncio.run(ask())


def test_a_judge_is_a_function_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(LENIENT)
    name = "mine.py:plugin"
    with serve_judge(name) as url:
        right, none = verdicts(url, ("Colour?", "red", "It is red"), ("Colour", "red", "red"))
    assert (right.value, none.value) == (1, None)
    judge = find_judge(name)
    assert right.judge == judge.model
    assert judge.model.startswith("mine.py:plugin-")
    assert read_judge(name) == Judge(None, name)
    assert code_judge_name(read_judge(name)) == judge.model
    file.write_text(LENIENT.replace("lower", "upper"))
    assert find_judge(name).model != judge.model, "another code is another judge"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "there is no file mine.py; give its path from here"),
        ("import a_module_that_nobody_has", "cannot be imported .*; fix it"),
        ("x = 1", "has no function 'judge'"),
        ("judge = 1", "is not a function"),
        ("def judge(*texts): raise KeyError('x')", "raised KeyError.*: fix mine.py"),
        ("def judge(*texts): return 1.5", r"returned 1\.5; a judge returns 1, 0 or None: fix mine"),
    ],
)
def test_a_file_that_is_no_judge_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if code is not None:
        (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError, match=message) as told:
        find_judge("mine.py:judge")
    assert "\n" not in str(told.value)


def test_the_parser_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rilbench.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"parser needs math_verify.*pip install 'rilbench\[parser"):
        find_judge("parser")


def test_the_rules_are_built_in() -> None:
    assert judge_names()[0] == "rule"
    assert find_judge("rule").model == RULE_JUDGE
    assert find_judge("rule").decide("How many?", "12", "The answer is 12.") == 1.0


def test_a_plug_in_is_found_and_its_name_has_the_packages_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "lenient", LENIENT)
    assert "lenient" in judge_names()
    judge = find_judge("lenient")
    assert judge.model == "lenient_plugin/lenient-1.2"
    assert judge.decide("Colour?", "red", "It is red, I think") == 1.0
    assert judge.decide("Colour", "red", "It is red, I think") is None


def test_a_plug_in_is_served_to_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "lenient", LENIENT)
    with serve_judge("lenient") as url:
        right, wrong, none = verdicts(
            url,
            ("Colour?", "red", "It is red, I think"),
            ("Colour?", "red", "blue"),
            ("Colour", "red", "red"),
        )
    assert right.judge == "lenient_plugin/lenient-1.2"
    assert (right.value, wrong.value, none.value) == (1, 0, None)
    assert "gives no verdict" in none.text


def test_a_plug_in_is_served_to_the_kits_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "lenient", LENIENT)
    judge = read_judge("lenient")
    assert judge == Judge(None, "lenient")
    with running_judge(judge, tmp_path / "cache") as running:
        running.begin()
        assert (running.name, running.exact) == (code_judge_name(judge), True)

        def ask(prompt: str) -> str:
            body = json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode()
            with urllib.request.urlopen(f"{running.url}/chat/completions", body) as reply:
                return str(json.load(reply)["choices"][0]["message"]["content"])

        assert ask(grading_prompt("Colour?", "red", "It is red")) == "1.0"
        assert ask(grading_prompt("Colour?", "red", "blue")) == "0.0"
        with pytest.raises(urllib.error.HTTPError, match="503"):
            ask(grading_prompt("Colour", "red", "red"))
        provenance = running.provenance()
        assert provenance["name"] == "lenient_plugin/lenient-1.2"
        assert provenance["verdicts"] == {"asked": 3, "judge": 2, "cached": 0, "failed": 1}
        assert "gives no verdict" in str(running.troubles)
    assert not (tmp_path / "cache").exists(), "the code may change without its version"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("broken", "import a_module_that_nobody_has", "ModuleNotFoundError"),
        ("absent", "x = 1", "AttributeError"),
        ("nan", "plugin = lambda *texts: float('nan')", "returned nan"),
        ("large", "plugin = lambda *texts: 2", "returned 2"),
        ("partial", "plugin = lambda *texts: 0.5", r"returned 0\.5"),
        ("text", "plugin = lambda *texts: 'yes'", "returned 'yes'"),
        ("listed", "plugin = lambda *texts: [1]", r"returned \[1\]"),
        ("short", "plugin = lambda question: 1", "raised TypeError"),
        ("number", "plugin = 3", "raised TypeError"),
    ],
)
def test_a_broken_plug_in_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, message: str
) -> None:
    package = install(monkeypatch, tmp_path, name, code)
    for start in (lambda: find_judge(name), lambda: read_judge(name)):
        with pytest.raises(UserError, match=message) as told:
            start()
        assert f"fix or uninstall {package}" in str(told.value)
        assert "\n" not in str(told.value)


def test_a_plug_in_that_breaks_later_gives_no_verdict_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "plugin = lambda question, *texts: 1 if '1 + 1' in question else float('nan')"
    install(monkeypatch, tmp_path, "late", code)
    with serve_judge("late") as url:
        (verdict,) = verdicts(url, ("Colour?", "red", "red"))
    assert verdict.value is None
    assert verdict.text == (
        "HTTP 400: judge 'late' of late_plugin returned nan; a judge returns 1, 0 or None: "
        "fix or uninstall late_plugin"
    )


def test_an_unknown_judge_is_refused_with_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "lenient", LENIENT)
    with pytest.raises(
        UserError, match=r"unknown judge 'strict'; choose from rule, parser, lenient, name"
    ):
        find_judge("strict")
    with pytest.raises(UserError, match=r"exact, parser, lenient; a key goes into"):
        read_judge("strict")
