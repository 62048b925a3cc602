"""Result folders that the kits themselves wrote, and rilbench's own scores of the same answers."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_judge import FakeJudge, fake_judge, says
from kit_folders import FORMS, READ_BY_JUDGE, Texts, run_lmmseval, run_vlmevalkit

from rilbench.evaluate.kits import base as adapter
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.kits.lmmseval_dataset import write_hub
from rilbench.evaluate.kits.scores import KitScore
from rilbench.evaluate.suite import VLMEVALKIT, find_suite
from rilbench.nano.data import write_benchmarks

SUITE = find_suite("nano")
QUESTIONS = 14


def grade(body: dict[str, Any]) -> tuple[int, bytes]:
    """Half a point in MM-Vet, else "B"; nothing of use for a hopeless response."""
    text = str(body["messages"][-1]["content"])
    # A judge that is asked which option was meant; MathVista's says what it reads.
    if "hopeless" in text[-60:]:
        return says("I cannot say.")
    return says("0.5" if "orrectness" in text else "B")


@pytest.fixture(scope="session")
def judge() -> Iterator[FakeJudge]:
    with fake_judge(grade) as server:
        yield server


@pytest.fixture(scope="session")
def tsv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic stand-ins, smaller than those of the nano sandbox."""
    folder = tmp_path_factory.mktemp("tsv")
    write_benchmarks(folder, "dev", QUESTIONS)
    return folder


@pytest.fixture(scope="session")
def answers(tsv: Path) -> Texts:
    """Right, wrong, in forms on which readers differ, and of no use."""
    found: Texts = {}
    for dataset in SUITE.datasets:
        table = pd.read_csv(tsv / f"{dataset.name}.tsv", sep="\t", dtype=str)
        own = found.setdefault(dataset.name, {})
        for number, (index, truth) in enumerate(zip(table["index"], table["answer"], strict=True)):
            form = FORMS[number % 3 if number % 4 else 3 + number % 8 // 4]
            own[index] = form.format(str(truth).replace("<AND>", ", "))
        own[next(iter(own))] = "=0"  # In a workbook it is a formula.
    return found


@pytest.fixture(scope="session")
def vlmevalkit(
    tmp_path_factory: pytest.TempPathFactory, tsv: Path, answers: Texts, judge: FakeJudge
) -> Path:
    """Every dataset that the kit has, with a judge where it needs one and for some choices."""
    judged = [dataset.name for dataset in SUITE.datasets if dataset.judged]
    own = {name: texts for name, texts in answers.items() if name != "MMVetV2"}
    out = tmp_path_factory.mktemp("vlmevalkit")
    return run_vlmevalkit(out, tsv, own, [*judged, *READ_BY_JUDGE], judge.url)


@pytest.fixture(scope="session")
def own_scores(
    tmp_path_factory: pytest.TempPathFactory, tsv: Path, answers: Texts, judge: FakeJudge
) -> dict[str, KitScore]:
    """The same answers scored by rilbench, without and with the judge for choices."""
    kit = find_kit(VLMEVALKIT)
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(tsv, folder / "LMUData")
    (folder / "kit").mkdir()
    found: dict[str, KitScore] = {}
    with kit.start(ensure_environment(VLMEVALKIT), folder / "log", lambda: ("", "")) as process:
        for reads in (False, True):
            names = [n for n in answers if reads == (n in READ_BY_JUDGE)]
            chosen = [dataset for dataset in SUITE.datasets if dataset.name in names]
            out = folder / f"out-{reads}"
            out.mkdir()
            job = adapter.prompts_job(kit, chosen, folder, folder)
            own = {name: answers[name] for name in names}
            process.run("score", adapter.score_job(job, out, own, (judge.url, "judge", reads)))
            found |= adapter.read_scores(kit, out / "result.json", chosen)[1]
    return found


LMMS_TASKS = {"ai2d": "AI2D_TEST", "chartqa": "ChartQA_TEST", "mmstar": "MMStar", "mmvet": "MMVet"}


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory, tsv: Path) -> Path:
    """The same questions as lmms-eval has them."""
    return write_hub(tsv, tmp_path_factory.mktemp("hub") / "hub")


@pytest.fixture(scope="session")
def lmms_answers(answers: Texts) -> Texts:
    """The same answers by row, of a few tasks."""
    return {
        task: {str(row): text for row, text in enumerate(answers[name].values())}
        for task, name in LMMS_TASKS.items()
    }


@pytest.fixture(scope="session")
def lmmseval(
    tmp_path_factory: pytest.TempPathFactory, hub: Path, lmms_answers: Texts, judge: FakeJudge
) -> Path:
    """What the kit writes of them."""
    out = tmp_path_factory.mktemp("lmmseval")
    return run_lmmseval(out, hub, lmms_answers, list(lmms_answers), judge.url)
