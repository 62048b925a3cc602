"""What is known of a judge before a run relies on it: unfit gold answers, verdicts on a sample."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rilbench.api_keys import judge_keys
from rilbench.config import Recipe
from rilbench.data.question import Question
from rilbench.data.row_files import mapped_column
from rilbench.errors import UserError
from rilbench.judge.answers import plain_forms
from rilbench.judge.client import JudgeClient, Verdict
from rilbench.judge.code_judges import PARSER, RULE, CodeJudge, decides_by_code, find_judge
from rilbench.judge.rules import is_right
from rilbench.serving.transport import NoReplyError

SAMPLE = 32
"""Saved responses that the judge is asked about before the training."""
CONTENT = "judge.json"
VERDICTS = "judge.jsonl"
_WORDS = 8
"""A longer answer is hardly ever given word for word."""

Asked = tuple[str, str, str]
"""Question, reference answer and response."""


def notes_on_golds(recipe: Recipe, questions: Sequence[Question]) -> list[str]:
    """Tell which reference answers a judge that decides by code can hardly find a response for.

    The rules compare word for word, so that ``3`` is wrong where the reference is ``\\boxed{3}``.

    Raises:
        UserError: a function of the user's fails, or gives no verdict on any of a sample.
    """
    judge = recipe.judge.model
    if not recipe.method_spec.uses_answer_reward:
        return []
    if judge in (RULE, PARSER):
        return _notes_on_rules(judge, questions)
    if decides_by_code(judge) and not recipe.judge.url:
        return _notes_on_function(find_judge(judge), questions)
    return []


def _notes_on_rules(judge: str, questions: Sequence[Question]) -> list[str]:
    notes = []
    golds = [question.answer for question in questions if "<AND>" not in question.answer]
    misread = [gold for gold in golds if judge == RULE and not _reads(gold)]
    if misread:
        notes.append(
            f"judge.model=rule reads {len(misread)} of {len(questions)} reference answers word for "
            f"word, such as {misread[0][:60]!r}: {plain_forms(misread[0])[0][:60]!r} is wrong; use "
            "judge.model=parser"
        )
    long = [gold for gold in golds if len(gold.split()) > _WORDS and gold not in misread]
    if long:
        notes.append(
            f"{len(long)} of {len(questions)} reference answers have more than {_WORDS} words, "
            f"such as {long[0][:60]!r}; judge.model={judge} finds only the same words right: use a "
            "language model (judge.model, judge.url)"
        )
    return notes


def _reads(gold: str) -> bool:
    """Whether the rules find each plain form of a reference answer right."""
    alternatives = [part for part in gold.split("<OR>") if part.strip()]
    return all(is_right(gold, form) for each in alternatives for form in plain_forms(each) if form)


def _notes_on_function(judge: CodeJudge, questions: Sequence[Question]) -> list[str]:
    """Ask a function of the user's about reference answers as if they were responses."""
    step = max(1, len(questions) // SAMPLE)
    sample = [(q.question, q.answer, _plain(q.answer)) for q in questions[::step][:SAMPLE]]
    try:
        verdicts = [judge.decide(*each) for each in sample]
    except ValueError as error:
        raise UserError(str(error)) from error
    if sample and all(verdict is None for verdict in verdicts):
        raise UserError(
            f"judge {judge.name} returns None for each of {len(sample)} reference answers given as "
            "responses, so that no response would have a verdict; let it return 1 or 0"
        )
    wrong = [each for each, verdict in zip(sample, verdicts, strict=True) if verdict == 0]
    if not wrong:
        return []
    return [
        f"judge {judge.name} finds {len(wrong)} of {len(sample)} reference answers wrong as "
        f"responses, such as {wrong[0][2][:60]!r} for {wrong[0][1][:60]!r}; see that it reads "
        "such references, and takes question, reference and response in this order"
    ]


def _plain(reference: str) -> str:
    """A response that gives a reference answer in its plain form."""
    return plain_forms(reference.partition("<OR>")[0])[0].replace("<AND>", " and ")


def model_to_ask(recipe: Recipe) -> str:
    """Return the judge's name at its address; "": the only one there, where code decides."""
    return "" if decides_by_code(recipe.judge.model) else recipe.judge.model


def verdict_file(recipe: Recipe, folder: Path) -> Path | None:
    """Where the verdicts of a judge are kept; None for code that the run serves itself."""
    return folder / VERDICTS if recipe.judge.url or model_to_ask(recipe) else None


def check_on_sample(
    recipe: Recipe, folder: Path, urls: Sequence[str], *, is_first: bool
) -> list[str]:
    """Ask the judge before the training: who it is, and how far it agrees with the rules.

    Verdicts that another model gave under the same name are put aside.

    Args:
        recipe: the run's.
        folder: the run's, with its data prepared.
        urls: where the judge listens.
        is_first: compare its verdicts with the rules' on `SAMPLE` saved responses.

    Returns:
        Notes for the user.

    Raises:
        UserError: it gives no verdict on any of them.
    """
    if recipe.judge.model == RULE or not recipe.method_spec.uses_answer_reward:
        return []
    name, keys, timeout = model_to_ask(recipe) or None, judge_keys(urls), recipe.judge.timeout

    async def content() -> dict[str, str] | None:
        async with JudgeClient(
            urls, name, keys, timeout=timeout, fields=recipe.judge.fields
        ) as judge:
            try:
                return await judge.content()
            except NoReplyError:  # Its verdicts will be missing, or it has come back by then.
                return None

    cache = verdict_file(recipe, folder)

    async def ask(sample: Sequence[Asked]) -> list[Verdict]:
        async with JudgeClient(
            urls, name, keys, timeout=timeout, fields=recipe.judge.fields, cache=cache
        ) as judge:
            return await asyncio.gather(*(judge.verdict(*each) for each in sample))

    known = asyncio.run(content()) if cache else None
    notes = list(_keep_content(folder, known)) if known else []
    if is_first:
        sample = list(_sample(folder))
        notes += _agreement(sample, asyncio.run(ask(sample)))
    return notes


def _keep_content(folder: Path, content: dict[str, str]) -> Iterator[str]:
    """Keep what stands behind the judge's name; put the verdicts of another model aside."""
    file, verdicts = folder / CONTENT, folder / VERDICTS
    before = json.loads(file.read_bytes()) if file.exists() else content
    if before != content and verdicts.exists():
        number = len(list(folder.glob("judge-*.jsonl"))) + 1
        verdicts.rename(folder / f"judge-{number}.jsonl")
        changed = sorted(key for key in {*before, *content} if before.get(key) != content.get(key))
        told = ", ".join(f"{key} {before.get(key)} → {content.get(key)}" for key in changed)
        yield f"the judge is another model than before ({told}): its verdicts are asked for again"
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _sample(folder: Path) -> Iterator[Asked]:
    """Questions of the training data, evenly spread, each with a saved response.

    Where the run has none, the response is the reference answer in its plain form.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "data" / "train.parquet", columns=["reward_model", "extra_info"])
    number = min(SAMPLE, table.num_rows)
    places = [place * table.num_rows // number for place in range(number)]
    for turn, row in enumerate(table.take(places).to_pylist()):
        info, reference = row["extra_info"], row["reward_model"]["ground_truth"]
        saved = [each["numbers"][0] for each in info["saved"] if each["numbers"]]
        if saved:
            responses = mapped_column(folder / "data" / "responses.arrow")
            response = responses[saved[turn % len(saved)]]
        else:
            response = _plain(reference)
        yield info["question"], reference, response


def _agreement(sample: Sequence[Asked], verdicts: Sequence[Verdict]) -> list[str]:
    """How far judge and rules agree, and an example where they do not."""
    judged = zip(sample, (verdict.value for verdict in verdicts), strict=True)
    given = [(asked, value) for asked, value in judged if value is not None]
    judge, missing = verdicts[0].judge, len(verdicts) - len(given)
    why = next((verdict.text for verdict in verdicts if verdict.value is None), "")
    why = " ".join(why.split())[:200]
    if not given:
        raise UserError(
            f"the judge {judge} gives no verdict on any of {missing} responses ({why}); fix it, or "
            "use another (judge.model, judge.url)"
        )
    others = [(asked, value) for asked, value in given if value != is_right(asked[1], asked[2])]
    text = f"the judge {judge} and the rules agree on {len(given) - len(others)} of {len(given)}"
    text += " responses"
    if others:
        only = sum(value for _, value in others)
        (_, reference, response), value = others[0]
        said = " ".join(response.split())
        text += (
            f"; the judge alone finds {only} right, the rules alone {len(others) - only}, such as "
            f"{said[-60:]!r} for {reference[:60]!r} (judge: {'right' if value else 'wrong'})"
        )
    notes = [text]
    if missing:
        notes.append(f"the judge {judge} gives no verdict on {missing} of {len(verdicts)}: {why}")
    return notes
