"""What ``rilbench eval`` prints: the scores, and what a reader has to know about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from rilbench.errors import UserError
from rilbench.printable import printable
from rilbench.table.rounding import number

if TYPE_CHECKING:
    from rilbench.ledger import Evaluation
    from rilbench.ledger.records import Score


def print_scores(evaluation: Evaluation) -> None:
    """Print an evaluation's scores, and on stderr what weakens or explains them."""
    scores = "  ".join(map(_score, evaluation.scores))
    typer.echo(
        printable(f"{evaluation.student} {evaluation.method} {evaluation.teacher}: {scores}")
    )
    if known := _about_responses(evaluation):
        typer.echo(printable(f"responses: {known}"), err=True)
    if unlike := evaluation.settings.get("unlike_kit"):
        typer.echo(
            printable(f"not as the toolkit sets it: {unlike}; --model-settings kit"), err=True
        )
    for dataset, reason in evaluation.settings.get("data_reasons", {}).items():
        typer.echo(printable(f"data unverified: {dataset}: {reason}"), err=True)
    for note in (
        _counted(evaluation, "reasoning dropped before scoring", lambda s, r: r.reasoning),
        _counted(evaluation, "truncated responses", lambda s, _: s.truncated),
        _counted(evaluation, "empty answers, counted as wrong", lambda _, r: r.silent),
        _no_answers(evaluation),
        _missing_verdicts(evaluation),
        _if_wrong(evaluation),
        _unread(evaluation),
        _incomplete(evaluation),
        _totals(evaluation),
    ):
        if note:
            typer.echo(printable(note), err=True)


def refuse_unscored(evaluations: Sequence[Evaluation]) -> None:
    """Raise a UserError where nothing of a model was scored, so that the command fails."""
    for evaluation in evaluations:
        if all(score.value is None for score in evaluation.scores):
            raise UserError(
                f"nothing of {evaluation.path} was scored; the lines above say why and what helps"
            )


def _about_responses(evaluation: Evaluation) -> str:
    """Return what is known of the model behind an endpoint, and how old its responses are."""
    settings, known = evaluation.settings, []
    if stored := settings.get("stored_responses"):
        since = stored["since"][:16].replace("T", " ")
        known.append(f"{stored['old']} of {stored['of']} from before, the oldest of {since} UTC")
        known += [settings["identity"]] if settings.get("identity") else []
        known.append("--fresh asks all again")
    known += [settings["unknown"]] if settings.get("unknown") else []
    return "; ".join(known)


def _score(score: Score) -> str:
    if score.value is None:
        return f"{score.benchmark} -"
    verdicts = score.questions - score.missing
    share = f" ({verdicts} of {score.questions})" if score.is_incomplete else ""
    return f"{score.benchmark} {number(score.value)}{share}"


def _counted(evaluation: Evaluation, what: str, count: Callable[..., int]) -> str:
    """Return a note with a count for each benchmark that has one."""
    counts = {s: count(s, evaluation.reading(s.benchmark)) for s in evaluation.scores}
    parts = [f"{s.benchmark} {n} of {s.questions}" for s, n in counts.items() if n]
    return f"{what}: {', '.join(parts)}" if parts else ""


def _no_answers(evaluation: Evaluation) -> str:
    readings = {s: evaluation.reading(s.benchmark).no_answer for s in evaluation.scores}
    parts = [
        f"{s.benchmark} {sum(causes.values())} of {s.questions} ({_causes(causes)})"
        for s, causes in readings.items()
        if causes
    ]
    if not parts:
        return ""
    found = {cause for causes in readings.values() for cause in causes}
    remedies = [text for causes, text in _REMEDIES.items() if found & set(causes)]
    ends = [s.finish_reason or "" for s in evaluation.samples if s.score is None]
    refused = [end.removeprefix("error: ") for end in ends if end.startswith("error: ")]
    first = f"; the first without a response: {refused[0]}" if refused else ""
    return f"no answer: {', '.join(parts)}; no verdict, no judge was asked{first}" + "".join(
        f"; {remedy}" for remedy in remedies
    )


def _causes(causes: Mapping[str, int]) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in causes.items())


_REMEDIES = {
    ("only reasoning", "cut"): "raise --max-tokens, or turn the model's thinking off",
    ("empty",): "look at the server's log; --fresh asks again",
    ("refusal", "content_filter"): "the server withholds them; ask one without a filter",
    ("tool call",): "start the server without tools",
    ("no response",): "run the same command again to ask those without a response",
    ("not asked",): "rilbench data check looks at the files of those that cannot be asked",
}
"""What helps against causes of no answer."""


def _missing_verdicts(evaluation: Evaluation) -> str:
    lacking = {
        s: s.missing - sum(evaluation.reading(s.benchmark).no_answer.values())
        for s in evaluation.scores
    }
    parts = [f"{s.benchmark} {n} of {s.questions}" for s, n in lacking.items() if n > 0]
    if not parts:
        return ""
    judge = evaluation.settings["judge"]
    troubles = judge.get("troubles", {})
    reasons = [f"the judge: {why} ({count})" for why, count in troubles.items()]
    if reasons:
        reasons.append("run the same command again to ask what got no reply")
    if sum(troubles.values()) < sum(lacking.values()):
        kept = f" (kept in {judge['replies']})" if "replies" in judge else ""
        others = "the judge's other replies" if reasons else "the judge's replies"
        reasons.append(
            f"{others} hold none{kept}; another judge may give one, and --fresh-verdicts asks this "
            "one again"
        )
    return f"missing verdicts: {', '.join(parts)}; {'; '.join(reasons)}"


def _if_wrong(evaluation: Evaluation) -> str:
    scores = {s.benchmark: evaluation.reading(s.benchmark).if_wrong for s in evaluation.scores}
    parts = [f"{name} {number(value)}" for name, value in scores.items() if value is not None]
    return f"with all of these as wrong answers: {', '.join(parts)}" if parts else ""


def _unread(evaluation: Evaluation) -> str:
    note = _counted(
        evaluation, "choices that the kit's rules could not read", lambda _, r: r.unread
    )
    if not note:
        return ""
    readings = {s.benchmark: evaluation.reading(s.benchmark) for s in evaluation.scores}
    second = [
        f"{name} {number(r.second)} ({r.second_unread} unread)"
        for name, r in readings.items()
        if r.second is not None
    ]
    note += "; they count as wrong, a judge reads them: --judge MODEL@URL"
    if not second:
        return note
    named = next(r.second_name for r in readings.values() if r.second_name)
    return f"{note}; by the second reading, {named}: {', '.join(second)}"


def _totals(evaluation: Evaluation) -> str:
    totals = [
        f"{s.benchmark} ({s.metric})"
        for s in evaluation.scores
        if evaluation.reading(s.benchmark).is_total
    ]
    return f"the toolkit's own totals, no means of questions: {', '.join(totals)}" if totals else ""


def _incomplete(evaluation: Evaluation) -> str:
    from rilbench.ledger.records import LEAST_SHARE

    names = [s.benchmark for s in evaluation.scores if s.is_incomplete and s.value is not None]
    if not names:
        return ""
    return (
        f"incomplete: {', '.join(names)}: less than {LEAST_SHARE:.0%} of the questions have a "
        "verdict; left out of means"
    )
