"""The benchmarks, one row each: which kit scores it, where its number stands, what it is.

A benchmark is added by one row here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rilbench.columns import COLUMNS
from rilbench.errors import UserError

Judging = Literal["none", "extractor", "grader"]
"""What a judge does: nothing; read the chosen option where the kit's own rules cannot (it may be
left out); decide what is right (it may not)."""


@dataclass(frozen=True)
class Dataset:
    """One data file of a benchmark and how VLMEvalKit scores it."""

    name: str
    """The kit's name for it, and the stem of its data file."""
    questions: int
    """How many the published set scores; one that is asked in several rotations counts once."""
    md5: str | None
    """Of the published file, as the kit knows it; None where the kit has none."""
    metric: str = "Overall"
    """Column of the kit's result that holds the score."""
    scale: int = 1
    """What the kit calls everything right: 1 or 100. Declared, never guessed from the value."""
    row: tuple[str, str] | None = None
    """Column and value that pick the row of the kit's result; None: it has one row only."""
    split: str | None = None
    """The only split that is asked; None: all of the file."""
    judging: Judging = "extractor"
    """What a judge does."""
    circular: bool = False
    """A question counts when all its rotations (index + k · 1e6) are right."""
    version: str = ""
    """Which of several published versions it is."""

    @property
    def judged(self) -> bool:
        """A judge decides each answer."""
        return self.judging == "grader"


@dataclass(frozen=True)
class Task:
    """A task of lmms-eval that asks the same questions, and where its number stands."""

    name: str
    metric: str
    scale: int = 1
    judged: bool = False


@dataclass(frozen=True)
class Benchmark:
    """One column of the table. Several datasets count as the plain mean of their scores."""

    column: str
    """The paper's name for it."""
    datasets: tuple[Dataset, ...]
    tasks: tuple[Task, ...]
    """What lmms-eval has for it."""
    kit: str = "vlmevalkit"

    @property
    def name(self) -> str:
        """The kit's name for it; for several datasets, their names."""
        return "+".join(dataset.name for dataset in self.datasets)

    @property
    def metric(self) -> str:
        """Which of the kit's numbers it is."""
        metrics = "+".join(dict.fromkeys(dataset.metric for dataset in self.datasets))
        return metrics if len(self.datasets) == 1 else f"mean of {metrics}"

    @property
    def judged(self) -> bool:
        """A judge decides."""
        return any(dataset.judged for dataset in self.datasets)

    @property
    def version(self) -> str:
        """Which of several published versions it is; empty where there is one."""
        versions = [dataset.version for dataset in self.datasets if dataset.version]
        return ", ".join(dict.fromkeys(versions))


@dataclass(frozen=True)
class Suite:
    """Benchmarks evaluated together, with the longest answer in tokens."""

    name: str
    benchmarks: tuple[Benchmark, ...]
    max_tokens: int
    published: bool = True
    """The data are the published sets; else look-alikes of the same names."""

    @property
    def columns(self) -> list[str]:
        """The benchmarks' columns in the paper's order."""
        return [b.column for b in self.benchmarks]

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """All datasets, benchmark by benchmark."""
        return tuple(dataset for b in self.benchmarks for dataset in b.datasets)

    def pick(self, columns: Sequence[str]) -> "Suite":
        """Only these benchmarks, in the paper's order; case does not matter.

        Raises:
            UserError: a column that the suite lacks, or none at all.
        """
        known = {column.lower(): column for column in self.columns}
        unknown = [column for column in columns if column.strip().lower() not in known]
        if unknown or not columns:
            wrong = f"no benchmark {unknown[0]!r}" if unknown else "no benchmark named"
            raise UserError(f"{wrong}; there is {', '.join(self.columns)}")
        wanted = {known[column.strip().lower()] for column in columns}
        return replace(self, benchmarks=tuple(b for b in self.benchmarks if b.column in wanted))


