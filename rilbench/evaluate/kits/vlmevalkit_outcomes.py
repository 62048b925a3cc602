"""Outcomes of single questions, from the files that VLMEvalKit writes when it scores."""

from __future__ import annotations

import ast
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmeval.dataset import prefetch_answer
from vlmeval.dataset.utils import mmvet, multiple_choice, yorn
from vlmeval.dataset.utils.mathvista import post_check
from vlmeval.dataset.utils.vqa_eval import hit_calculate
from vlmeval.smp import load

if TYPE_CHECKING:
    from rilbench.evaluate.kits.worker_common import (
        JobError,
        NoRandomGuess,
        question_of_rotation,
        unread,
    )
else:
    from worker_common import JobError, NoRandomGuess, question_of_rotation, unread

JUDGE_ALIAS = "gpt-4-turbo"  # names the kit's files; LOCAL_LLM is the model that is asked
NO_VERDICT = "retries failed"
GUESSED = "randomly generate one"
NO_REPLY = "Failed to obtain answer via API"
"""Of the kit's client, in place of a judge's reply."""
UNKNOWN = "Unknown"
"""The kit's reading of an answer that says neither yes nor no."""


# The kit passes circular results through a file in /tmp that is named after the time in seconds,
# which two evaluations can share. A path into the current folder takes the place of that name.
multiple_choice.timestr = lambda: os.path.relpath(
    Path("circular").absolute(), Path("/tmp").resolve()
)
multiple_choice.rd = NoRandomGuess
grade_by_kit = mmvet.MMVet_auxeval


def grade(model: Any, line: Any) -> dict[str, Any]:
    """Ask MM-Vet's judge as the kit does, but "nan", which the kit takes for a grade, is none."""
    result: dict[str, Any] = grade_by_kit(model, line)
    if math.isfinite(result["score"]):
        return result
    return {"log": f"{result['log']}: {NO_VERDICT}", "score": 0.0}


mmvet.MMVet_auxeval = grade


class Listening:
    """A judge that notes whether it replied."""

    def __init__(self, judge: Any) -> None:
        self.judge, self.replied = judge, False

    def generate(self, *given: Any, **settings: Any) -> str:
        """Ask it."""
        reply = str(self.judge.generate(*given, **settings))
        self.replied = self.replied or NO_REPLY not in reply
        return reply


def read_yes_or_no(judge: Any, line: Any) -> str:
    """Let a judge read an answer as the kit does; one that never replies has given no verdict."""
    listening = Listening(judge)
    read: str = read_by_kit(listening, line)
    return read if listening.replied else NO_VERDICT


read_by_kit = yorn.YOrN_auxeval
yorn.YOrN_auxeval = read_yes_or_no


def group_of(index: Any, circular: bool) -> str:
    """Return the question that a row belongs to; a circular question has several rows."""
    return question_of_rotation(index) if circular else str(index)


def judged_outcomes(name: str) -> list[dict[str, Any]]:
    """Return the outcomes of a judged dataset: None without a verdict, where the kit writes 0."""
    outcomes = []
    for _, row in load(f"answers_{JUDGE_ALIAS}.tsv").iterrows():
        value, extracted = (None, None) if NO_VERDICT in row["log"] else judged_value(name, row)
        outcomes.append(outcome(row["index"], value, extracted, judged=True))
    return outcomes


def judged_value(name: str, row: Any) -> tuple[float | None, Any]:
    """Return the outcome by a judge's reply, and the answer if the judge read one."""
    if name == "MathVista_MINI":
        hidden = row["log"] != "Prefetch succeed" and hides_number(row)
        return None if hidden else float(post_check(row)), row["res"]
    if name in ("MMVet", "MMVetV2"):
        return float(row["score"]), None
    raise JobError(f"{name}: its judge's file is not known to this worker")


