import json
import random
import subprocess

import pytest

from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.suite import VLMEVALKIT
from rilbench.importers.mathvista import chosen, is_right
from rilbench.importers.types import UnreadableError

CHOICE = {"question_type": "multi_choice", "choices": "['1', '12', '2']", "answer_option": "B"}


@pytest.mark.parametrize(
    ("row", "right"),
    [
        (CHOICE | {"res": "B"}, True),
        (CHOICE | {"res": "The answer is (B)."}, True),
        (CHOICE | {"res": "C"}, False),
        (CHOICE | {"res": None}, False),
        ({"question_type": "free_form", "answer_type": "integer", "answer": "7", "res": "7"}, True),
        ({"question_type": "free_form", "answer_type": "integer", "answer": 7, "res": 7.0}, True),
        (
            {"question_type": "free_form", "answer_type": "integer", "answer": "7", "res": "x"},
            False,
        ),
        ({"question_type": "free_form", "answer_type": "float", "answer": "1.5", "res": 1.5}, True),
        (
            {"question_type": "free_form", "answer_type": "list", "answer": "[1]", "res": "[1]"},
            False,
        ),
    ],
)
def test_what_is_right(row, right):
    assert is_right(row) is right


@pytest.mark.parametrize("row", [{}, CHOICE | {"res": "B", "choices": "print(1)"}])
def test_what_cannot_be_told(row):
    with pytest.raises(UnreadableError):
        is_right(row)


@pytest.mark.slow
def test_options_are_read_as_the_kit_reads_them(tmp_path):
    rng = random.Random(0)
    words = ["A", "B", "C", "(A)", "B.", "Z", "a", "red", "the", "blue", "or", "*C*", "", "12", "1"]
    cases = [" ".join(rng.choices(words, k=rng.randint(0, 9))) for _ in range(3000)]
    cases += ["Cannot determine the answer A", "Failed to obtain answer via API A"]
    options = {"A": "red", "B": "Blue", "C": "12"}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    code = (
        "import json; from vlmeval.utils.matching_util import can_infer\n"
        f"options = {options!r}\n"
        "found = [can_infer(c, dict(options)) or None for c in json.load(open('cases.json'))]\n"
        "json.dump(found, open('found.json', 'w'))"
    )
    python = str(ensure_environment(VLMEVALKIT))
    subprocess.run([python, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert [chosen(case, options) for case in cases] == json.loads(
        (tmp_path / "found.json").read_text()
    )