# As ms-vlmeval 0.0.20 and lmms-eval 0.7.3 compute them. MM-Vet v2, which VLMEvalKit lacks, is its
# MM-Vet on the data of version 2. The paper does not name its versions: of MMBench v1.0 is taken,
# of MMMU-Pro the mean of ten options and vision only.
_MMBENCH = Dataset(
    *("MMBench_DEV_EN", 1164, "b6caf1133a01c6bb705cf753bb527ed8"),
    row=("split", "dev"),
    split="dev",
    circular=True,
    version="v1.0",
)
_MMVET = Dataset(
    *("MMVet", 218, "748aa6d4aa9d4de798306a63718455e3", "acc"),
    scale=100,
    row=("Category", "Overall"),
    judging="grader",
)
_BENCHMARKS = (
    Benchmark(
        "AI2D",
        (Dataset("AI2D_TEST", 3088, "0f593e0d1c7df9a3d69bf1f947e71975"),),
        (Task("ai2d", "exact_match,flexible-extract"),),
    ),
    Benchmark(
        "ChartQA",
        (
            Dataset(
                *("ChartQA_TEST", 2500, "c902e0aa9be5582a7aad6dcf52734b42"),
                scale=100,
                judging="none",
            ),
        ),
        (Task("chartqa", "relaxed_overall"),),
    ),
    Benchmark(
        "MathVista",
        (
            Dataset(
                *("MathVista_MINI", 1000, "f199b98e178e5a2a20e7048f5dcb0464", "acc"),
                scale=100,
                row=("Task&Skill", "Overall"),
                judging="grader",
                version="testmini",
            ),
        ),
        (Task("mathvista_testmini_format", "llm_as_judge_eval", scale=100, judged=True),),
    ),
    Benchmark("MMB", (_MMBENCH,), (Task("mmbench_en_dev", "gpt_eval_score", 100, judged=True),)),
    Benchmark(
        "MMB-CN",
        (replace(_MMBENCH, name="MMBench_DEV_CN", md5="08b8fc3324a5ed74155350f57be69fbd"),),
        (Task("mmbench_cn_dev", "gpt_eval_score", 100, judged=True),),
    ),
    Benchmark("MM-Vet", (_MMVET,), (Task("mmvet", "gpt_eval_score", 100, judged=True),)),
    Benchmark(
        "MM-Vet-v2",
        (replace(_MMVET, name="MMVetV2", questions=517, md5=None),),
        (Task("mmvetv2", "gpt_eval_score", 100, judged=True),),
    ),
    Benchmark(
        "MMMU",
        (
            Dataset(
                *("MMMU_DEV_VAL", 900, "585e8ad75e73f75dcad265dfd0417d64"),
                row=("split", "validation"),
                split="validation",
                version="validation",
            ),
        ),
        (Task("mmmu_val", "mmmu_acc"),),
    ),
    Benchmark(
        "MMMU-Pro",
        (
            Dataset(
                *("MMMU_Pro_10c", 1730, "22cee868fe6b680d14b99bfff6db8172"), version="10 options"
            ),
            Dataset("MMMU_Pro_V", 1730, "d01441a87b3dbe721b5a04652ae38009", version="vision"),
        ),
        (Task("mmmu_pro_standard", "mmmu_acc"), Task("mmmu_pro_vision", "mmmu_acc")),
    ),
    Benchmark(
        "MMStar",
        (Dataset("MMStar", 1500, "e1ecd2140806c1b1bbf54b43372efb9e"),),
        (Task("mmstar", "average"),),
    ),
    Benchmark(
        "BLINK",
        (
            Dataset(
                *("BLINK", 1901, "3b6649b6a662184ea046908e5506260e"),
                row=("split", "val"),
                split="val",
                version="val",
            ),
        ),
        (Task("blink", "blink_acc"),),
    ),
    Benchmark(
        "SEED",
        (Dataset("SEEDBench_IMG", 14233, "68017231464752261a2526d6ca3a10c0", version="images"),),
        (Task("seedbench", "seed_image"),),
    ),
    Benchmark(
        "SEED2+",
        (Dataset("SEEDBench2_Plus", 2277, "e32d3216dc4f452b0fe497a52015d1fd"),),
        (Task("seedbench_2_plus", "seedbench_2_plus_all"),),
    ),
    Benchmark(
        "RWQA",
        (Dataset("RealWorldQA", 765, "4de008f55dc4fd008ca9e15321dc44b7"),),
        (Task("realworldqa", "exact_match,flexible-extract"),),
    ),
)
assert tuple(benchmark.column for benchmark in _BENCHMARKS) == COLUMNS

_SUITES = (
    Suite("paper", _BENCHMARKS, max_tokens=2048),
    Suite("nano", _BENCHMARKS, max_tokens=64, published=False),
)
SUITES = {suite.name: suite for suite in _SUITES}
"""Every suite by its name."""


def find_suite(name: str) -> Suite:
    """Return a suite.

    Raises:
        UserError: there is none of that name.
    """
    if name not in SUITES:
        raise UserError(f"no suite {name!r}; there is {', '.join(SUITES)}")
    return SUITES[name]


def suite(name: str) -> tuple[Benchmark, ...]:
    """Return a suite's benchmarks in the paper's order; UserError for an unknown name."""
    return find_suite(name).benchmarks


def suite_columns(name: str) -> list[str]:
    """Return the columns of a suite's benchmarks; UserError for an unknown name."""
    return find_suite(name).columns
