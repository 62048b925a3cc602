"""The page in a real Chromium, the network off: it loads, filters, and runs nothing foreign."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect
from report_place import HOSTILE, Place, evaluation, make_place, png, sample

from rilbench.ledger import Ledger
from rilbench.report.page import write_report
from rilbench.report.report_data import gather

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed; on Debian: make chromium"
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
MANY = 130


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as drivers:
        launched = drivers.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 6 questions, and of 130 that one more model was asked."""
    place = make_place(tmp_path_factory.mktemp("browser"))
    _more(place)
    out = place.folder / "report.html"
    with Ledger.open_read(place.db) as ledger:
        write_report(gather(ledger, ["first", "6"]), out)
    return out


def _more(place: Place) -> None:
    from rilbench.data.question_files import Question, write_questions

    samples = [
        sample("MMStar", str(i), stem=f"Question {i}", score=float(i % 2)) for i in range(MANY)
    ]
    place.add(evaluation(samples, suite="other", fingerprint="many11", student="m" * 60))
    data = place.folder / "train.parquet"
    write_questions(data, [Question("q1", (png((9, 9, 9)),), HOSTILE, "gold", "set")])
    with Ledger(place.db) as ledger:
        (run,) = ledger.runs()
        recipe = run.recipe_yaml.replace("nowhere.parquet", str(data))
        ledger.record_run(dataclasses.replace(run, recipe_yaml=recipe))


@dataclasses.dataclass
class Tab:
    page: Any
    troubles: list[str]

    def rows(self) -> Any:
        return self.page.locator("#question-list .row")

    def status(self) -> str:
        return str(self.page.locator("#question-status").inner_text())

    def focused(self) -> int:
        """Which row has the focus; -1 for none."""
        return int(
            self.page.evaluate(
                "[...document.querySelectorAll('#question-list .row')]"
                ".indexOf(document.activeElement)"
            )
        )


def open_tab(browser: Any, file: Path, **options: Any) -> Tab:
    context = browser.new_context(offline=True, **options)
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: _note(troubles, str(request.url)))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]")
    return Tab(page, troubles)


def _note(troubles: list[str], url: str) -> None:
    if not url.startswith(("file:", "data:", "blob:")):
        troubles.append(f"asked the network for {url}")


@pytest.fixture
def tab(browser: Any, file: Path) -> Iterator[Tab]:
    opened = open_tab(browser, file)
    yield opened
    assert opened.page.evaluate("window.hacked") is None
    assert opened.troubles == []
    opened.page.context.close()


def test_it_draws_every_chart_without_a_word_on_the_console(tab: Tab) -> None:
    tab.page.wait_for_selector("html[data-charts]")
    places = tab.page.locator(".plot")
    tab.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    expect(tab.page.locator(".plot svg")).to_have_count(places.count())
    assert places.count() >= 5
    assert "Which" not in tab.page.locator("#benchmarks").inner_text()
    bar = tab.page.locator(".plot svg path[fill^='var(--run0)']").first
    assert bar.evaluate("(node) => getComputedStyle(node).fill") == "rgb(47, 111, 214)"


@pytest.mark.parametrize("kind", ["SVG", "PNG", "CSV"])
def test_every_chart_can_be_saved(tab: Tab, kind: str) -> None:
    """Whole files without the page's variables; the network is off, as everywhere here."""
    tab.page.wait_for_selector("html[data-charts]")
    charts = tab.page.locator("figure.chart")
    curve = charts.locator("h3").all_inner_texts().index("Answer reward")
    for number in (0, curve):
        chart = charts.nth(number)
        with tab.page.expect_download() as saving:
            chart.get_by_role("button", name=f"as {kind}").click()
        name = chart.locator("h3").inner_text().replace(" ", "-")
        assert saving.value.suggested_filename.startswith(f"{name}-first")
        assert saving.value.suggested_filename.endswith(f".{kind.lower()}")
        content = Path(saving.value.path()).read_bytes()
        if kind == "PNG":
            with Image.open(io.BytesIO(content)) as image:
                assert image.width >= 3 * 480
                assert image.getpixel((1, 1))[:3] == (255, 255, 255)
            continue
        text = content.decode("utf-8")
        if kind == "CSV":
            head, first, *_ = text.split("\r\n")
            assert head == ("label,value,low,high" if number == 0 else "line,step,value")
            assert len(first.split(",")) == len(head.split(","))
        else:
            assert text.startswith("<svg")
            assert "var(--" not in text
            assert ("student" if number else "nano ril both") in text
            assert ("step" if number else "points of 100") in text


def test_a_spreadsheet_takes_no_label_for_a_formula(tab: Tab) -> None:
    fields = tab.page.evaluate("""['=1+1', '-a', 'b"c', -1.5, null].map(csvField).join(';')""")
    assert fields == """'=1+1;'-a;"b""c";-1.5;"""


def test_print_in_portrait_has_every_column_of_the_table(browser: Any, file: Path) -> None:
    tab = open_tab(browser, file, viewport={"width": 690, "height": 1000})  # A4 less its margins.
    tab.page.emulate_media(media="print")
    width = tab.page.evaluate("document.querySelector('.scores').getBoundingClientRect().right")
    assert width <= 690
    inside = """[...document.querySelectorAll('.scores td, .scores th')].filter((cell) =>
        cell.offsetParent && cell.scrollWidth > cell.clientWidth + 1).length"""
    assert tab.page.evaluate(inside) == 0
    assert tab.page.locator("th.mean").is_visible()
    assert tab.page.locator(".save").first.is_hidden()
    tab.page.context.close()


