import json
import math

import pandas as pd
import pytest

from rilbench.importers.read_tables import is_table, normalised, number, read_table, text
from rilbench.importers.types import UnreadableError

ROWS = [
    {"index": 0, "A": "x", "Answer": "=1+1", "hit": 1.0},
    {"index": 1, "A": None, "Answer": 'a\t"b"\nc', "hit": 0.5},
]


def write(file):
    frame = pd.DataFrame(ROWS)
    if file.suffix == ".xlsx":
        frame.to_excel(file, index=False)
    elif file.suffix == ".json":
        file.write_text(json.dumps(ROWS))
    else:
        frame.to_csv(file, index=False, sep="\t" if file.suffix == ".tsv" else ",")
    return file


@pytest.mark.parametrize("name", ["t.xlsx", "t.csv", "t.tsv", "t.json"])
def test_a_table_says_the_same_in_every_format(tmp_path, name):
    file = write(tmp_path / name)
    assert is_table(file)
    rows = read_table(file)
    assert [{key: text(value) for key, value in row.items()} for row in rows] == [
        {"index": "0", "A": "x", "Answer": "=1+1", "hit": "1" if ".c" not in name else "1.0"}
        if name in ("t.xlsx", "t.json")
        else {"index": "0", "A": "x", "Answer": "=1+1", "hit": "1.0"},
        {"index": "1", "A": "", "Answer": 'a\t"b"\nc', "hit": "0.5"},
    ]
    assert rows[1]["A"] is None
    assert [number(row["hit"]) for row in rows] == [1, 0.5]
    assert list(normalised(rows)[0]) == ["index", "A", "answer", "hit"]


def test_an_empty_cell_is_no_number_and_a_word_neither():
    assert math.isnan(number(None))
    assert math.isnan(number(""))
    with pytest.raises(UnreadableError, match="'high' where a number should be"):
        number("high")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.json", b'[{"a": 1', "cannot be read"),
        ("t.json", b"[1]", "is no table"),
        ("t.json", b'"x"', "is no table"),
        ("t.json", b"[]", "has no row"),
        ("t.json", b"[" * 100_000, "cannot be read"),
        ("t.csv", b"", "has no row"),
        ("t.csv", b"a,b\n", "has no row"),
        ("t.csv", b"a,a\n1,2\n", "has no header"),
        ("t.csv", b"a,b\n1\n", "another length"),
        ("t.csv", b"a,b\n\xff,1\n", "cannot be read"),
        ("t.xlsx", b"a,b\n1,2\n", "is no workbook"),
        ("t.xlsx", b"", "is no workbook"),
    ],
)
def test_what_is_no_table_says_why(tmp_path, name, content, why):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UnreadableError, match=why):
        read_table(file)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_workbook_cut_short(tmp_path, share):
    content = write(tmp_path / "whole.xlsx").read_bytes()
    file = tmp_path / "cut.xlsx"
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableError):
        read_table(file)


def test_a_damaged_member_of_a_workbook(tmp_path):
    content = bytearray(write(tmp_path / "t.xlsx").read_bytes())
    middle = len(content) // 2
    for place in range(0, len(content), 40):
        if abs(place - middle) < len(content) // 3:
            content[place] ^= 0xFF
    file = tmp_path / "damaged.xlsx"
    file.write_bytes(bytes(content))
    with pytest.raises(UnreadableError):
        read_table(file)
