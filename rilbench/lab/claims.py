"""The paper's claims as data, what the paper measured for each, and the rule of the verdict.

The rule: `docs/protocol.md`.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from rilbench.lab.regimes import REGIMES
from rilbench.resources import resource
from rilbench.stats import Interval

MARGIN = 1.0
"""Points of the mean that count as no difference."""
ALPHA = 0.05
"""Family-wise error (Holm) of the claims about one part of an experiment in one regime."""
NOT_IN_THE_PAPER = "not in the paper"
PAPER = "paper"
"""The regime at the paper's distance from the teachers."""
GRADED = "graded-style"
"""The regime in which a teacher's text is not always the better one."""


class ClaimVerdict(Enum):
    """The nano sandbox's verdict on a claim, in the words that a reader sees.

    "Reproduced" is kept for the paper's own models.
    """

    SAME = "same direction"
    OPPOSITE = "the opposite direction"
    NO_EFFECT = "no such effect here"
    CANNOT_TELL = "cannot tell"
    NO_CONTROL = "no verdict, the regime's controls failed"
    NOT_RUN = "not run yet"


@dataclass(frozen=True)
class PaperRow:
    """A row of one of the paper's tables: ``method`` and ``teacher``, or an ablation's setting."""

    table: str
    row: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """``better`` scores higher than ``worse``: names of runs in one regime of an experiment.

    Attributes:
        text: the claim in a few words.
        source: the table or figure of the paper, or `NOT_IN_THE_PAPER`.
        experiment: the experiment whose runs decide.
        regime: the regime in which they were made.
        better, worse: names of runs.
        paper: the paper's rows of ``better`` and ``worse``; None where it gives no number.
        reaches: the claim is "comes as near as in the paper" instead of "is better": its null is
            the lowest difference in the paper.
        simulated: a part of it is simulated, and the verdict says so.
    """

    text: str
    source: str
    experiment: str
    regime: str
    better: str
    worse: str
    paper: tuple[PaperRow, PaperRow] | None = None
    reaches: bool = False
    simulated: bool = False

    @property
    def null(self) -> float:
        """The difference, in points, that it is tested against."""
        return min(paper_differences(self).values()) if self.reaches else 0.0

    @property
    def asked(self) -> bool:
        """The paper makes no such claim, but its readers ask; both directions are of interest."""
        return self.source == NOT_IN_THE_PAPER


def _headline(
    text: str,
    source: str,
    worse: str,
    paper: PaperRow | None = None,
    better: str = "ril",
    reaches: bool = False,
) -> Claim:
    """RIL with both teachers, at the paper's distance, against another run of the headline."""
    pair = None if paper is None else (_main("RIL", "both"), paper)
    return Claim(text, source, "headline", PAPER, better, worse, pair, reaches)


def _in_regime(
    text: str,
    regime: str,
    worse: str,
    source: str = NOT_IN_THE_PAPER,
    paper: PaperRow | None = None,
) -> Claim:
    """RIL with both teachers against another run in one of the other regimes."""
    pair = None if paper is None else (_main("RIL", "both"), paper)
    simulated = bool(REGIMES[regime].judge)
    return Claim(
        f"{text} ({regime})", source, "regimes", regime, "ril", worse, pair, simulated=simulated
    )


def _again(first: Claim) -> Claim:
    """The same claim about new and more seeds, where the first ones could not tell."""
    return replace(first, text=f"{first.text}, again", experiment="replication")


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
    return Claim(text, source, "ablations", PAPER, better, worse, pair, simulated=simulated)


def _main(method: str, teacher: str = "none") -> PaperRow:
    return PaperRow("main", (method, teacher))


_DR_GRPO, _GRPO = _main("Dr.GRPO"), _main("GRPO")
_72B = PaperRow("teacher", ("Qwen2.5-VL-72B",))
_78B = PaperRow("teacher", ("InternVL3-78B",))
_D, _ANSWER, _MU, _BETA = "5d discriminator", "5e answer reward", "5a mu", "5b beta"
_FROZEN = "5c module not trained"
_NEW = NOT_IN_THE_PAPER
_ROWS, _BONUS = "RIL beats teacher responses without D", "RIL beats a constant bonus in D's place"

