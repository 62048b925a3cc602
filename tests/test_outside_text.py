"""Text from outside through every command that reads, in every format: nothing raw comes out."""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from measured import score, training_run
from rich.console import Console
from typer.testing import CliRunner

from rilbench.check.compare import Verdict
from rilbench.check.junit import write_junit
from rilbench.check.render import append_job_summary, as_json, error_annotations, verdict_table
from rilbench.cli import app, main
from rilbench.ledger import Evaluation, Ledger, Sample
from rilbench.printable import no_formula, printable, printable_json
from rilbench.report.page import render as render_report
from rilbench.report.report_data import gather

NASTY = (
    *("\x1b[2J", "\x1b]8;;http://x\x07", "\x9b31m", "\x07", "\x08", "\r\n", "\n::error::x", "\x85"),
    *("\u202e", "\u2066", "\u200f", "\u061c", "\u2028", "\ufeff", "\U000e0041"),
    *("[red]kept[/red]", "[/]", ":smile:", "=1+1", "@x", "\t=1", "<script>x</script>", "&lt;"),
    *("|", "`", r"\input{x}", "%", "$", "^", "#", "ü", "文", "🙂", " ", "a", "/", ","),
)
ALL = "".join(NASTY)
TEXTS = st.lists(st.one_of(st.sampled_from(NASTY), st.characters(exclude_categories=["Cs"])))


def evaluation(text: str, **more: Any) -> Evaluation:
    """Every text of it begins with a word and ends with the text."""
    name = f"B{text}"
    samples = [
        Sample(
            **{"benchmark": benchmark, "question_id": f"{n}{text}", "prompt_hash": "h"},
            response=f"{more.get('seed')}{text}",
            score=float((n + more["seed"]) % 2),
            **dict.fromkeys(("gold", "extracted", "judge", "finish_reason", "stem"), text),
            stratum=text,
            category=text,
        )
        for benchmark in (name, "MMStar")
        for n in range(2)
    ]
    own = dict.fromkeys(("kit_version", "dataset", "metric", "judge", "data_state"), text)
    counts = {"questions": 2, "answered": 2}
    values = {
        **{"path": f"/m{text}", "student": text, "method": text, "teacher": text, "suite": "nano"},
        **{"fingerprint": f"model-{more.get('seed')}", "created": "2026-01-02T03:00:00+00:00"},
        "run": f"run{text}",
        "settings": {text: text, "reading": {}, "generation": {text: [text]}},
        "scores": tuple(score(b, 50.0, **own, **counts) for b in (name, "MMStar")),
        "samples": tuple(samples),
    }
    return Evaluation(**{**values, **more})


