"""One question of an evaluation, on the screen and as JSON."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from report_place import Place, make_place, png
from typer.testing import CliRunner, Result

from rilbench.cli import app
from rilbench.cli.terminal_picture import picture_escape, protocol
from rilbench.errors import UserError
from rilbench.ledger import Ledger
from rilbench.ledger.queries import find_sample


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def show(place: Place, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["show", *arguments, "--db", str(place.db)])


def test_a_question_with_its_picture_answer_and_verdict(place: Place) -> None:
    done = show(place, "2", "--question", "MMStar/1")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[0] == "MMStar/1 of evaluation 2: nano ril both"
    assert lines[2:5] == ["Which is 1 of MMStar?", "A. this", "B. that"]
    assert lines[5] == f"picture: {place.folder}/prompts/MMStar-1.png"
    facts = dict(re.split(" {2,}", line, maxsplit=1) for line in lines[-7:] if "  " in line)
    assert facts == {
        **{"extracted": "A", "gold": "A", "score": "1", "judge": "none: the kit's rules"},
        **{"tokens": "5", "finish reason": "stop"},
    }


def test_json_has_the_whole_sample(place: Place) -> None:
    done = show(place, "2", "--question", "mmstar/1", "--format", "json")
    found = json.loads(done.stdout)
    with Ledger.open_read(place.db) as ledger:
        sample = find_sample(ledger, 2, "MMStar", "1")
    assert sample is not None
    assert found["response"] == sample.response
    assert (found["evaluation"], found["rotations"]) == (2, 1)
    assert found["pictures"] == [f"{place.folder}/prompts/MMStar-1.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("2", "--question", "MMStar/4"), r"no question '4' of MMStar; nearest: 3, 2, 1;"),
        (("2", "--question", "MMSta/1"), r"benchmark 'MMSta'; nearest: MMStar, BLINK"),
        (("2", "--question", "MMStar"), r"no question '' .* give --question MMStar/ID"),
        (("--question", "MMStar/1"), "--question needs an evaluation"),
        (("99", "--question", "MMStar/1"), "no evaluation '99'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(
    place: Place, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        raise show(place, *arguments).exception or AssertionError("it was found")


def test_without_the_folder_the_stem_is_shown(place: Place) -> None:
    (place.folder / "prompts").rename(place.folder / "gone")
    done = show(place, "2", "--question", "MMStar/1")
    assert "Which is 1?" in done.stdout
    assert "picture" not in done.stdout


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "tmux", "KITTY_WINDOW_ID": "1"}, ""),
        ({"TERM": "xterm-256color"}, ""),
        ({}, ""),
    ],
)
def test_only_a_terminal_that_says_so_gets_pictures(environment: dict[str, str], name: str) -> None:
    assert protocol(environment) == name


def test_both_protocols_carry_the_whole_picture(tmp_path: Path) -> None:
    file = tmp_path / "p.png"
    noise = Image.effect_noise((300, 200), 90).convert("RGB")
    noise.save(file)
    kitty = picture_escape(file, "kitty") or ""
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty)
    assert len(parts) > 2
    assert max(len(data) for _, data in parts) == 4096
    assert [head for head, _ in parts] == ["a=T,f=100,m=1", *["m=1"] * (len(parts) - 2), "m=0"]
    iterm = picture_escape(file, "iterm") or ""
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):(.*)\x07", iterm)
    assert found is not None
    assert len(base64.b64decode(found[2])) == int(found[1])
    for data in ("".join(data for _, data in parts), found[2]):
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.tobytes() == noise.tobytes()


def test_what_is_no_picture_is_not_sent(tmp_path: Path) -> None:
    file = tmp_path / "p.png"
    assert picture_escape(file, "kitty") is None
    file.write_bytes(png((1, 2, 3))[:30])
    assert picture_escape(file, "kitty") is None
