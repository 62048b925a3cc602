"""The ledger's pages over HTTP: what is answered, what is refused, what is escaped."""

import asyncio
import dataclasses
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from report_place import HOSTILE, Place, evaluation, outcomes, run

from rilbench.ledger import Ledger
from rilbench.scratch import is_locked
from rilbench.view.server import View, application

Client = TestClient[Any, Any]


def asked(place: Place, act: Callable[[Client], Awaitable[Any]]) -> Any:
    """What a coroutine finds out from a server of its own."""

    async def served() -> Any:
        async with TestClient(TestServer(application(View(place.db)))) as client:
            return await act(client)

    return asyncio.run(served())


def page(place: Place, path: str, status: int = 200, **headers: str) -> str:
    async def get(client: Client) -> str:
        answer = await client.get(path, headers=headers)
        assert answer.status == status, await answer.text()
        return await answer.text()

    return str(asked(place, get))


def rows(text: str) -> list[str]:
    return re.findall(r'aria-label="Choose ([^"]*)"', text)


def test_the_table_has_every_model_and_its_filters(place: Place) -> None:
    assert rows(page(place, "/")) == [
        *("nano", "nano ril both (first)", "nano-72b", "nano-78b", "other"),
    ]
    assert rows(page(place, "/?method=ril")) == ["nano ril both (first)"]
    assert rows(page(place, "/?student=nano&text=CHECKPOINT")) == ["nano ril both (first)"]
    assert rows(page(place, "/?suite=paper")) == []
    assert "Nothing in the ledger is like this" in page(place, "/?text=no%20such%20thing")
    one = page(place, "/?benchmark=BLINK")
    assert re.findall(r'<th scope="col" class="[^"]*">(.*?)</th>', one) == ["BLINK", "Mean"]
    assert 'href="/report?name=2"' in one
    assert "first" in one[one.index('id="runs"') :]


def test_a_name_that_no_file_can_have_is_one_line(place: Place) -> None:
    for name in (f"nano:{'a' * 300}", "a" * 300, "9" * 5000, "%00", "%F0%9F"):
        for path in ("report", "questions", "curves"):
            assert "\n" not in page(place, f"/{path}?name={name}", 404)


def test_a_report_is_the_one_of_the_command_and_its_questions_come_later(place: Place) -> None:
    text = page(place, "/report?name=first")
    assert "nano trained by ril, teachers: both, seed 3" in text
    assert 'data-address="/questions?name=first"' in text

    async def questions(client: Client) -> Any:
        value = await (await client.get("/questions?name=first")).json()
        picture = await client.get(value["pictures"][0])
        assert picture.content_type == "image/webp"
        assert (await picture.read())[:4] == b"RIFF"
        assert (await client.get("/picture/999")).status == 404
        return value

    value = asked(place, questions)
    (found,) = value["sets"]
    assert len(found["questions"]) == 6
    assert [each["role"] for each in found["columns"]] == ["before", "after", "teacher", "teacher"]
    assert value["runs"][0]["steps"]


def test_several_numbers_are_one_report(place: Place) -> None:
    text = page(place, "/report?name=1,2&name=5")
    assert "3 side by side" in text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:80", 200), ("[::1]:80", 200), ("[::1]", 200), ("localhost:9", 200)),
        *(("evil.example", 403), ("evil.example:8000", 403), ("localhost.evil.example", 403)),
        *(("127.0.0.1.evil.example", 403), ("", 403)),
    ],
)
def test_a_name_that_somebody_pointed_here_is_refused(place: Place, host: str, status: int) -> None:
    page(place, "/", status, Host=host)


def test_nothing_can_be_written_and_nothing_else_is_served(place: Place) -> None:
    async def refused(client: Client) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await client.request(method, "/")).status == 405
        for path in ("/../l.db", "/l.db", "/picture/-1", "/picture/../l.db", "/etc/passwd"):
            assert (await client.get(path)).status == 404

    before = place.db.read_bytes()
    asked(place, refused)
    assert place.db.read_bytes() == before