def hides_number(row: Any) -> bool:
    """Return whether MathVista's judge extracted a number that the kit cannot read.

    The kit takes ``Extracted answer: 7`` and ``**7**`` for wrong, whatever the number: there is no
    verdict. A reply without a digit, or of a number in another notation alone, is an extraction
    that the kit's rule may call wrong.
    """
    number = {"integer": int, "float": float}.get(row["answer_type"])
    reply = str(row["res"])
    if number is None or row["question_type"] == "multi_choice":
        return False
    try:
        number(reply)
    except ValueError:
        return bool(re.search(r"\d", reply) and re.search(r"[A-Za-z*\n]", reply.strip()))
    return False


def choice_outcomes(answers: Any, spec: dict[str, Any], reads: bool) -> list[dict[str, Any]]:
    """Return the outcomes of multiple choice, with the letters that the kit read by rotation.

    Where the kit's rules read no letter ("-"), a judge that ``reads`` was asked. Where it named no
    option either, the kit guesses one, and the verdict is missing.
    """
    is_open = set(answers["index"][answers["A"].isna()])
    if "MMMU" in spec["name"]:  # The kit gives an open question two options; see its function.
        answers = multiple_choice.MMMU_preproc(answers)
    read: dict[str, list[str]] = {}
    choices: dict[str, list[dict[str, str]]] = {}
    for _, row in answers.sort_values("index").iterrows():
        group, letter = group_of(row["index"], spec["circular"]), prefetch_answer(row)
        read.setdefault(group, []).append(letter or "-")
        if row["index"] not in is_open:
            options = "".join(multiple_choice.build_choices(row))
            choice = {"question_id": str(row["index"]), "options": options}
            choice |= {"gold": str(row["answer"]), "read": letter or ""}
            choices.setdefault(group, []).append(choice)
    table = load(f"answers_{JUDGE_ALIAS if reads else 'exact_matching'}_result.tsv")
    outcomes = []
    for _, row in table.iterrows():
        letters, log = read[str(row["index"])], str(row["log"])
        asked = reads and "-" in letters and not log.startswith("Failed in Prefetching")
        value = None if asked and GUESSED in log else float(row["hit"])
        found = outcome(row["index"], value, ",".join(letters), judged=asked)
        rotations = choices.get(str(row["index"]), [])
        if not asked and unread(rotations):
            found["unread"] = rotations
        outcomes.append(found)
    return outcomes


def match_outcomes(name: str) -> list[dict[str, Any]]:
    """Outcomes of a comparison with one or several accepted answers, by the kit's rule for them."""
    outcomes = []
    for _, row in load("answers_results.tsv").iterrows():
        (value,) = hit_calculate([{"match": ast.literal_eval(row["eval_match"])}], name)
        outcomes.append(outcome(row["index"], float(value), row["eval_pred"]))
    return outcomes


def outcome(
    index: Any, value: float | None, extracted: Any, *, judged: bool = False
) -> dict[str, Any]:
    """Return one question's entry in the result."""
    text = None if extracted is None else str(extracted)
    return {"question_id": str(index), "outcome": value, "extracted": text, "judged": judged}


def yes_no_outcomes(answers: Any, reads: bool) -> list[dict[str, Any]]:
    """Return the outcomes of questions to answer with yes or no.

    Where the kit's rules read neither, a judge that ``reads`` was asked; without one, the answer is
    unread.
    """
    by_rules = {
        str(row["index"]): yorn.YOrN_Extraction(str(row["prediction"]))
        for _, row in answers.iterrows()
    }
    outcomes = []
    for _, row in load("answers_auxmatch.tsv").iterrows():
        index, extracted = str(row["index"]), str(row["extracted"])
        asked = reads and by_rules[index] == UNKNOWN
        value = None if extracted == NO_VERDICT else float(row["score"])
        found = outcome(index, value, extracted, judged=asked)
        if extracted == UNKNOWN and not asked:
            choice = {"question_id": index, "options": "", "gold": str(row["answer"]), "read": ""}
            found["unread"] = [choice]
        outcomes.append(found)
    return outcomes
