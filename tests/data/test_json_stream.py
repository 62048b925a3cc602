"""JSON files of any size, cut anywhere."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rilbench.data import json_stream as stream
from rilbench.data.json_stream import read_objects
from rilbench.errors import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def read(tmp_path, text):
    path = tmp_path / "f.json"
    path.write_text(text, encoding="utf-8")
    return [value for _, value in read_objects(path)]


@given(st.lists(VALUES), st.integers(1, 40), st.sampled_from([None, 1]))
@example([[None], 1.0000000000000002e16], 9, 1)
def test_an_array_is_read_whatever_the_chunks(tmp_path_factory, values, chunk, indent):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_CHUNK", chunk)
        text = json.dumps(values, indent=indent, ensure_ascii=False)
        assert read(tmp_path_factory.getbasetemp(), text) == values


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3)), st.integers(1, 40))
def test_lines_are_read_whatever_the_chunks(tmp_path_factory, values, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_CHUNK", chunk)
        text = "\n".join(json.dumps(value) for value in values)
        assert read(tmp_path_factory.getbasetemp(), text) == values


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = [value for _, value in read_objects(path)]
    except UserError as error:
        found = str(error).splitlines()
        assert len(found) == 1
    assert isinstance(found, list)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1}, {"b"', "not JSON at entry 2"),
        ('[{"a": 1}, {"b": 2}', "ends after entry 2"),
        ('[{"a": 1} oops]', "not JSON at entry 2"),
        ("[" * 200_000, "not JSON at entry 1"),
    ],
)
def test_what_is_broken_is_named(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, text)


def test_a_file_that_is_cut_or_not_text(tmp_path):
    (tmp_path / "f.json").write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(UserError, match="not UTF-8"):
        list(read_objects(tmp_path / "f.json"))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_objects(tmp_path / "none.json"))
    assert read(tmp_path, "") == []
    assert read(tmp_path, "[]") == []
    assert math.isnan(read(tmp_path, "[NaN]")[0])
