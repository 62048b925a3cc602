"""The page as a file: nothing escapes, and it is written whole or not at all."""

import base64
import dataclasses
import hashlib
import itertools
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import refused
from command import run as command
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_place import HOSTILE, Place, evaluation, make_place, run, sample

from rilbench.errors import UserError
from rilbench.ledger import Ledger
from rilbench.report import charts
from rilbench.report.page import check_place, render, write_report
from rilbench.report.report_data import gather

SCRIPTS = ["", "application/json", "text/plain", "", "application/json", "text/plain"]
"""The page's own, by type: theme, specifications, questions, script, pictures, charts."""


TAGS: dict[str, int] = {}
"""How often a harmless page has each element; made once."""


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.inside = False
        self.tags: dict[str, int] = {}
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.inside = tag == "script"
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if self.inside:
            self.scripts.append(dict(attrs).get("type") or "")
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data


def page(place: Place, *names: str) -> str:
    with Ledger.open_read(place.db) as ledger:
        return render(gather(ledger, names))


def elements(text: str) -> Elements:
    parser = Elements()
    parser.feed(text)
    parser.close()
    return parser


def test_the_policy_allows_the_pages_own_scripts_and_no_network(place: Place) -> None:
    text = page(place, "first")
    found = elements(text)
    assert found.scripts == SCRIPTS
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    rules = policy[1].replace("&#39;", "'")
    assert rules.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in rules
    assert "script-src 'unsafe-inline'" not in rules
    for number, script in enumerate(found.texts):
        if SCRIPTS[number] == "" or number == len(SCRIPTS) - 1:
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in rules
    outside = re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*\"", text.split("<script type")[0])
    assert outside == []


def test_the_same_ledger_is_the_same_page(place: Place) -> None:
    assert page(place, "first") == page(place, "first")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Iterator[int]]:
    return make_place(tmp_path_factory.mktemp("hostile")), itertools.count(1)


@settings(max_examples=10)
@given(
    text=st.sampled_from(
        [HOSTILE, "'\"><b onclick=x>", "{{ 7*7 }}", "{% raw %}", "]]>", "&lt;i&gt;"]
    )
    | st.text(st.characters(exclude_categories=("Cs",)), min_size=1)
)
@example(text=HOSTILE)
def test_no_text_escapes(numbered: tuple[Place, Iterator[int]], text: str) -> None:
    """Whatever the texts, the page has the elements of a harmless one."""
    place, numbers = numbered
    found = elements(_labelled(place, text, f"hostile-{next(numbers)}"))
    assert found.scripts == SCRIPTS
    assert found.handlers == []
    if not TAGS:
        TAGS.update(elements(_labelled(place, "x", "harmless")).tags)
    assert found.tags == TAGS


def _labelled(place: Place, text: str, fingerprint: str) -> str:
    """A page on which a text stands wherever one can."""
    texts = {"response": text, "gold": text, "stem": text, "extracted": text, "judge": text}
    samples = [sample("MMStar", text, **texts, finish_reason=text)]
    labels = {"student": text, "method": text, "teacher": text, "run": text, "path": text}
    made = evaluation(samples, fingerprint=fingerprint, recipe_fingerprint=fingerprint, **labels)
    (number,) = place.add(made)
    with Ledger(place.db) as ledger:
        own = run(place.folder / fingerprint, name=text, student=text, method=text, teacher=text)
        own = dataclasses.replace(
            own,
            recipe_fingerprint=fingerprint,
            recipe_yaml=text,
            curves={"kl": [0.1, 0.2], "warnings": [[], [text]]},
        )
        ledger.record_run(own)
    return page(place, str(number))


def test_a_run_that_was_not_evaluated_has_its_curves_and_says_so(place: Place) -> None:
    with Ledger(place.db) as ledger:
        ledger.record_run(run(place.folder / "second"))
    text = page(place, "second")
    assert "The ledger has no evaluation of it yet" in text
    assert "Answer reward" in text
    assert 'id="questions"' not in text


def test_the_page_replaces_what_was_there(place: Place) -> None:
    out = place.folder / "report.html"
    out.write_text("old")
    with Ledger.open_read(place.db) as ledger:
        size = write_report(gather(ledger, ["first"]), out)
    assert out.stat().st_size == size
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in place.folder.glob("*.part")) == []


def test_a_page_that_cannot_be_finished_leaves_the_old_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = place.folder / "report.html"
    out.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with Ledger.open_read(place.db) as ledger, pytest.raises(OSError, match="No space"):
        write_report(gather(ledger, ["first"]), out)
    assert out.read_text() == "old"
    assert [p.name for p in place.folder.iterdir() if p.name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone/report.html", "is not a folder"),
        ("report.db", "does not end in .html"),
        ("l.db", "does not end in .html"),
        ("folder.html", "is a folder"),
        ("locked/report.html", "cannot be written"),
        ("kept.html", "cannot be written"),
        ("a\0.html", "is not a file name"),
        ("a" * 300 + ".html", "is not a file name"),
    ],
)
def test_a_place_that_no_page_can_go_to_is_one_line(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "kept.html").write_text("kept")
    (tmp_path / "kept.html").chmod(0o444)
    with pytest.raises(UserError, match=message) as found:
        check_place(tmp_path / name)
    assert "\n" not in str(found.value)


def test_the_command(place: Place) -> None:
    out = place.folder / "out.html"
    done = command("report", "first", "5", "--db", str(place.db), "-o", str(out), cwd=place.folder)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"written: .*out\.html \(\d\.\d MB\)\n", done.stdout)
    assert out.stat().st_size > 500_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "has no evaluation 'nothing'; the last are: .*; its runs are: first"),
        (["first", "-o", "gone/x.html"], "gone is not a folder; make it or give another -o"),
        (["first", "--pictures", "-1"], "--pictures -1 is not between 0 and 100 megabytes"),
        (["first", "--db", "none.db"], "none.db does not exist; rilbench eval writes it"),
        (["first", "--teacher", "no one"], "has no evaluation 'no one'"),
    ],
)
def test_a_mistake_is_one_line(place: Place, arguments: list[str], message: str) -> None:
    db = [] if "--db" in arguments else ["--db", str(place.db)]
    done = command("report", *arguments, *db, cwd=place.folder)
    refused(done)
    assert re.search(message, done.stderr)
    assert not (place.folder / "report.html").exists()


def test_the_charts_script_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundles = SimpleNamespace(javascript_bundle=lambda code: f"library; {code}")
    monkeypatch.setitem(sys.modules, "vl_convert", bundles)
    charts.javascript.cache_clear()
    made = charts.javascript()
    assert made.startswith("library; window.vegaEmbed")
    (kept,) = (tmp_path / "rilbench").iterdir()
    assert kept.read_text(encoding="utf-8") == charts.kept_javascript() == made
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    charts.javascript.cache_clear()
    assert charts.javascript() == made
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert charts.kept_javascript() == ""
    charts.javascript.cache_clear()
