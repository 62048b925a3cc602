"""The paper's claims as data, what the paper measured for each, and the rule of the verdict.

The rule was fixed before the first run on test: `docs/protocol.md`.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from rilbench.resources import resource
from rilbench.stats import Interval

MARGIN = 1.0
"""Points of the mean that count as no difference."""
ALPHA = 0.05
"""Family-wise error (Holm) of the claims about one part of an experiment on one student."""
NOT_IN_THE_PAPER = "not in the paper"


class ClaimVerdict(Enum):
    """The nano sandbox's verdict on a claim, in the words that a reader sees."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    NOT_DECIDED = "not decided"
    NOT_RUN = "not run yet"


@dataclass(frozen=True)
class PaperRow:
    """A row of one of the paper's tables: ``method`` and ``teacher``, or an ablation's setting."""

    table: str
    row: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """``better`` scores higher than ``worse``: names of runs in one experiment.

    Attributes:
        text: the claim in a few words.
        source: the table or figure of the paper, or `NOT_IN_THE_PAPER`.
        experiment: the experiment whose runs decide.
        better, worse: names of runs.
        paper: the paper's rows of ``better`` and ``worse``; None where it gives no number.
        reaches: the claim is "is not worse by more than the margin" instead of "is better".
        simulated: a part of it is simulated, so the verdict may not say "reproduced".
    """

    text: str
    source: str
    experiment: str
    better: str
    worse: str
    paper: tuple[PaperRow, PaperRow] | None = None
    reaches: bool = False
    simulated: bool = False

    @property
    def asked(self) -> bool:
        """The paper makes no such claim, but its readers ask; both directions are of interest."""
        return self.source == NOT_IN_THE_PAPER


def _headline(
    text: str, source: str, worse: str, paper: PaperRow | None = None, reaches: bool = False
) -> Claim:
    """RIL with both teachers against another run of the headline."""
    pair = None if paper is None else (_main("RIL", "both"), paper)
    return Claim(text, source, "headline", "ril-both", worse, pair, reaches)


def _ablation(
    text: str,
    source: str,
    better: str,
    worse: str,
    paper: tuple[str, str, str] | None = None,
    simulated: bool = False,
) -> Claim:
    """Two runs of the ablations; ``paper`` is a part of Table 5 and its settings of both."""
    pair = None
    if paper is not None:
        part, *settings = paper
        first, second = (PaperRow("ablation", (part, setting)) for setting in settings)
        pair = (first, second)
    return Claim(text, source, "ablations", better, worse, pair, simulated=simulated)


def _main(method: str, teacher: str = "none") -> PaperRow:
    return PaperRow("main", (method, teacher))


_DR_GRPO, _GRPO = _main("Dr.GRPO"), _main("GRPO")
_72B = PaperRow("teacher", ("Qwen2.5-VL-72B",))
_78B = PaperRow("teacher", ("InternVL3-78B",))
_D, _ANSWER, _MU, _BETA = "5d discriminator", "5e answer reward", "5a mu", "5b beta"
_NEW = NOT_IN_THE_PAPER

# fmt: off
CLAIMS = (
    _headline("RIL beats the untrained student", "Table 2", "untrained", _main("base")),
    _headline("RIL beats Dr.GRPO with 2G student responses", "Table 1", "dr-grpo-8", _DR_GRPO),
    _headline("RIL beats Dr.GRPO with G student responses", "Table 1", "dr-grpo-4", _DR_GRPO),
    _headline("RIL beats GRPO with 2G student responses", "Table 1", "grpo-8", _GRPO),
    _headline("RIL beats GRPO with G student responses", "Table 1", "grpo-4", _GRPO),
    _headline("RIL beats SFT on the same teacher responses", _NEW, "sft"),
    _headline("RIL beats SFT, then Dr.GRPO", _NEW, "sft-dr-grpo"),
    _headline("RIL beats the similarity reward alone", _NEW, "imitation"),
    _headline("RIL beats teacher responses without D", _NEW, "teacher-rows"),
    _headline("Both teachers beat 72b alone", "Table 2", "ril-72b", _main("RIL", "72b")),
    _headline("Both teachers beat 78b alone", "Table 2", "ril-78b", _main("RIL", "78b")),
    _headline("The student reaches 72b", "Tables 2, 4", "teacher-72b", _72B, reaches=True),
    _headline("The student reaches 78b", "Tables 2, 4", "teacher-78b", _78B, reaches=True),
    _ablation("An updated D beats a frozen one", "Table 5d",
              "full", "discriminator-frozen", (_D, "updated", "frozen")),
    _ablation("A frozen D beats none (student responses only, as in the paper)", "Table 5d",
              "discriminator-frozen", "student-only", (_D, "frozen", "none")),
    _ablation("A frozen D beats none with the same teacher responses", _NEW,
              "discriminator-frozen", "discriminator-none"),
    _ablation("The judge's answer reward beats none", "Table 5e",
              "full", "answer-none", (_ANSWER, "judge", "none")),
    _ablation("β = 0.01 beats 0", "Table 5b", "beta=0.01", "beta=0", (_BETA, "0.01", "0")),
    _ablation("β = 0.01 beats 0.1", "Table 5b", "beta=0.01", "beta=0.1", (_BETA, "0.01", "0.10")),
    _ablation("μ = 1 beats 2", "Table 5a", "full", "mu=2", (_MU, "1", "2")),
    _ablation("μ = 1 beats 4", "Table 5a", "full", "mu=4", (_MU, "1", "4")),
    _ablation("A binary similarity reward beats a continuous one", "Fig. 6",
              "full", "similarity-continuous"),
    _ablation("Four saved responses beat one", "Fig. 7", "full", "saved=1"),
    _ablation("Four saved responses beat two", "Fig. 7", "full", "saved=2"),
    _ablation("A judge without errors beats one with 10 %", "Table 5e",
              "full", "judge-errs-10", simulated=True),
    _ablation("A judge without errors beats one with 30 %", "Table 5e",
              "full", "judge-errs-30", simulated=True),
    _ablation("Teacher responses in the policy loss help", _NEW, "full", "teacher-rows-off"),
    _ablation("D's pre-training helps", _NEW, "full", "pretraining-off"),
    _ablation("G = 4 beats 2", _NEW, "full", "g=2"),
    _ablation("G = 8 beats 4", _NEW, "g=8", "full"),
)
# fmt: on
"""Every comparison that gets a verdict: the paper's claims, and what its readers ask."""