# fmt: off
_COULD_NOT_TELL = (
    _in_regime(_ROWS, "format", "teacher-rows"),
    _in_regime("RIL beats on-policy distillation", "knowledge", "opd"),
    _in_regime("Both teachers beat 72b alone", "complementary", "ril-72b", "Table 2",
               _main("RIL", "72b")),
    _in_regime("Both teachers beat 78b alone", "complementary", "ril-78b", "Table 2",
               _main("RIL", "78b")),
)
CLAIMS = (
    _headline("RIL beats the untrained student", "Table 2", "untrained", _main("base")),
    _headline("RIL beats Dr.GRPO with 2G student responses", "Table 1", "dr-grpo-8", _DR_GRPO),
    _headline("RIL beats Dr.GRPO with G student responses", "Table 1", "dr-grpo-4", _DR_GRPO),
    _headline("RIL beats GRPO with 2G student responses", "Table 1", "grpo-8", _GRPO),
    _headline("RIL beats GRPO with G student responses", "Table 1", "grpo-4", _GRPO),
    _headline("RIL beats SFT on the same teacher responses", _NEW, "sft"),
    _headline("RIL beats SFT on those that are right", _NEW, "sft-accepted"),
    _headline("SFT, then RIL beats twice the SFT", _NEW, "sft-sft", better="sft-ril"),
    _headline("SFT, then RIL beats SFT, then Dr.GRPO", _NEW, "sft-dr-grpo", better="sft-ril"),
    _headline(_ROWS, _NEW, "teacher-rows"),
    _headline(_BONUS, _NEW, "teacher-bonus"),
    _headline("RIL beats the similarity reward alone", _NEW, "imitation"),
    _headline("RIL beats GAD", _NEW, "gad"),
    _headline("RIL beats on-policy distillation", _NEW, "opd"),
    _headline("SFT, then RIL beats SFT, then GAD", _NEW, "sft-gad", better="sft-ril"),
    _headline("SFT, then RIL beats SFT, then on-policy distillation", _NEW, "sft-opd",
              better="sft-ril"),
    _headline("The student reaches 72b", "Tables 2, 4", "teacher-72b", _72B, reaches=True),
    _headline("The student reaches 78b", "Tables 2, 4", "teacher-78b", _78B, reaches=True),
    *(
        _in_regime(text, regime, worse)
        for regime in ("knowledge", "format", "complementary", "graded-style", "judge-errs-30")
        for text, worse in ((_ROWS, "teacher-rows"), (_BONUS, "teacher-bonus"))
    ),
    *_COULD_NOT_TELL[1:],
    *map(_again, _COULD_NOT_TELL),
    _ablation("An updated D beats a frozen one", "Table 5d",
              "full", "discriminator-frozen", (_D, "updated", "frozen")),
    _ablation("A frozen D beats none (student responses only, as in the paper)", "Table 5d",
              "discriminator-frozen", "student-only", (_D, "frozen", "none")),
    _ablation("A frozen D beats none with the same teacher responses", _NEW,
              "discriminator-frozen", "discriminator-none"),
    _ablation("The judge's answer reward beats none", "Table 5e",
              "full", "answer-none", (_ANSWER, "judge", "none")),
    _ablation("A judge without errors beats one with 10 %", "Table 5e",
              "full", "judge-errs-10", simulated=True),
    _ablation("A judge without errors beats one with 30 %", "Table 5e",
              "full", "judge-errs-30", simulated=True),
    _ablation("β = 0.01 beats 0", "Table 5b", "full", "beta=0", (_BETA, "0.01", "0")),
    _ablation("β = 0.01 beats 0.1", "Table 5b", "full", "beta=0.1", (_BETA, "0.01", "0.10")),
    _ablation("μ = 1 beats 2", "Table 5a", "full", "mu=2", (_MU, "1", "2")),
    _ablation("μ = 1 beats 4", "Table 5a", "full", "mu=4", (_MU, "1", "4")),
    _ablation("A binary similarity reward beats a continuous one", "Fig. 6",
              "full", "similarity-continuous"),
    _ablation("Four saved responses beat one", "Fig. 7", "full", "saved=1"),
    _ablation("Four saved responses beat two", "Fig. 7", "full", "saved=2"),
    _ablation("Teacher responses in the policy loss help", _NEW, "full", "teacher-rows-off"),
    _ablation("D's pre-training helps", _NEW, "full", "pretraining-off"),
    _ablation("G = 4 beats 2", _NEW, "full", "g=2"),
    _ablation("G = 8 beats 4", _NEW, "g=8", "full"),
    _ablation("Training the embedding helps", "Table 5c", "full", "freeze-embedding",
              (_FROZEN, "none (full)", "word embedding")),
    _ablation("Training self-attention helps", "Table 5c", "full", "freeze-attention",
              (_FROZEN, "none (full)", "self-attention")),
    _ablation("Training the FFN's gate helps", "Table 5c", "full", "freeze-gate",
              (_FROZEN, "none (full)", "FFN gate")),
    _ablation("Training the norms helps", "Table 5c", "full", "freeze-norm",
              (_FROZEN, "none (full)", "layer norm")),
)
# fmt: on
"""Every comparison that gets a verdict: the paper's claims, and what its readers ask."""


