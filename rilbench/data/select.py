"""Select the questions to train on: the paper's two filters, as far as it describes them.

The paper says only that its 40K questions were "chosen by log-probability sampling and overlong
filtering" [App C]. Here:

1. Overlong filtering: a question whose prompt (images included) or reference answer has more tokens
   than the recipe allows is dropped.
2. Log-probability sampling: the others are sorted by score (`rilbench.data.logprob_scores`), and
   the easiest and the hardest share are dropped. From the rest, questions are sampled without
   replacement, each with a probability in proportion to its surprise, −score.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rilbench.data.logprob_scores import Score, Scorer, score_all
from rilbench.data.question_files import QuestionWriter, iter_questions
from rilbench.errors import UserError

KEPT, EASY, HARD, NOT_SAMPLED = "kept", "too easy", "too hard", "not sampled"


@dataclass(frozen=True)
class Rule:
    """How many questions to keep, and which to drop first.

    ``easiest`` and ``hardest`` are shares of the questions that have a score.
    """

    keep: int = 40_000
    easiest: float = 0.2
    hardest: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise UserError(f"--keep {self.keep} must be at least 1")
        for name, share in (("easiest", self.easiest), ("hardest", self.hardest)):
            if not 0 <= share < 1:
                raise UserError(f"--{name} {share} is a share; give a number from 0 to below 1")
        if self.easiest + self.hardest >= 1:
            raise UserError("--easiest and --hardest leave nothing; lower one")


def choose(scores: Iterable[Score], rule: Rule) -> dict[str, str]:
    """Return each question's fate: its problem, or `KEPT`, `EASY`, `HARD` or `NOT_SAMPLED`.

    It depends on the scores and the seed alone, not on their order.
    """
    fates: dict[str, str] = {}
    scored: list[tuple[float, str]] = []
    for score in scores:
        fates[score.id] = score.problem
        if score.logprob is not None:
            scored.append((score.logprob, score.id))
    scored.sort()
    num_hard, num_easy = (math.floor(share * len(scored)) for share in (rule.hardest, rule.easiest))
    end = len(scored) - num_easy
    # Efraimidis and Spirakis: the k largest u^(1/weight) are a sample without replacement.
    order = sorted(scored[num_hard:end], key=lambda item: (-_log_key(rule.seed, *item), item[1]))
    for fate, group in (
        (HARD, scored[:num_hard]),
        (EASY, scored[end:]),
        (KEPT, order[: rule.keep]),
        (NOT_SAMPLED, order[rule.keep :]),
    ):
        fates |= {id_: fate for _, id_ in group}
    return fates


def _log_key(seed: int, logprob: float, id_: str) -> float:
    """log u / weight; u is uniform in (0, 1) and depends on the seed and the question."""
    digest = hashlib.sha256(f"{seed}\x1f{id_}".encode("utf-8", "surrogatepass")).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
    return math.log(uniform) / max(-logprob, 1e-9)


def report(scores: Mapping[str, Score], fates: Mapping[str, str], rule: Rule) -> dict[str, Any]:
    """Count the fates, in total and by source; mean scores are in nats per token."""
    by_source: dict[str, list[Score]] = {}
    for score in scores.values():
        by_source.setdefault(score.source, []).append(score)
    sources = {}
    for source, group in sorted(by_source.items()):
        kept = [score for score in group if fates[score.id] == KEPT]
        sources[source] = {
            "questions": len(group),
            "kept": len(kept),
            "mean_logprob": _mean_logprob(group),
            "mean_logprob_kept": _mean_logprob(kept),
        }
    return {
        "rule": asdict(rule),
        "questions": len(fates),
        "fates": dict(sorted(Counter(fates.values()).items())),
        "sources": sources,
        "refused": {score.id: score.reason for score in scores.values() if score.reason},
    }


def _mean_logprob(scores: Iterable[Score]) -> float | None:
    logprobs = [score.logprob for score in scores if score.logprob is not None]
    return round(sum(logprobs) / len(logprobs), 4) if logprobs else None


def select(
    paths: Sequence[Path],
    out: Path,
    scorer: Scorer,
    journal: Path,
    rule: Rule,
    size: int,
    on_score: Callable[[int], None],
) -> dict[str, Any]:
    """Score files of questions and write those that are kept, in the files' order.

    Args:
        paths: the questions; read twice, a few at a time.
        out: the file for the questions that are kept.
        scorer: the student.
        journal: the file of scores, from which a killed selection resumes.
        rule: how many to keep, and which to drop.
        size: questions per batch.
        on_score: called with the number of questions that are done.

    Returns:
        The counts of `report`, the student and the limits.

    Raises:
        UserError: the questions or the journal cannot be used, or no question is left.
    """
    scores = score_all(scorer, iter_questions(*paths), journal, size, on_score)
    fates = choose(scores.values(), rule)
    summary = report(scores, fates, rule)
    if KEPT not in fates.values():
        raise UserError(
            f"no question of {', '.join(map(str, paths))} is left ({summary['fates']}); raise "
            "data.max_prompt_tokens or data.max_response_tokens, or lower --easiest and --hardest"
        )
    with QuestionWriter(out) as writer:
        for question in iter_questions(*paths):
            if fates.get(question.id) == KEPT:
                writer.write(question)
    return {**summary, "student": scorer.name, "limits": asdict(scorer.limits)}
