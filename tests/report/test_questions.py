"""Questions with every model's answer, their texts and pictures, and what of it the page has."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_place import HOSTILE, Place, evaluation, outcomes, png, sample

from rilbench.ledger import Ledger
from rilbench.report import page_json as payload
from rilbench.report.page_json import RunSteps, make_payload
from rilbench.report.pictures import LEFT_OUT, UNREADABLE, Pictures, scaled
from rilbench.report.questions import GONE, QuestionSet, by_need, question_sets
from rilbench.report.scores import score_rows
from rilbench.report.selection import find_subjects


def sets(place: Place, *names: str) -> list[QuestionSet]:
    with Ledger.open_read(place.db) as ledger:
        subjects = find_subjects(ledger, names)
        return question_sets(ledger, subjects, score_rows(ledger, subjects))


def unpacked(sets: list[QuestionSet], steps: tuple[RunSteps, ...] = (), **budget: int) -> Any:
    made = make_payload(
        sets, steps, budget.get("pictures", 10**6), budget.get("texts", payload.BUDGET)
    )
    return json.loads(gzip.decompress(base64.b64decode(made.text))), made


def test_each_question_has_its_text_picture_gold_and_all_answers(place: Place) -> None:
    (found,) = sets(place, "first")
    assert [each.role for each in found.columns] == ["before", "after", "teacher", "teacher"]
    assert found.title == "nano suite, VLMEvalKit"
    assert [each.key for each in found.questions[:4]] == [
        *(("MMStar", "1"), ("MMStar", "2"), ("MMStar", "3"), ("BLINK", "1"))
    ]
    first = found.questions[0]
    assert first.content.text == "Which is 1 of MMStar?\nA. this\nB. that"
    assert [file.name for file in first.content.pictures] == ["MMStar-1.png"]
    assert [None if a is None else a.score for a in first.answers] == [0.0, 1.0, 1.0, 1.0]
    assert first.gold == "A"
    assert found.note == ""


def test_questions_of_several_suites_stand_apart_and_a_question_may_not_have_been_asked(
    place: Place,
) -> None:
    few = [sample("MMStar", "1"), sample("MMStar", "77")]
    place.add(evaluation(few, fingerprint="few111"), evaluation(few, suite="strange", path="/s"))
    found = sets(place, "2", "6", "7")
    assert [len(each.questions) for each in found] == [7, 2]
    only = next(each for each in found[0].questions if each.key[1] == "77")
    assert [each is None for each in only.answers] == [True, True, True, True, False]
    assert only.content.text == "Which is 77?"
    assert found[1].note == GONE


def test_rotations_count_and_pictures_outside_of_the_folder_are_not_read(place: Place) -> None:
    folder = place.folder / "prompts"
    outside = place.folder / "secret.png"
    outside.write_bytes(png((1, 2, 3)))
    row = {"dataset": "MMStar", "question_id": "1000001", "group": "1", "parts": []}
    parts = [{"type": "image", "path": str(outside)}, {"type": "image", "path": "../secret.png"}]
    with (folder / "questions.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.write(json.dumps({**row, "group": "9", "parts": parts}) + "\n")
        file.write('{"dataset": "MMStar", "gro')
    alone = {"fingerprint": "alone1", "settings": {"questions": str(folder)}}
    place.add(evaluation([sample("MMStar", "9")], **alone))
    assert sets(place, "2")[0].questions[0].content.turns == 2
    (question,) = sets(place, "6")[0].questions
    assert question.content.pictures == ()
    assert question.content.text == "Which is 9?"


@pytest.mark.parametrize("settings", [{}, {"questions": "/gone"}, {"questions": 3}])
def test_without_the_folder_the_stem_is_shown(place: Place, settings: dict[str, Any]) -> None:
    place.add(evaluation(outcomes({}), fingerprint="alone1", settings=settings))
    (found,) = sets(place, "6")
    assert found.note == GONE
    assert found.questions[0].content.text == "Which is 1?"


def test_what_the_page_gets(place: Place) -> None:
    value, made = unpacked(sets(place, "first"))
    (own,) = value["sets"]
    assert own["benchmarks"] == ["MMStar", "BLINK"]
    assert [each["label"] for each in own["columns"]] == [
        *("nano", "nano ril both", "nano-72b", "nano-78b")
    ]
    first = own["questions"][0]
    assert first[:4] == [0, "1", "Which is 1 of MMStar?\nA. this\nB. that", "A"]
    assert first[6][1][:2] == [1.0, HOSTILE]
    assert HOSTILE not in made.text
    assert len(made.pictures.urls) == 3  # Each stands in two benchmarks.
    assert own["questions"][3][4] == first[4]


def test_texts_are_cut_to_their_budget(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    rng = random.Random(0)
    long = ["".join(rng.choices("abcdefgh <>&", k=9000)) for _ in range(6)]
    place.add(evaluation([sample("MMStar", str(i), response=text) for i, text in enumerate(long)]))
    value, made = unpacked(sets(place, "6"), texts=10_000)
    assert len(made.text) <= 10_000
    assert made.longest < 9000
    response = value["sets"][0]["questions"][0][6][0][1]
    assert response == long[0][: made.longest] + f" … [{9000 - made.longest} more characters]"


def test_pictures_keep_to_their_budget_and_those_that_matter_come_first(place: Place) -> None:
    (found,) = sets(place, "first")
    assert {each.changed for each in by_need(found.questions)[:2]} == {True}
    need = [each.changed for each in by_need(found.questions)]
    assert need == sorted(need, reverse=True)
    value, made = unpacked([found], pictures=150)
    assert made.pictures.used <= 150
    kinds = {type(each) for q in value["sets"][0]["questions"] for each in q[4]}
    assert kinds == {int, str}
    assert unpacked([found], pictures=0)[0]["sets"][0]["questions"][0][4] == [LEFT_OUT]


def test_pictures_are_scaled_and_lose_all_but_their_pixels(tmp_path: Path) -> None:
    small = scaled(png((9, 9, 9), (900, 300)), 300)
    assert small is not None
    (tmp_path / "p.webp").write_bytes(small)
    with Image.open(tmp_path / "p.webp") as image:
        assert image.size == (300, 100)
        assert image.format == "WEBP"
    assert scaled(b"<svg onload=alert(1)>", 300) is None
    assert scaled(png((0, 0, 0))[:40], 300) is None
    pictures = Pictures(expected=2)
    assert pictures.add(tmp_path / "gone.png") == UNREADABLE
    assert pictures.add(tmp_path / "p.webp") == pictures.add(small) == 0


def test_a_picture_that_would_fill_the_memory_is_not_decoded() -> None:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    assert scaled(bomb, 300) is None