def test_hostile_text_is_shown_as_text(tab: Tab) -> None:
    tab.page.fill("#text", "hacked")
    expect(tab.rows()).to_have_count(1)
    tab.rows().first.click()
    said = tab.page.locator("#question-list .answer .said")
    assert said.all_inner_texts().count(HOSTILE) == 1
    tab.page.locator("#group-list .row").first.click()
    texts = tab.page.locator("#group-list .said").all_inner_texts()
    assert texts.count(HOSTILE) == 2
    assert tab.page.locator("#questions script, #groups script").count() == 0


def test_filters_by_benchmark_outcome_and_text(tab: Tab) -> None:
    assert tab.status() == "6 of 6 questions"
    tab.page.select_option("#benchmark", label="BLINK (3)")
    assert tab.status() == "3 of 6 questions"
    counts = tab.page.locator("#outcome label").all_inner_texts()
    assert [each.split()[-1] for each in counts] == ["3", "2", "1", "1", "0", "0", "1"]
    tab.page.locator("#outcome label", has_text="Gained").click()
    assert tab.status() == "1 of 6 questions"
    chips = tab.rows().first.locator(".chip").all_inner_texts()
    assert chips == ["before ✗", "after ✓", "nano-72b ✓", "nano-78b ✓"]
    tab.page.locator("#outcome label", has_text="Lost").click()
    assert "Which is 2?" in tab.rows().first.inner_text()
    tab.page.locator("#outcome label", has_text="No verdict").click()
    assert tab.rows().first.locator(".chip").first.inner_text() == "before ?"
    tab.page.locator("#outcome label", has_text="All").first.click()
    tab.page.fill("#text", "OF 3")
    expect(tab.rows()).to_have_count(1)
    tab.page.fill("#text", "nothing at all")
    expect(tab.rows()).to_have_count(0)
    assert tab.status() == "0 of 6 questions"


def test_other_models_can_be_compared(tab: Tab) -> None:
    tab.page.select_option("#before", label="nano-72b")
    names = tab.page.locator("#outcome label").all_inner_texts()
    assert names[2:4] == ["Gained 0", "Lost 2"]
    tab.page.select_option("#before", label="nothing")
    names = tab.page.locator("#outcome label").all_inner_texts()
    assert names == ["All 6", "Right 4", "Not right 2", "No verdict 0"]


def test_an_open_question_has_its_picture_text_gold_and_answers(tab: Tab) -> None:
    tab.rows().first.click()
    detail = tab.page.locator("#question-list .detail")
    detail.locator("img").wait_for()
    assert (
        detail.locator("img").evaluate("(node) => node.decode().then(() => node.naturalWidth)")
        == 24
    )
    text = detail.inner_text()
    for part in ("Which is 1 of MMStar?\nA. this\nB. that", "read as A · 5 tokens", "nano-78b"):
        assert part in text
    assert detail.locator(".gold").inner_text() == "A"
    tab.rows().first.click()
    assert detail.count() == 0


def test_the_keyboard_alone_is_enough(tab: Tab) -> None:
    page = tab.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("which")
    page.keyboard.press("Escape")
    tab.rows().first.focus()
    for key, row in (("j", 1), ("ArrowDown", 2), ("k", 1), ("End", 5), ("j", 5), ("Home", 0)):
        page.keyboard.press(key)
        assert tab.focused() == row
    page.keyboard.press("Enter")
    assert page.locator("#question-list .detail").count() == 1
    page.select_option("#set", index=1)
    tab.rows().first.focus()
    page.keyboard.press("n")
    assert tab.focused() == 0
    assert "51" in page.locator("#question-list").get_attribute("start")
    page.keyboard.press("p")
    assert page.locator("#question-list").get_attribute("start") == "1"


def test_a_long_list_is_shown_by_pages(tab: Tab) -> None:
    tab.page.select_option("#set", index=1)
    assert tab.status() == f"{MANY} of {MANY} questions"
    assert tab.rows().count() == 50
    tab.page.get_by_role("button", name="Last").click()
    assert tab.rows().count() == MANY - 100
    assert "Question 129" in tab.rows().last.inner_text()
    assert tab.page.locator("#question-pager span").inner_text() == "Page 3 of 3"


def test_the_papers_rows_and_the_intervals_can_be_chosen(tab: Tab) -> None:
    shown = tab.page.locator("tbody.paper:visible")
    assert shown.count() == 1
    tab.page.select_option("#compare", label="all five students")
    assert shown.count() == 5
    tab.page.select_option("#compare", label="nothing")
    assert shown.count() == 0
    interval = tab.page.locator(".scores .i:visible")
    assert interval.count() == 0
    tab.page.check("#intervals")
    assert interval.count() > 0


def test_light_and_dark_by_the_system_and_by_the_button(browser: Any, file: Path) -> None:
    colours = {}
    background = "getComputedStyle(document.body).backgroundColor"
    for scheme in ("light", "dark"):
        tab = open_tab(browser, file, color_scheme=scheme)
        colours[scheme] = tab.page.evaluate(background)
        tab.page.click("#theme")
        assert tab.page.evaluate(background) == colours["light"]
        tab.page.click("#theme")
        dark = tab.page.evaluate(background)
        tab.page.reload()
        tab.page.wait_for_selector("html[data-ready]")
        assert tab.page.evaluate(background) == dark != colours["light"]
        assert tab.troubles == []
        tab.page.context.close()
    assert colours["light"] != colours["dark"]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_at_a_phones_width_nothing_is_wider_than_the_window(
    browser: Any, file: Path, width: int
) -> None:
    tab = open_tab(browser, file, viewport={"width": width, "height": 800})
    tab.rows().first.click()
    tab.page.locator("#group-list .row").first.click()
    for summary in tab.page.locator("details summary").all():
        summary.click()
    assert tab.page.evaluate("document.documentElement.scrollWidth") == width
    assert tab.troubles == []
    tab.page.context.close()