def test_every_answer_has_the_headers_that_keep_it_here(place: Place) -> None:
    async def look(client: Client) -> None:
        for path in ("/", "/report?name=first", "/questions?name=1", "/report?name=x", "/gone"):
            headers = (await client.get(path)).headers
            policy = headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'sha256-")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe-eval" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Access-Control-Allow-Origin" not in headers

    asked(place, look)


def test_a_mistake_is_a_line_of_plain_text(place: Place) -> None:
    assert "has no evaluation 'nothing'" in page(place, "/report?name=nothing", 404)
    assert "nothing is chosen" in page(place, "/report", 404)
    text = page(place, "/report?name=%3Cscript%3E", 404)
    assert "<!doctype" not in text


def test_hostile_labels_and_filters_stay_text(place: Place) -> None:
    place.add(evaluation(outcomes({}), student=HOSTILE, method=HOSTILE, fingerprint="bad111"))
    with Ledger(place.db) as ledger:
        ledger.record_run(run(place.folder / "bad", name=HOSTILE, student=HOSTILE, status=HOSTILE))
    clean = page(place, "/?text=other")
    for path in ("/", f"/?text={HOSTILE}", f"/?student={HOSTILE}&benchmark={HOSTILE}"):
        text = page(place, path)
        assert text.count("<script") == clean.count("<script")
        assert "<img" not in text


def test_intervals_come_when_they_are_computed_and_a_new_evaluation_at_once(place: Place) -> None:
    async def look(client: Client) -> None:
        assert "Intervals are being computed" in await (await client.get("/")).text()
        for _ in range(300):
            text = await (await client.get("/")).text()
            if "Intervals are being computed" not in text:
                break
            await asyncio.sleep(0.1)
        assert "95 % interval" in text
        place.add(evaluation(outcomes({}), student="newest", fingerprint="newest"))
        assert "newest" in rows(await (await client.get("/")).text())

    asked(place, look)


@pytest.mark.integration
def test_a_run_in_progress_has_its_curves_from_its_folder_until_it_ends(place: Place) -> None:
    from filelock import FileLock

    folder = place.folder / "now"
    folder.mkdir()
    going = run(folder, status="running", curves={}, metrics={})
    with Ledger(place.db) as ledger:
        ledger.record_run(going)
    metrics = folder / "metrics.jsonl"
    metrics.write_text(json.dumps({"step": 1, "kl": 0.5, "seconds": 1.0}) + "\n")
    address = f"/curves?run={folder}"

    async def look(client: Client) -> None:
        text = await (await client.get("/")).text()
        assert "KL to the start" in text
        assert 'data-curves="/curves?run=' in text
        first = await (await client.get(f"{address}&since=")).json()
        assert len(first["specs"]) == 1
        assert (await client.get(f"{address}&since={first['version']}")).status == 204
        with metrics.open("a") as file:
            file.write(json.dumps({"step": 2, "kl": 0.75, "seconds": 1.0}) + '\n{"step')
        second = await (await client.get(f"{address}&since={first['version']}")).json()
        assert "0.75" in json.dumps(second["specs"])
        # On a report's page also those that have ended, in the page's order.
        both = await (await client.get(f"/curves?name=first&name={folder}&since=")).json()
        assert len(both["specs"]) == 4
        shown = await (await client.get(f"/report?name=first&name={folder}")).text()
        assert shown.split('id="training"')[1].count('class="plot"') == 4
        with Ledger(place.db) as ledger:
            ledger.record_run(dataclasses.replace(going, status="finished"))
        assert (await client.get(f"{address}&since=")).status == 410
        assert (await client.get("/curves?run=/etc")).status == 410

    with FileLock(folder / ".lock"):
        assert is_locked(folder / ".lock")
        asked(place, look)
