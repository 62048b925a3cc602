"""The benchmarks, one row each: which kit scores it, where its number stands, what it is.

A benchmark is added by one row here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rilbench.benchmark_names import COLUMNS
from rilbench.errors import UserError

VLMEVALKIT, LMMSEVAL = "vlmevalkit", "lmms-eval"
KITS = (VLMEVALKIT, LMMSEVAL)
"""The first scores the table; the second is the cross-check."""

Judging = Literal["none", "extractor", "grader"]
"""What a judge does: nothing; read the chosen option where the kit's own rules cannot (it may be
left out); decide what is right (it may not)."""


@dataclass(frozen=True)
class Dataset:
    """One data set of a benchmark, as a kit names and scores it.

    VLMEvalKit calls it a dataset and reads it from a file of that name; lmms-eval calls it a task
    and reads it from a hub's folder.
    """

    name: str
    """The kit's name for it; VLMEvalKit's is also the stem of its data file."""
    questions: int
    """How many the published set scores; one that is asked in several rotations counts once."""
    md5: str | None = None
    """Of the published file, as VLMEvalKit knows it; None where it has none."""
    metric: str = "Overall"
    """What the kit calls the score; in lmms-eval with its filter, unless that is "none"."""
    scale: int = 1
    """What the kit calls everything right: 1 or 100. Declared, never guessed from the value."""
    row: tuple[str, str] | None = None
    """Column and value that pick the row of VLMEvalKit's result; None: it has one row only."""
    split: str | None = None
    """The only split that is asked; None: all of the file."""
    judging: Judging = "extractor"
    """What a judge does."""
    circular: bool = False
    """A question counts when all its rotations (index + k · 1e6) are right."""
    version: str = ""
    """Which of several published versions it is."""
    hub: str = ""
    """lmms-eval's folder on the hub, ORG/NAME or ORG/NAME/CONFIG."""
    parts: int = 1
    """Into how many of lmms-eval's tasks it is divided; the score is then the mean of theirs,
    whatever their sizes, and a limit counts for all together."""
    only: tuple[str, str] | None = None
    """Column and value of the only questions that lmms-eval is to ask."""
    rounding: float = 1e-6
    """How far the kit's own total may be from its questions' mean, in points."""

    @property
    def judged(self) -> bool:
        """A judge decides each answer."""
        return self.judging == "grader"


@dataclass(frozen=True)
class Benchmark:
    """One column of the table. Several datasets count as the plain mean of their scores."""

    column: str
    """The paper's name for it."""
    by_kit: Mapping[str, tuple[Dataset, ...]]
    """What each kit has for it."""
    kit: str = VLMEVALKIT
    """The kit that is to score it."""

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """What the kit scores."""
        return self.by_kit[self.kit]

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
    kit: str = VLMEVALKIT
    """The kit that is to score it."""

    @property
    def columns(self) -> list[str]:
        """The benchmarks' columns in the paper's order."""
        return [b.column for b in self.benchmarks]

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """All datasets, benchmark by benchmark."""
        return tuple(dataset for b in self.benchmarks for dataset in b.datasets)

    def by(self, kit: str) -> "Suite":
        """The same suite, scored by this kit.

        Raises:
            UserError: there is no such kit.
        """
        if kit not in KITS:
            raise UserError(f"no kit {kit!r}; there is {', '.join(KITS)}")
        return replace(
            self, kit=kit, benchmarks=tuple(replace(b, kit=kit) for b in self.benchmarks)
        )

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
_MMBENCH_TASK = Dataset(
    *("mmbench_en_dev", 1164),
    metric="gpt_eval_score",
    scale=100,
    circular=True,
    hub="lmms-lab-encoder/MMBench/en",
    version="v1.0",
)
_MMVET_TASK = Dataset(
    *("mmvet", 218),
    metric="gpt_eval_score",
    scale=100,
    judging="grader",
    hub="lmms-lab-encoder/MMVet",
)


def _task(name: str, questions: int, metric: str, hub: str, version: str = "") -> Dataset:
    """A task of lmms-eval that no judge has a part in."""
    # Of MMMU's numbers the kit keeps five digits.
    rounding = 6e-4 if metric == "mmmu_acc" else 1e-6
    plain = Dataset(name, questions, metric=metric, hub=hub, version=version, judging="none")
    return replace(plain, rounding=rounding)


def _benchmark(column: str, datasets: Sequence[Dataset], tasks: Sequence[Dataset]) -> Benchmark:
    return Benchmark(column, {VLMEVALKIT: tuple(datasets), LMMSEVAL: tuple(tasks)})


