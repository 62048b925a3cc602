"""The table as text: every number is there, nothing is cut, nothing breaks it."""

import csv
import dataclasses
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Score
from rilbench.resources import resource
from rilbench.table import render as rendering
from rilbench.table.build import Choice, build_table
from rilbench.table.footnotes import notes
from rilbench.table.measured_rows import Settings, measured_rows
from rilbench.table.paper_rows import main_rows
from rilbench.table.render import FORMATS
from rilbench.table.rounding import number, signed
from rilbench.table.types import Table, TableRow

NANO = ("MMStar", "MMB", "ChartQA", "MM-Vet")
ESCAPE = "\x1b"


def evaluation(
    method: str, values: tuple[float | None, ...], student: str = "nano", **more: str
) -> Evaluation:
    scores = tuple(
        Score(
            benchmark=name,
            value=value,
            kit="vlmevalkit",
            kit_version="0.0.20",
            dataset=name,
            metric="Overall",
            judge="rilbench-rule-judge-1" if name == "MM-Vet" else None,
            questions=10,
            answered=10,
            missing=0 if value is not None else 2,
            data_sha256=more.get("data", "d"),
        )
        for name, value in zip(NANO, values, strict=True)
    )
    return Evaluation(
        path="/m",
        fingerprint=method,
        student=student,
        method=method,
        teacher=more.get("teacher", "none"),
        suite="nano",
        created="2026-01-02T03:04:05+00:00",
        start_fingerprint=more.get("start"),
        scores=scores,
    )


def rows(*evaluations: Evaluation) -> list[TableRow]:
    return [*paper_rows(), *measured_rows(evaluations, Settings(lambda _: NANO))]


def paper_rows() -> list[TableRow]:
    with Ledger.open_read(Path("no such file")) as ledger:
        return main_rows(ledger)


def render(rows: Sequence[TableRow], name: str, **more: Any) -> str:
    return rendering.render(Table(tuple(rows), tuple(notes(rows))), name, **more)


BASE = evaluation("base", (40.0, 50.0, 60.0, 10.0))
RIL = evaluation("RIL", (63.4, 49.96, 100.0, 9.96), teacher="both", start="base")


def test_json_is_exactly_what_was_promised() -> None:
    listed = json.loads(render(rows(BASE, RIL), "json"))
    assert len(listed) == 32
    for row in listed:
        names = ["source", "student", "method", "teacher", "suite", "scores", "average"]
        assert list(row)[: len(names)] == names
        assert list(row["scores"]) == list(PAPER_14)
    nano = dict(zip(NANO, (63.4, 49.96, 100.0, 9.96), strict=True))
    assert {name: listed[31][name] for name in list(listed[0])} == {
        "source": "measured",
        "student": "nano",
        "method": "RIL",
        "teacher": "both",
        "suite": "nano",
        "scores": {**dict.fromkeys(PAPER_14), **nano},
        "average": pytest.approx(55.83),
    }
    holed = json.loads(render(rows(evaluation("base", (1.0, 2.0, None, 3.0))), "json"))[-1]
    assert holed["average"] is None
    assert holed["scores"]["ChartQA"] is None


def test_the_papers_table_again_from_json() -> None:
    with resource("results/paper/main_table.csv").open() as file:
        lines = list(csv.DictReader(file))
    listed = json.loads(render(paper_rows(), "json"))
    for row, line in zip(listed, lines, strict=True):
        assert {name: f"{value:.1f}" for name, value in row["scores"].items()} == {
            name: line[name] for name in PAPER_14
        }


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_is_a_table() -> None:
    table, notes = render(rows(BASE, RIL), "markdown").split("\n\n")
    lines = [_cells(line) for line in table.splitlines()]
    assert {len(line) for line in lines} == {5 + 14 + 1}
    assert lines[0] == ["source", "student", "method", "teacher", "suite", *PAPER_14, "mean"]
    assert all(re.fullmatch("---:?", cell) for cell in lines[1])
    assert len(lines) == 2 + 32 + 1
    assert lines[2][:7] == ["Tables 1, 2", "Qwen2.5-VL-7B", "base", "none", "paper", "83.9", "87.3"]
    ril, start = (dict(zip(lines[0], line, strict=True)) for line in lines[-2:])
    assert (ril["MMStar"], start["MMStar"]) == ("63.4", "+23.4")
    assert (ril["MMB"], start["MMB"]) == ("50.0", "0.0")
    assert (ril["mean"], start["mean"]) == ("55.8", "+15.8")
    assert (ril["AI2D"], start["method"]) == ("-", "from start")
    assert "MM-Vet: judged by rilbench-rule-judge-1." in notes