QUESTIONS = {
    "Does RIL improve the student?": "RIL beats the untrained student",
    "More than reinforcement learning without teachers?": (
        "RIL beats Dr.GRPO with 2G student responses"
    ),
    "More than SFT on the same teacher responses?": "RIL beats SFT on the same teacher responses",
    "Does the discriminator add to the teacher responses?": _ROWS,
    "Does it add more than a constant bonus for them?": _BONUS,
    "More than on-policy distillation, which needs logits?": "RIL beats on-policy distillation",
    "Do both teachers beat the 72b alone?": "Both teachers beat 72b alone (complementary), again",
}
"""What a reader asks first, and the claim that answers it."""


def decide(
    claim: Claim, seeds: Interval, questions: Interval, p_value: float, p_equal: float
) -> ClaimVerdict:
    """Return the verdict: both intervals and Holm's test must agree, else nobody can tell.

    Args:
        claim: what is claimed.
        seeds: interval over seeds of ``better`` minus ``worse``, in points.
        questions: interval over questions of the same difference.
        p_value: of the test over seeds against the claim's null, adjusted by Holm.
        p_equal: of the test that the difference is within the margin, adjusted by Holm.
    """
    significant = p_value < ALPHA
    if significant and seeds.low > claim.null and questions.low > claim.null:
        return ClaimVerdict.SAME
    if significant and seeds.high < claim.null and questions.high < claim.null:
        return ClaimVerdict.OPPOSITE
    if not claim.reaches and p_equal < ALPHA and questions.within(MARGIN):
        return ClaimVerdict.NO_EFFECT
    return ClaimVerdict.CANNOT_TELL


_REACHES = {
    ClaimVerdict.SAME: "as near as in the paper, or nearer",
    ClaimVerdict.OPPOSITE: "further behind than in the paper",
}
_ASKED = {
    ClaimVerdict.SAME: "yes",
    ClaimVerdict.OPPOSITE: "no, the opposite",
    ClaimVerdict.NO_EFFECT: "no difference",
}


def verdict_text(claim: Claim, verdict: ClaimVerdict, seeds: Interval | None = None) -> str:
    """Return the printed verdict.

    Args:
        claim: what is claimed.
        verdict: of `decide`.
        seeds: interval over seeds; where all of it is outside of the paper's range, that is said.
    """
    words = _REACHES if claim.reaches else _ASKED if claim.asked or claim.simulated else {}
    text = words.get(verdict, verdict.value)
    paper = list(paper_differences(claim).values())
    if verdict is ClaimVerdict.SAME and paper and seeds and not claim.reaches:
        if seeds.low > max(paper):
            text += ", larger than in the paper"
        elif seeds.high < min(paper):
            text += ", smaller than in the paper"
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