def decide(claim: Claim, seeds: Interval, questions: Interval, p_value: float) -> ClaimVerdict:
    """Return the verdict: both intervals and Holm's test must agree, else it is not decided.

    Args:
        claim: what is claimed.
        seeds: interval over seeds of ``better`` minus ``worse``, in points.
        questions: interval over questions of the same difference.
        p_value: of the test over seeds (against the margin for ``reaches``), adjusted by Holm.
    """
    null = -MARGIN if claim.reaches else 0.0
    significant = p_value < ALPHA
    if significant and seeds.low > null and questions.low > null:
        return ClaimVerdict.REPRODUCED
    if significant and seeds.high < null and questions.high < null:
        return ClaimVerdict.NOT_REPRODUCED
    if not claim.reaches and seeds.within(MARGIN) and questions.within(MARGIN):
        return ClaimVerdict.NOT_REPRODUCED
    return ClaimVerdict.NOT_DECIDED


def verdict_text(claim: Claim, verdict: ClaimVerdict) -> str:
    """Return the printed verdict; what is simulated or not in the paper is never "reproduced"."""
    if not (claim.simulated or claim.asked):
        return verdict.value
    holds = {ClaimVerdict.REPRODUCED: "holds", ClaimVerdict.NOT_REPRODUCED: "does not hold"}
    text = holds.get(verdict, verdict.value)
    simulated = claim.simulated and verdict is not ClaimVerdict.NOT_RUN
    return f"simulated: {text}" if simulated else text


# ---- what the paper measured


def paper_differences(claim: Claim) -> dict[str, float]:
    """Return the paper's ``better`` minus ``worse`` for each of its students, in points.

    A difference is the mean over the benchmarks that both rows have. Empty when the paper gives no
    number.
    """
    if claim.paper is None:
        return {}
    better, worse = (_paper_scores(row) for row in claim.paper)
    differences = {}
    for student, scores in better.items():
        other = worse.get(student, worse.get("", {}))
        shared = [benchmark for benchmark in scores if benchmark in other]
        if shared:
            differences[student] = statistics.fmean(scores[b] - other[b] for b in shared)
    return differences


_TEXT_COLUMNS = ("student", "method", "teacher", "model", "source")


def _paper_scores(row: PaperRow) -> dict[str, dict[str, float]]:
    """Return the scores of a row by student and benchmark; a teacher has the student ""."""
    scores: dict[str, dict[str, float]] = {}
    if row.table == "ablation":
        for line in _read_table("ablations"):
            if (line["ablation"], line["setting"]) == row.row:
                scores.setdefault(line["student"], {})[line["benchmark"]] = float(line["score"])
        return scores
    if row.table == "teacher":
        lines = [x for x in _read_table("large_and_closed_models") if x["model"] == row.row[0]]
    else:
        lines = [x for x in _read_table("main_table") if (x["method"], x["teacher"]) == row.row]
    for line in lines:
        scores[line.get("student", "")] = {
            name: float(value)
            for name, value in line.items()
            if value and name not in _TEXT_COLUMNS
        }
    return scores


def _read_table(name: str) -> list[Mapping[str, str]]:
    with resource(f"results/paper/{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