def test_the_papers_table_again_in_the_terminal() -> None:
    """Cell by cell, in order; the header is read by the test of the width below."""
    with resource("results/paper/main_table.csv").open() as file:
        lines = list(csv.DictReader(file))
    text = render(paper_rows(), "rich")
    found = [line.split() for line in text.splitlines() if line.startswith("  ")]
    numbers = [cells[-15:-1] for cells in found if re.fullmatch(r"\d+\.\d", cells[-1])]
    assert numbers == [[line[name] for name in PAPER_14] for line in lines]
    students = [line for line in text.splitlines() if line in {line["student"] for line in lines}]
    assert students == list(dict.fromkeys(line["student"] for line in lines))


def test_it_fits_into_100_columns_and_keeps_every_number() -> None:
    text = render(rows(BASE, RIL), "rich")
    assert max(map(len, text.splitlines())) <= 100
    assert "\u2026" not in text
    head = "".join(text.splitlines()[:2])
    for word in ("AI2D", "Chart", "Vista", "MMB", "-CN", "MMMU", "Star", "BLINK", "RWQA", "mean"):
        assert word in head
    measured = text[text.index("MEASURED") :]
    difference = next(line for line in measured.splitlines() if "from start" in line)
    assert difference.split()[2:] == [*"-", "+40.0", "-", "0.0", "-", "0.0", *"---", "+23.4",
                                      *"----", "+15.8"]  # fmt: skip


def test_no_terminal_cuts_or_colours_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = render(rows(BASE, RIL), "rich")
    assert ESCAPE not in plain
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert render(rows(BASE, RIL), "rich") == plain


def test_colour_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    worse = evaluation("worse", (10.0, 50.0, 60.0, 10.0), start="base")
    text = render(rows(BASE, RIL, worse), "rich", colour=True)
    assert re.search(r"\x1b\[[\d;]*32m\+23\.4", text)
    assert re.search(r"\x1b\[[\d;]*31m-30\.0", text)
    assert not re.search(r"\x1b\[[\d;]*3[12]m *0\.0", text)
    bare = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
    plain = render(rows(BASE, RIL, worse), "rich").splitlines()
    assert [line.rstrip() for line in bare] == plain
    for name in ("markdown", "json"):
        assert ESCAPE not in render(rows(BASE, RIL), name, colour=True)


@pytest.mark.parametrize(
    "student", ["[bold]x[/nothing]", "a | b", "<b>x", ":smile:", "two\nlines", "\x1b[31mred", "\\|"]
)
def test_odd_names_break_nothing(student: str) -> None:
    odd = rows(evaluation("base", (40.0, 50.0, 60.0, 10.0), student))
    assert json.loads(render(odd, "json"))[-1]["student"] == student
    text = render(odd, "rich")
    assert ESCAPE not in text
    shown = "".join(text[text.index("MEASURED") :].split())
    assert "".join("".join(c if c.isprintable() else " " for c in student).split()) in shown
    table = render(odd, "markdown").split("\n\n")[0].splitlines()
    assert len(table) == 2 + 31
    assert {len(_cells(line)) for line in table} == {20}


def test_a_long_name_is_whole() -> None:
    name = "a-student-with-quite-a-long-name-without-a-space"
    text = render(rows(evaluation("base", (1.0, 2.0, 3.0, 4.0), name)), "rich")
    assert name in "".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


