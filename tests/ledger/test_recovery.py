"""A damaged ledger says so, and what it advises saves what can be saved."""

import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Run, Sample, Score
from rilbench.ledger.recovery import recover

PAGE = 4096
ROWS = 600
CREATED = "2026-01-02T03:04:05+00:00"
LABELS = {"student": "s", "method": "m", "teacher": "t", "created": CREATED}
RUN = Run(name="r", path="/r", recipe_fingerprint="x", recipe_yaml="y", status="finished", **LABELS)


def evaluation(length: int) -> Evaluation:
    score = Score(
        benchmark="MMStar",
        value=50.0,
        kit="k",
        kit_version="1",
        dataset="d",
        metric="m",
        questions=ROWS,
        answered=ROWS,
        missing=0,
        data_sha256="s",
    )
    samples = tuple(
        Sample(
            benchmark="MMStar",
            question_id=str(i),
            prompt_hash="h",
            response=f"{i} " + "é" * length,
            score=i % 2,
        )
        for i in range(ROWS)
    )
    own = {"scores": (score,), "samples": samples}
    return Evaluation(path="/m", fingerprint="f", suite="nano", **own, **LABELS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ledger of three evaluations; the last one's answers are longer than a page."""
    path = tmp_path_factory.mktemp("whole") / "l.db"
    with Ledger(path) as ledger:
        ledger.record_run(RUN)
        for length in (150, 150, 3000):
            ledger.record(evaluation(length))
    return path.read_bytes()


def noise(whole: bytes, begin: float, pages: int) -> bytes:
    """Pages from a share of the file on, overwritten at random."""
    start = int(begin * len(whole)) // PAGE * PAGE
    stop = start + pages * PAGE
    return whole[:start] + random.Random(0).randbytes(stop - start) + whole[stop:]


def no_text(whole: bytes) -> bytes:
    """Bytes that are no UTF-8 in the middle of a long answer: SQLite sees nothing wrong there."""
    place = whole.rindex(b"\xc3\xa9" * 500) + 400
    return whole[:place] + b"\xff" * 100 + whole[place + 100 :]


def read(path: Path) -> dict[int, list[Sample]]:
    with Ledger.open_read(path) as ledger:
        return {each.id or 0: ledger.samples(each.id or 0) for each in ledger.evaluations()}


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda whole: noise(whole, 0.2, 1), 40),
        (lambda whole: noise(whole, 0.3, 3), 100),
        (lambda whole: noise(whole, 0.6, 12), 20),
        (lambda whole: whole[: len(whole) * 2 // 3 + 100], 2 * ROWS),
        (no_text, 1),
    ],
    ids=["one page", "three pages", "long answers", "cut short", "no text"],
)
def test_a_damaged_ledger_says_so_and_the_advice_saves_the_rest(
    tmp_path: Path, whole: bytes, damage: Callable[[bytes], bytes], lost: int
) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    old.write_bytes(damage(whole))
    with pytest.raises(UserError, match=r"is damaged .*keep a copy") as caught:
        read(old)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(old)), "garbled bytes are not repeated"

    (advice,) = re.findall(r"python (-m .* OLD NEW)$", str(caught.value))
    arguments = shlex.split(advice.replace("OLD", str(old)).replace("NEW", str(new)))
    said = subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True
    ).stdout

    found = read(new)
    expected = {number: evaluation(n).samples for number, n in ((1, 150), (2, 150), (3, 3000))}
    assert found.keys() == expected.keys()
    for number, samples in found.items():  # What is there is as it was, in its order.
        kept = {sample.question_id for sample in samples}
        assert samples == [each for each in expected[number] if each.question_id in kept]
    count = sum(map(len, found.values()))
    assert 3 * ROWS - lost <= count < 3 * ROWS
    assert f"{count} samples\n" in said
    short = [str(number) for number in sorted(found) if len(found[number]) < ROWS]
    assert f"answers were lost of evaluations {', '.join(short)};" in said
    with Ledger(new) as ledger:  # A ledger like any other.
        assert ledger.runs() == [RUN]
        assert ledger.record(evaluation(10)) == 4
        assert ledger.rows("PRAGMA integrity_check") == [("ok",)]
        assert ledger.rows("PRAGMA foreign_key_check") == []


def test_a_sound_ledger_is_copied_whole(tmp_path: Path, whole: bytes) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    old.write_bytes(whole)
    counts, short = recover(old, new)
    assert (counts["samples"], counts["scores"], counts["runs"], short) == (3 * ROWS, 3, 1, [])
    for query in ("SELECT * FROM samples", "SELECT * FROM results", "SELECT * FROM paper_scores"):
        with Ledger.open_read(old) as first, Ledger.open_read(new) as second:
            assert first.rows(query) == second.rows(query)


def test_answers_whose_evaluation_is_lost_are_not_kept(tmp_path: Path, whole: bytes) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    old.write_bytes(whole)
    with Ledger(old) as ledger:
        ledger._connection.execute("PRAGMA foreign_keys = OFF")
        ledger._connection.execute("DELETE FROM evaluations WHERE id = 2")
        ledger._connection.commit()
    counts, _ = recover(old, new)
    assert (counts["evaluations"], counts["scores"], counts["samples"]) == (2, 2, 2 * ROWS)


def test_what_cannot_be_recovered_is_said(tmp_path: Path, whole: bytes) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    with pytest.raises(UserError, match="does not exist"):
        recover(old, new)
    old.write_bytes(b"\x00" * PAGE + whole[PAGE:])
    with pytest.raises(UserError, match=r"cannot be recovered .*backup"):
        recover(old, new)
    assert not new.exists()
    new.touch()
    with pytest.raises(UserError, match="exists; give the name of a new file"):
        recover(old, new)
