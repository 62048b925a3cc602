"""The paper's claims as data, what the paper measured for each, and the rule of the verdict.

The rule was fixed before the first run on test: `docs/protocol.md`.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from rilbench.benchmark_names import COLUMNS
from rilbench.resources import resource
from rilbench.stats import Interval

MARGIN = 1.0
"""Points of the mean that count as no difference."""
ALPHA = 0.05
"""Family-wise error (Holm) of the claims about one part of an experiment on one student."""


class Verdict(Enum):
    """What the laboratory finds; the words that a reader sees."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    NOT_DECIDED = "not decided"
    NOT_RUN = "not run yet"


@dataclass(frozen=True)
class PaperCell:
    """A row of one of the paper's tables: ``method`` and ``teacher``, or an ablation's setting."""

    table: str
    row: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """``better`` scores higher than ``worse``: names of runs in one experiment.

    Attributes:
        text: the claim in a few words.
        source: where the paper makes it, or why it stands here.
        experiment: whose rows decide.
        better, worse: names of runs.
        paper: the paper's rows of both; None where it gives no number.
        reaches: the claim is "is not worse by more than the margin" instead of "is better".
        simulated: a part of it is simulated, so the verdict may not say "reproduced".
        asked: the paper makes no such claim; a reader asks (both directions are of interest).
    """

    text: str
    source: str
    experiment: str
    better: str
    worse: str
    paper: tuple[PaperCell, PaperCell] | None = None
    reaches: bool = False
    simulated: bool = False
    asked: bool = False


def _main(method: str, teacher: str = "none") -> PaperCell:
    return PaperCell("main", (method, teacher))


def _over(other: PaperCell) -> tuple[PaperCell, PaperCell]:
    """RIL with both teachers, and another row of Tables 1, 2 or 4."""
    return _main("RIL", "both"), other


def _table5(name: str, better: str, worse: str) -> tuple[PaperCell, PaperCell]:
    return PaperCell("ablation", (name, better)), PaperCell("ablation", (name, worse))


def _headline(
    text: str, source: str, worse: str, paper: PaperCell | None = None, reaches: bool = False
) -> Claim:
    pair = None if paper is None else _over(paper)
    asked = paper is None
    return Claim(text, source, "headline", "ril-both", worse, pair, reaches, asked=asked)


def _ablated(
    text: str,
    source: str,
    better: str,
    worse: str,
    paper: tuple[PaperCell, PaperCell] | None = None,
    simulated: bool = False,
) -> Claim:
    asked = source == NOT_IN_THE_PAPER
    return Claim(text, source, "ablations", better, worse, paper, simulated=simulated, asked=asked)


NOT_IN_THE_PAPER = "not in the paper"
_DR_GRPO, _GRPO = _main("Dr.GRPO"), _main("GRPO")
_72B = PaperCell("teacher", ("Qwen2.5-VL-72B",))
_78B = PaperCell("teacher", ("InternVL3-78B",))
_D, _ANSWER, _MU, _BETA = "5d discriminator", "5e answer reward", "5a mu", "5b beta"