def test_notes_say_what_a_reader_must_know() -> None:
    holed = evaluation("RIL", (1.0, 2.0, 3.0, None), start="base")
    other = evaluation("GRPO", (1.0, 2.0, 3.0, 4.0), start="base", data="e")
    for name in ("rich", "markdown"):
        text = render(rows(BASE, holed, other), name)
        assert "nano RIL none: missing verdicts: MM-Vet 2 of 10." in text
        assert "\u2260: not compared" in text
        assert "judged by rilbench-rule-judge-1" in text
        plain = render(rows(BASE), name)
        assert "\u2260" not in plain
        assert "missing" not in plain
    assert render(paper_rows(), "rich").splitlines()[-1].split()[-1] == "62.0"


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="rich, markdown, latex, csv, html, json"):
        render(paper_rows(), "pdf")
    assert FORMATS == ("rich", "markdown", "latex", "csv", "html", "json")


def test_csv_is_the_papers_own_file_again() -> None:
    with resource("results/paper/main_table.csv").open() as file:
        lines = list(csv.DictReader(file))
    found = list(csv.DictReader(render(paper_rows(), "csv").splitlines()))
    for row, line in zip(found, lines, strict=True):
        assert (row["student"], row["method"], row["origin"]) == (
            *(line["student"], line["method"], line["source"]),
        )
        assert [float(row[name]) for name in PAPER_14] == [float(line[name]) for name in PAPER_14]


@pytest.mark.parametrize("student", ["=1+1", "@x", 'a"b', "a,b", "a\nb"])
def test_csv_holds_any_name_and_no_formula(student: str) -> None:
    text = render(rows(evaluation("base", (1.0, 2.0, 3.0, 4.0), student)), "csv")
    *_, row = csv.DictReader(text.splitlines())
    assert row["student"][:1] not in "=@"
    assert row["MMStar"] == "1"


def test_latex_is_a_whole_table() -> None:
    odd = rows(BASE, RIL, evaluation("base", (1.0, 2.0, 3.0, 4.0), "a_b & 50% \\x{}|"))
    table = Table(tuple(odd), ("† one_note: ✓",), details=False)
    text = rendering.render(table, "latex")
    lines = [line for line in text.splitlines() if line.endswith(r" \\")]
    whole = [line for line in lines if not line.startswith(r"\multicolumn{18}")]
    assert len(lines) - len(whole) == 2, (
        "the paper's rows and the measured ones have a heading each"
    )
    assert len(whole) == 1 + 30 + 3
    assert all(len(re.split(r"(?<!\\)&", line)) == 3 + 15 for line in whole)
    assert any(
        line.startswith(r"a\_b \& 50\% \textbackslash{}x\{\}\textbar{} & base &") for line in whole
    )
    assert "#" not in text
    base, ril = (next(x for x in whole if x.startswith(f"nano & {m}")) for m in ("base", "RIL"))
    assert r"\textbf{63.4}" in ril
    assert r"\textbf{50.0} & - &" in base, "a tie by its written digits is bold twice"
    assert r"\textbf{50.0}" in ril
    assert r"$^\dagger$ one\_note: $^{\checkmark}$\par" in text
    for word in (r"\toprule", r"\bottomrule", r"\caption{", r"\label{", r"\end{table*}"):
        assert word in text


def test_marks_stand_beside_the_column() -> None:
    from rilbench.table.latex import _cell

    assert _cell("50.0†") == r"50.0\rlap{$^\dagger$}"
    assert _cell("-1.2✓") == r"$-1.2$\rlap{$^{\checkmark}$}"
    assert (_cell("-"), _cell("≠")) == ("-", r"$\neq$")


