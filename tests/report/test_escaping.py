"""No text ends the element that it stands in, and no number is rounded otherwise than elsewhere."""

import base64
import gzip
import json
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from report_place import HOSTILE

from rilbench.report.escaping import clean, label, packed, script_json
from rilbench.report.points import points, signed_points
from rilbench.table.rounding import number, signed

ANY = st.text(st.characters(exclude_categories=())) | st.sampled_from([HOSTILE, "<!--", "]]>"])


class Scripts(HTMLParser):
    """What a browser takes for scripts, and how many other elements there are."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.found.append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"]:
            self.found[-1] += data


@given(ANY)
def test_json_never_leaves_its_script(text: str) -> None:
    value = {clean(text): [clean(text)]}
    shown = script_json(value)
    assert json.loads(shown) == value
    parser = Scripts()
    parser.feed(f"<script>{shown}</script>")
    parser.close()
    assert parser.tags == ["script"]
    assert not set(shown) & set("<>&\u2028\u2029")


@given(ANY)
def test_clean_text_can_be_written_and_hides_nothing(text: str) -> None:
    found = clean(text)
    found.encode("utf-8")
    assert all(mark in "\n\t" or ord(mark) >= 0x20 for mark in found)
    assert not set(found) & set("\x7f\x85\u202e\u2066")
    assert "\n" not in label(text)
    assert clean(found) == found


def test_what_stands_for_control_characters() -> None:
    assert clean("a\x00\x1b[31m\r\nb\tc\u202ed\ud800") == "a␀␛[31m\nb\tc⟨U+202E⟩d?"
    assert label(" a\n b\x07 ") == "a b␇"


@given(ANY)
def test_what_is_packed_comes_out_again(text: str) -> None:
    value = [clean(text)]
    found = packed(value)
    assert json.loads(gzip.decompress(base64.b64decode(found))) == value
    assert packed(value) == found


def test_numbers_are_rounded_as_in_the_table() -> None:
    dust = 75.52142857142857 - 45.17142857142858
    assert (
        (points(dust), signed_points(dust)) == (number(30.35), signed(30.35)) == ("30.4", "+30.4")
    )
    assert (signed_points(-1.25), signed_points(-0.01)) == ("\u22121.2", "0.0")