CLAIMS = (
    _headline("RIL beats the untrained student", "Table 2", "untrained", _main("base")),
    _headline("RIL beats Dr.GRPO with 2G own rows", "Table 1", "dr-grpo-8", _DR_GRPO),
    _headline("RIL beats Dr.GRPO with G own rows", "Table 1", "dr-grpo-4", _DR_GRPO),
    _headline("RIL beats GRPO with 2G own rows", "Table 1", "grpo-8", _GRPO),
    _headline("RIL beats GRPO with G own rows", "Table 1", "grpo-4", _GRPO),
    _headline("RIL beats SFT on the same teacher rows", NOT_IN_THE_PAPER, "sft"),
    _headline("RIL beats SFT, then Dr.GRPO", NOT_IN_THE_PAPER, "sft-dr-grpo"),
    _headline("RIL beats the similarity reward alone", NOT_IN_THE_PAPER, "imitation"),
    _headline("RIL beats teacher rows without D", NOT_IN_THE_PAPER, "teacher-rows"),
    _headline("Both teachers beat 72b alone", "Table 2", "ril-72b", _main("RIL", "72b")),
    _headline("Both teachers beat 78b alone", "Table 2", "ril-78b", _main("RIL", "78b")),
    _headline("The student reaches 72b", "Tables 2, 4", "teacher-72b", _72B, reaches=True),
    _headline("The student reaches 78b", "Tables 2, 4", "teacher-78b", _78B, reaches=True),
    _ablated(
        "An updated D beats a frozen one",
        "Table 5d",
        "full",
        "discriminator-frozen",
        _table5(_D, "updated", "frozen"),
    ),
    _ablated(
        "A frozen D beats none (own rows only, as in the paper)",
        "Table 5d",
        "discriminator-frozen",
        "own-rows",
        _table5(_D, "frozen", "none"),
    ),
    _ablated(
        "A frozen D beats none with the same teacher rows",
        NOT_IN_THE_PAPER,
        "discriminator-frozen",
        "discriminator-none",
    ),
    _ablated(
        "The judge's answer reward beats none",
        "Table 5e",
        "full",
        "answer-none",
        _table5(_ANSWER, "judge", "none"),
    ),
    _ablated("β = 0.01 beats 0", "Table 5b", "beta=0.01", "beta=0", _table5(_BETA, "0.01", "0")),
    _ablated(
        "β = 0.01 beats 0.1", "Table 5b", "beta=0.01", "beta=0.1", _table5(_BETA, "0.01", "0.10")
    ),
    _ablated("μ = 1 beats 2", "Table 5a", "full", "mu=2", _table5(_MU, "1", "2")),
    _ablated("μ = 1 beats 4", "Table 5a", "full", "mu=4", _table5(_MU, "1", "4")),
    _ablated(
        "A binary similarity reward beats a continuous one",
        "Fig. 6",
        "full",
        "similarity-continuous",
    ),
    _ablated("Four saved responses beat one", "Fig. 7", "full", "saved=1"),
    _ablated("Four saved responses beat two", "Fig. 7", "full", "saved=2"),
    _ablated(
        "A judge without errors beats one with 10 %",
        "Table 5e",
        "full",
        "judge-errs-10",
        simulated=True,
    ),
    _ablated(
        "A judge without errors beats one with 30 %",
        "Table 5e",
        "full",
        "judge-errs-30",
        simulated=True,
    ),
    _ablated("Teacher rows in the policy loss help", NOT_IN_THE_PAPER, "full", "teacher-rows-off"),
    _ablated("D's pre-training helps", NOT_IN_THE_PAPER, "full", "pretraining-off"),
    _ablated("G = 4 beats 2", NOT_IN_THE_PAPER, "full", "g=2"),
    _ablated("G = 8 beats 4", NOT_IN_THE_PAPER, "g=8", "full"),
)
"""Every comparison that gets a verdict: the paper's claims, and what a reader of them asks."""


def verdict(claim: Claim, seeds: Interval, questions: Interval, p_value: float) -> Verdict:
    """The rule: both intervals and Holm must agree, else it is not decided.

    Args:
        claim: what is claimed.
        seeds: over seeds, of ``better`` minus ``worse`` in points.
        questions: over questions, of the same.
        p_value: Holm's adjusted one of the test over seeds (against the margin for ``reaches``).
    """
    null = -MARGIN if claim.reaches else 0.0
    sure = p_value < ALPHA
    if sure and seeds.low > null and questions.low > null:
        return Verdict.REPRODUCED
    if sure and seeds.high < null and questions.high < null:
        return Verdict.NOT_REPRODUCED
    if not claim.reaches and seeds.within(MARGIN) and questions.within(MARGIN):
        return Verdict.NOT_REPRODUCED
    return Verdict.NOT_DECIDED


_WORDS_OF_ASKED = {Verdict.REPRODUCED: "holds", Verdict.NOT_REPRODUCED: "does not hold"}


def words(claim: Claim, found: Verdict) -> str:
    """The verdict as it is printed: never "reproduced" for what is simulated or not the paper's."""
    if not (claim.simulated or claim.asked):
        return found.value
    said = _WORDS_OF_ASKED.get(found, found.value)
    return f"simulated: {said}" if claim.simulated and found is not Verdict.NOT_RUN else said


# ---- what the paper measured


def paper_differences(claim: Claim) -> dict[str, float]:
    """``better`` minus ``worse`` in the paper, by its student: points of the mean over benchmarks.

    Over the benchmarks that both rows have. Empty when the paper gives no number.
    """
    if claim.paper is None:
        return {}
    better, worse = (_cells(cell) for cell in claim.paper)
    found = {}
    for student, scores in better.items():
        other = worse.get(student, worse.get("", {}))
        shared = [column for column in scores if column in other]
        if shared:
            found[student] = statistics.fmean(scores[c] - other[c] for c in shared)
    return found


def _cells(cell: PaperCell) -> dict[str, dict[str, float]]:
    """A row of the paper for each of its students: scores by benchmark."""
    if cell.table == "ablation":
        found: dict[str, dict[str, float]] = {}
        for line in _lines("ablations"):
            if (line["ablation"], line["setting"]) == cell.row:
                found.setdefault(line["student"], {})[line["benchmark"]] = float(line["score"])
        return found
    if cell.table == "teacher":
        lines = [x for x in _lines("large_and_closed_models") if x["model"] == cell.row[0]]
        return {"": _scores(lines[0])}
    lines = [x for x in _lines("main_table") if (x["method"], x["teacher"]) == cell.row]
    return {line["student"]: _scores(line) for line in lines}


def _scores(line: Mapping[str, str]) -> dict[str, float]:
    return {column: float(line[column]) for column in COLUMNS if line[column]}


def _lines(name: str) -> Sequence[dict[str, str]]:
    with resource(f"results/paper/{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