def fill(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with Ledger(path) as ledger:
        for seed in (1, 2):
            for family in ("first", "second"):
                own = {"seed": seed, "family": family * 3, "recipe_fingerprint": f"{family}{seed}"}
                fingerprint = f"{family}-{seed}"
                ledger.record(evaluation(text, **own, fingerprint=fingerprint))
                run = training_run(seed, name=f"run{text}", path=f"/runs/{family}{seed}{text}")
                # No recipe with control characters can be read; it is shown nevertheless.
                recipe = json.dumps({text: family, "x": text}) + (text if seed == 2 else "")
                labels = {"student": text, "method": text, "teacher": text, "recipe_yaml": recipe}
                ledger.record_run(
                    dataclasses.replace(run, **labels, recipe_fingerprint=f"{family}{seed}")
                )


def is_clean(text: str) -> bool:
    """Whether a terminal shows it as it is written."""
    return all(mark.isprintable() or mark == "\n" for mark in text)


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--db", "l.db"])
    assert done.exception is None, (arguments, done.exception)
    assert is_clean(done.output), arguments
    return done.stdout


# Its folder is the same for all examples: each writes the ledger again.
@settings(
    max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(texts=TEXTS)
@example(texts=[ALL])
def test_nothing_raw_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    text = "".join(texts)
    monkeypatch.chdir(tmp_path)
    fill(Path("l.db"), text)
    kept = " ".join(printable(text).split())[:20].strip()
    squeezed = "".join(kept.split())
    # Markup is shown and not followed; a cell may break it over lines.
    for arguments in (("show", "1"), ("table",), ("table", "--seeds")):
        assert squeezed in "".join(said(*arguments).split()), arguments
    for arguments in (
        *(("show",), ("show", f"/runs/first1{text}"), ("table", "--by", "category")),
        ("show", "1", "--question", f"MMStar/0{text}"),
        *(("compare", "1", "3", "--questions"), ("compare", "firstfirst", "secondsecond")),
    ):
        said(*arguments)
    for name in ("json", "markdown", "latex", "csv", "html"):
        table = said("table", "--only", "measured", "--format", name)
        if name == "json":
            assert json.loads(table)[0]["student"] == text
        elif name == "csv":
            cells = [cell for row in csv.reader(io.StringIO(table)) for cell in row]
            assert not [c for c in cells if c.lstrip()[:1] in tuple("=+@") and c.strip()]
        elif name == "html":
            assert "<script" not in table
        elif name == "latex":
            assert r"\input" not in table
        else:
            rows = [line for line in table.splitlines() if line.startswith("| ")]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert json.loads(said("show", "1", "--format", "json"))[0]["student"] == text
    found = json.loads(said("compare", "1", "3", "--format", "json"))
    assert found["first"]["student"] == text
    said("compare", "firstfirst", "secondsecond", "--format", "json")


@given(texts=TEXTS)
def test_json_is_the_same_and_shows_nothing_raw(texts: list[str]) -> None:
    text = "".join(texts)
    written = printable_json({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert is_clean(written)


@given(texts=TEXTS)
def test_a_cell_is_no_formula(texts: list[str]) -> None:
    assert no_formula("".join(texts)).lstrip()[:1] not in tuple("=+-@")


def test_errors_are_one_clean_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("l.db"), ALL)
    for arguments in (
        *(["show", ALL], ["compare", ALL, "1"], ["table", "--student", "none"]),
        *(["show", "1", "--question", f"{ALL}/1"], ["show", "1", "--question", "MMStar/9"]),
        ["report", ALL],
    ):
        monkeypatch.setattr(sys, "argv", ["rilbench", *arguments, "--db", "l.db"])
        with pytest.raises(SystemExit):
            main()
        error = capsys.readouterr().err
        assert is_clean(error), arguments
        assert error.count("\n") == 1, arguments


def test_the_gates_outputs(tmp_path: Path) -> None:
    verdicts = [Verdict(ALL, ALL, "failed", 1.0, 2.0, 3.0, ALL)]
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(verdict_table(verdicts))
    append_job_summary(verdicts, tmp_path / "summary.md")
    write_junit(verdicts, tmp_path / "junit.xml")
    summary = (tmp_path / "summary.md").read_text()
    for text in (
        *(console.export_text(), as_json(verdicts), summary),
        *((tmp_path / "junit.xml").read_text(), *error_annotations(verdicts)),
    ):
        assert is_clean(text)
    assert not re.search(r"(?<!\\)<script", summary)
    assert len(error_annotations(verdicts)[0].splitlines()) == 1


def test_the_report(tmp_path: Path) -> None:
    fill(tmp_path / "l.db", ALL)
    fill(tmp_path / "plain.db", "a")
    pages = []
    for name in ("plain.db", "l.db"):
        with Ledger.open_read(tmp_path / name) as ledger:
            pages.append(render_report(gather(ledger, ["1", "3"], [])))
    odd = [{mark for mark in page if not mark.isprintable()} for page in pages]
    assert odd[1] <= odd[0] | {"\t"}
    assert "<script>x" not in pages[1]
    (packed,) = re.findall(r"H4sI[A-Za-z0-9+/]{50,}={0,2}", pages[1])
    payload = json.loads(gzip.decompress(base64.b64decode(packed)))
    for text in texts_of(payload):
        assert is_clean(text.replace("\t", ""))


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from texts_of(entry)
