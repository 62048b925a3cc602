"""Which questions are trained on: the paper's two filters, as far as it describes them.

The paper says only that its 40K questions were "chosen by log-probability sampling and overlong
filtering" (App. C). Here:

1. Overlong: a question whose prompt (pictures included) or reference answer has more tokens than
   the recipe allows is dropped.
2. Log-probability sampling: of the rest, sorted by score (`rilbench.data.logprob_scores`), the
   easiest and the hardest share are dropped. From what is left, questions are drawn without
   replacement, each in proportion to its surprise, −score.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rilbench.data.logprob_scores import Score, Scorer, score_all
from rilbench.data.question_files import QuestionWriter, iter_questions
from rilbench.errors import UserError

KEPT, EASY, HARD, NOT_DRAWN = "kept", "too easy", "too hard", "not drawn"


@dataclass(frozen=True)
class Rule:
    """How many, and from where.

    ``easiest`` and ``hardest`` are shares of the questions that have a score; ``seed`` decides the
    draw.
    """

    keep: int = 40_000
    easiest: float = 0.2
    hardest: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise UserError(f"--keep {self.keep} keeps nothing; give a number above 0")
        for name, share in (("easiest", self.easiest), ("hardest", self.hardest)):
            if not 0 <= share < 1:
                raise UserError(f"--{name} {share} is a share; give a number from 0 to below 1")
        if self.easiest + self.hardest >= 1:
            raise UserError("--easiest and --hardest leave nothing; lower one")


def choose(scores: Iterable[Score], rule: Rule) -> dict[str, str]:
    """What becomes of each question: its problem, or one of `KEPT`, `EASY`, `HARD`, `NOT_DRAWN`.

    Depends on the scores and the seed alone, not on their order.
    """
    fates: dict[str, str] = {}
    scored: list[tuple[float, str]] = []
    for score in scores:
        fates[score.id] = score.problem
        if score.logprob is not None:
            scored.append((score.logprob, score.id))
    scored.sort()
    hard, easy = (math.floor(share * len(scored)) for share in (rule.hardest, rule.easiest))
    fates |= {name: HARD for _, name in scored[:hard]}
    fates |= {name: EASY for _, name in scored[len(scored) - easy :]}
    middle = scored[hard : len(scored) - easy]
    # Efraimidis and Spirakis: the k largest u^(1/weight) are a draw without replacement.
    drawn = sorted(middle, key=lambda each: (-_luck(rule.seed, *each), each[1]))
    fates |= {name: NOT_DRAWN for _, name in drawn[rule.keep :]}
    fates |= {name: KEPT for _, name in drawn[: rule.keep]}
    return fates


def _luck(seed: int, logprob: float, name: str) -> float:
    """log u / weight, where u is uniform in (0, 1) and decided by seed and question."""
    digest = hashlib.sha256(f"{seed}\x1f{name}".encode("utf-8", "surrogatepass")).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
    return math.log(uniform) / max(-logprob, 1e-9)


def report(scores: Mapping[str, Score], fates: Mapping[str, str], rule: Rule) -> dict[str, Any]:
    """How many fell to what, in all and by source; mean scores in nats per token."""
    sources: dict[str, dict[str, list[float]]] = {}
    counts: dict[str, int] = {}
    for name, fate in fates.items():
        counts[fate] = counts.get(fate, 0) + 1
        score = scores[name]
        own = sources.setdefault(score.source, {"all": [], "kept": []})
        own["all"].append(score.logprob if score.logprob is not None else math.nan)
        if fate == KEPT:
            own["kept"].append(own["all"][-1])
    return {
        "rule": asdict(rule),
        "questions": len(fates),
        "fates": dict(sorted(counts.items())),
        "sources": {
            source: {
                "questions": len(own["all"]),
                "kept": len(own["kept"]),
                "mean_logprob": _mean(own["all"]),
                "mean_logprob_kept": _mean(own["kept"]),
            }
            for source, own in sorted(sources.items())
        },
        "refused": {name: scores[name].reason for name, score in scores.items() if score.reason},
    }


def _mean(values: list[float]) -> float | None:
    finite = [value for value in values if not math.isnan(value)]
    return round(sum(finite) / len(finite), 4) if finite else None


def select(
    path: Path,
    out: Path,
    scorer: Scorer,
    journal: Path,
    rule: Rule,
    size: int,
    on_score: Callable[[int], None],
) -> dict[str, Any]:
    """Score a file of questions and write those that are drawn, in the file's order.

    Args:
        path: the questions; read twice, a few at a time.
        out: the file for those that are kept.
        scorer: the student.
        journal: where scores stand, also after a kill.
        rule: how many, and from where.
        size: questions that the student sees at a time.
        on_score: called with the number of questions that are done.

    Returns:
        What became of them: `report`.

    Raises:
        UserError: the questions or the journal cannot be used, or none is left.
    """
    scores = score_all(scorer, iter_questions(path), journal, size, on_score)
    fates = choose(scores.values(), rule)
    found = report(scores, fates, rule)
    if KEPT not in fates.values():
        raise UserError(
            f"no question of {path} is left ({found['fates']}); raise data.max_prompt_tokens or "
            "data.max_response_tokens, or lower --easiest and --hardest"
        )
    with QuestionWriter(out) as writer:
        for question in iter_questions(path):
            if fates.get(question.id) == KEPT:
                writer.write(question)
    return {**found, "student": scorer.name, "limits": asdict(scorer.limits)}