_BENCHMARKS = (
    _benchmark(
        "AI2D",
        [Dataset("AI2D_TEST", 3088, "0f593e0d1c7df9a3d69bf1f947e71975")],
        [_task("ai2d", 3088, "exact_match,flexible-extract", "lmms-lab-encoder/ai2d")],
    ),
    _benchmark(
        "ChartQA",
        [
            Dataset(
                *("ChartQA_TEST", 2500, "c902e0aa9be5582a7aad6dcf52734b42"),
                scale=100,
                judging="none",
            )
        ],
        [_task("chartqa", 2500, "relaxed_overall", "lmms-lab-encoder/ChartQA")],
    ),
    _benchmark(
        "MathVista",
        [
            Dataset(
                *("MathVista_MINI", 1000, "f199b98e178e5a2a20e7048f5dcb0464", "acc"),
                scale=100,
                row=("Task&Skill", "Overall"),
                judging="grader",
                version="testmini",
            )
        ],
        [
            Dataset(
                *("mathvista_testmini_format", 1000),
                metric="llm_as_judge_eval",
                scale=100,
                judging="grader",
                hub="AI4Math/MathVista",
                version="testmini",
                rounding=0.006,
            )
        ],
    ),
    _benchmark("MMB", [_MMBENCH], [_MMBENCH_TASK]),
    _benchmark(
        "MMB-CN",
        [replace(_MMBENCH, name="MMBench_DEV_CN", md5="08b8fc3324a5ed74155350f57be69fbd")],
        [replace(_MMBENCH_TASK, name="mmbench_cn_dev", hub="lmms-lab-encoder/MMBench/cn")],
    ),
    _benchmark("MM-Vet", [_MMVET], [_MMVET_TASK]),
    _benchmark(
        "MM-Vet-v2",
        [replace(_MMVET, name="MMVetV2", questions=517, md5=None)],
        [replace(_MMVET_TASK, name="mmvetv2", questions=517, hub="whyu/mm-vet-v2")],
    ),
    _benchmark(
        "MMMU",
        [
            Dataset(
                *("MMMU_DEV_VAL", 900, "585e8ad75e73f75dcad265dfd0417d64"),
                row=("split", "validation"),
                split="validation",
                version="validation",
            )
        ],
        [_task("mmmu_val", 900, "mmmu_acc", "lmms-lab-encoder/MMMU", "validation")],
    ),
    _benchmark(
        "MMMU-Pro",
        [
            Dataset(
                *("MMMU_Pro_10c", 1730, "22cee868fe6b680d14b99bfff6db8172"), version="10 options"
            ),
            Dataset("MMMU_Pro_V", 1730, "d01441a87b3dbe721b5a04652ae38009", version="vision"),
        ],
        [
            _task(
                *("mmmu_pro_standard", 1730, "mmmu_acc"),
                *("MMMU/MMMU_Pro/standard (10 options)", "10 options"),
            ),
            _task("mmmu_pro_vision", 1730, "mmmu_acc", "MMMU/MMMU_Pro/vision", "vision"),
        ],
    ),
    _benchmark(
        "MMStar",
        [Dataset("MMStar", 1500, "e1ecd2140806c1b1bbf54b43372efb9e")],
        [_task("mmstar", 1500, "average", "Lin-Chen/MMStar")],
    ),
    _benchmark(
        "BLINK",
        [
            Dataset(
                *("BLINK", 1901, "3b6649b6a662184ea046908e5506260e"),
                row=("split", "val"),
                split="val",
                version="val",
            )
        ],
        [replace(_task("blink", 1901, "blink_acc", "BLINK-Benchmark/BLINK", "val"), parts=14)],
    ),
    _benchmark(
        "SEED",
        [Dataset("SEEDBench_IMG", 14233, "68017231464752261a2526d6ca3a10c0", version="images")],
        [
            replace(
                _task("seedbench", 14233, "seed_image", "lmms-lab-encoder/SEED-Bench", "images"),
                only=("data_type", "image"),
            )
        ],
    ),
    _benchmark(
        "SEED2+",
        [Dataset("SEEDBench2_Plus", 2277, "e32d3216dc4f452b0fe497a52015d1fd")],
        [_task("seedbench_2_plus", 2277, "seedbench_2_plus_all", "doolayer/SEED-Bench-2-Plus")],
    ),
    _benchmark(
        "RWQA",
        [Dataset("RealWorldQA", 765, "4de008f55dc4fd008ca9e15321dc44b7")],
        [_task("realworldqa", 765, "exact_match", "lmms-lab-encoder/RealWorldQA")],
    ),
)
assert tuple(benchmark.column for benchmark in _BENCHMARKS) == COLUMNS

_SUITES = (
    Suite("paper", _BENCHMARKS, max_tokens=2048),
    Suite("nano", _BENCHMARKS, max_tokens=64, published=False),
)
SUITES = {suite.name: suite for suite in _SUITES}
"""Every suite by its name."""
NANO_DEV = "nano-dev"
"""How evaluations on the laboratory's dev questions are called; nothing compares them with test."""


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
    return find_suite("nano" if name == NANO_DEV else name).columns