def test_a_label_in_latex_is_no_option_of_the_line_before() -> None:
    odd = [dataclasses.replace(each, student=name) for each, name in ((BASE, "[x]"), (RIL, "*y"))]
    text = render(rows(*odd), "latex")
    assert "\n{[}x] & " in text
    assert "\n{*}y & " in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_with_the_packages_that_it_names(tmp_path: Path) -> None:
    packages = render(rows(BASE, RIL), "latex").splitlines()[0].removeprefix("% ")
    for details in (False, True):
        odd = evaluation("base", (1.0, 2.0, 3.0, 4.0), "a_b & 50% \\x{}|$#~^<>")
        table = Table(tuple(rows(BASE, RIL, odd)), ("† ≠ ✓ ±: a note",), details=details)
        text = rendering.render(table, "latex")
        body = f"\\documentclass{{article}}{packages}\\begin{{document}}{text}\\end{{document}}"
        (tmp_path / "t.tex").write_text(body)
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-1500:]


def test_ties_go_to_the_even_digit() -> None:
    values = (69.35, 69.65, 69.25, 0.05, 100.0, 69.349)
    assert [number(value) for value in values] == ["69.4", "69.6", "69.2", "0.0", "100.0", "69.3"]
    assert [signed(value) for value in (-0.05, -0.15, 0.15)] == ["0.0", "-0.2", "+0.2"]


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_has_the_benchmarks_as_rows(width: int) -> None:
    text = render(rows(BASE, RIL), "rich", width=width)
    assert max(map(len, text.splitlines())) <= width
    numbers = [n for row in rows(BASE, RIL) for n in map(row.value, (*PAPER_14, "average"))]
    shown = Counter(re.findall(r"(?<![+\-\d])\d+\.\d(?!\d)", text))
    assert shown >= Counter(number(n) for n in numbers if n is not None)
    assert "+23.4" in text


def test_rows_are_chosen_sorted_and_limited(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        for each in (BASE, RIL):
            ledger.record(each)
        choice = Choice(measured=True, sort="mean", suites=("nano",))
        built = build_table(ledger, choice, lambda _: NANO)
        assert [row.method for row in built.rows] == ["RIL", "base"]
        by_vet = dataclasses.replace(choice, sort="mm-vet", limit=1)
        assert [row.method for row in build_table(ledger, by_vet, lambda _: NANO).rows] == ["base"]
        few = dataclasses.replace(BASE.scores[0], value=99.0, missing=9)
        ledger.record(dataclasses.replace(BASE, fingerprint="few", student="few", scores=(few,)))
        by_star = Choice(measured=True, sort="MMStar")
        shown = build_table(ledger, by_star, lambda _: NANO).rows
        assert [row.student for row in shown] == ["nano", "nano", "few"], "one verdict of ten"
        with pytest.raises(UserError, match="no benchmark 'no'"):
            build_table(ledger, Choice(sort="no"), lambda _: NANO)
        with pytest.raises(UserError, match="no row has the suite 'other'"):
            build_table(ledger, Choice(suites=("other",)), lambda _: NANO)


def test_html_shows_names_as_text() -> None:
    name = "<script>alert(1)</script>"
    text = render(rows(evaluation("base", (1.0, 2.0, 3.0, 4.0), name)), "html")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<tr>") == 1 + 30 + 1


def test_what_a_number_is_made_from_is_in_the_json() -> None:
    numbered = [dataclasses.replace(each, id=n) for n, each in enumerate((BASE, RIL), start=7)]
    row = json.loads(render(rows(*numbered), "json"))[-1]
    assert (row["seeds"], row["evaluations"]) == (1, [8])
    assert row["from_start"]["MMStar"] == pytest.approx(23.4)
    assert row["cells"]["MMStar"] == {
        "evaluations": [8],
        "questions_95": None,
        "runs_95": None,
        "paper": None,
        "reproduced": None,
        "differs_in": [],
        "incomplete": False,
        "reading": [{}],
    }


def test_the_columns_of_another_mean_are_named() -> None:
    table = Table(tuple(rows(BASE)), (), ("MMStar", "MMB"))
    assert "mean of MMStar, MMB" in rendering.render(table, "markdown").splitlines()[0]
    head = rendering.render(table, "rich").splitlines()[:3]
    assert [line.split()[-1] for line in head] == ["of", "MMStar", "MMB"]
