"""What both workers share, without a kit."""

from typing import Any

from rilbench.evaluate.kits.worker_common import gold, tried


def test_a_right_answer_is_one_of_several() -> None:
    texts = ("['house', 'home']", "[]", "Yes", "[3 4", "None")
    assert [gold(text) for text in texts] == ["house", "[]", "Yes", "[3 4", "None"]


def test_a_trial_has_right_answers_each_half_of_them_and_one_to_all() -> None:
    golds = {str(i): "yes" if i % 3 else "no" for i in range(9)}
    asked: list[dict[str, str]] = []

    def score(answers: dict[str, str]) -> dict[str, Any]:
        asked.append(answers)
        right = {key: answers[key] == golds[key] for key in golds}
        return {"total": sum(right.values()), "questions": [{"outcome": v} for v in right.values()]}

    found = tried("X", golds, score)
    assert [each["result"] for each in found] == [{"total": n} for n in (9, 5, 4, 3)]
    assert [each["mean"] for each in found] == [1, 5 / 9, 4 / 9, 3 / 9]
    assert set(asked.pop().values()) == {"no"}, "one answer to all"
    assert all(set(answers.values()) == {"yes", "no"} for answers in asked), "wrong, and plausible"
    wrong = [{key for key in golds if answers[key] != golds[key]} for answers in asked]
    assert wrong[0] == set()
    assert wrong[1] | wrong[2] == set(golds)
    assert not wrong[1] & wrong[2]


def test_one_answer_to_all_has_a_wrong_one_as_well() -> None:
    def score(answers: dict[str, str]) -> dict[str, Any]:
        return {"questions": [{"outcome": text == "B"} for text in answers.values()]}

    assert [each["mean"] for each in tried("X", {"0": "B", "1": "B"}, score)] == [1, 0.5, 0.5, 1]
