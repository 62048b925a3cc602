"""Texts that are the same, nearly the same, or neither."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rilbench.data.contamination.ngram_match import (
    NEAR,
    SAME,
    SHARE,
    TextIndex,
    ngrams,
    stem,
    words,
)

LONG = "Which of the following continents has the largest area according to the map shown here"


def match(known, text):
    index = TextIndex()
    numbers = [index.add(each) for each in known]
    index.finish()
    return {numbers.index(number): kind for number, kind in index.match(text).items()}


@pytest.mark.parametrize(
    ("known", "text", "kind"),
    [
        ("What is it?", "what  is IT", SAME),
        ("<image 1> What is it?", "<image>\nWhat is it?", SAME),
        ("What is it?", "Question: What is it?\nOptions:\nA. a cat\nB. a cow\n", SAME),
        ("\uff46\uff55\uff4c\uff4c width", "full width", SAME),
        ("左上的数字比左下的数字大吗?", "左上的数字比左下的数字大吗\uff1f", SAME),
        ("Straße", "STRASSE", SAME),
        ("What is it?", "What is that?", None),
        ("What is it?", "What is it that the man on the left holds?", None),
        (LONG, f"Look closely. {LONG}? Answer with the option's letter.", NEAR),
        (LONG, LONG.replace("here", "above"), NEAR),
        (LONG, LONG.replace("largest", "smallest").replace("map", "chart"), None),
        (LONG, " ".join(reversed(LONG.split())), None),
        ("左上的数字比左下的数字大吗", "请看图。左上的数字比左下的数字大吗?请选择。", NEAR),
    ],
)
def test_what_is_the_same(known, text, kind):
    assert match(["Something else entirely?", known], text) == ({1: kind} if kind else {})


def test_words_and_stem():
    assert words("It's 3.5 km, 温度25度 A") == [
        "it",
        "s",
        "3",
        "5",
        "km",
        "温",
        "度",
        "25",
        "度",
        "a",
    ]
    assert stem("<image>\n\nQuestion: What?\nA. x") == "What?"
    assert words("<image>!?") == []
    assert TextIndex().add("?!") is None


@given(st.text())
def test_words_of_words_are_the_words(text):
    found = words(text)
    assert words(" ".join(found)) == found


@given(st.text(string.ascii_letters + string.digits + " .,?", max_size=60))
def test_case_and_punctuation_do_not_count(text):
    assert words(text.upper().replace(",", " ;")) == words(text)


WORDS = ("the", "a", "cat", "dog", "sits", "on", "mat", "red", "of", "and")
SENTENCE = st.lists(st.sampled_from(WORDS), max_size=25)


@given(st.lists(SENTENCE, max_size=6), SENTENCE)
def test_the_index_finds_what_a_search_through_all_finds(known, text):
    index = TextIndex()
    for each in known:
        index.add(" ".join(each))
    index.finish()
    found = index.match(" ".join(text))
    for each in filter(None, known):
        number = index.add(" ".join(each))
        runs = ngrams(each)
        share = len(runs & ngrams(text)) / len(runs) if runs else 0
        is_near = len(each) >= 8 and share >= SHARE
        assert found.get(number) == (SAME if each == text else NEAR if is_near else None)
