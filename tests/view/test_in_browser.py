"""`rilbench view` as a user starts it, in a real Chromium."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from report_place import HOSTILE, Place

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed; on Debian: make chromium"
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture
def address(place: Place) -> Iterator[str]:
    command = [sys.executable, "-c", "from rilbench.cli import main; main()", "view"]
    with subprocess.Popen(
        [*command, "--db", str(place.db)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at http://127.0.0.1:" in line
        yield line.split(" at ")[1].split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_from_the_table_to_a_question_and_its_picture(address: str) -> None:
    from playwright.sync_api import sync_playwright

    troubles: list[str] = []
    with sync_playwright() as drivers:
        browser = drivers.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))

        def outside(request: Any) -> None:
            if not request.url.startswith((address, "data:", "blob:")):
                troubles.append(request.url)

        page.on("request", outside)
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.select_option("select[name=student]", "nano")
        page.wait_for_url("**student=nano**")
        page.check("input[name=name][value='1']")
        page.check("input[name=name][value='2']")
        page.get_by_role("button", name="side by side").click()
        page.wait_for_selector("html[data-ready]")
        rows = page.locator("#question-list .row")
        assert rows.count() == 6
        page.locator("#outcome label", has_text="Gained").click()
        assert rows.count() == 2
        rows.first.click()
        picture = page.locator("#question-list .detail img")
        picture.wait_for()
        assert picture.evaluate("(node) => node.decode().then(() => node.naturalWidth)") == 24
        assert HOSTILE in page.locator("#question-list .said").all_inner_texts()
        page.wait_for_selector("html[data-charts]")
        page.locator("figure.chart").first.scroll_into_view_if_needed()
        page.locator(".plot svg").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("window.hacked") is None
        browser.close()
    assert troubles == []
