"""A 15th benchmark, evaluated from its file to the ledger by the real kits."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from rilbench.errors import UserError
from rilbench.evaluate.benchmark import read_benchmark
from rilbench.evaluate.kits.base import read_scores, score_job
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.kits.lmmseval_dataset import write_hub
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.prompts import PromptSet
from rilbench.evaluate.run import evaluate
from rilbench.ledger import Ledger
from rilbench.paths import nano_folder

BENCHMARKS = nano_folder() / "benchmarks"


def own_benchmark(folder: Path, dataset: str, kit: str = "vlmevalkit", fields: str = "") -> Path:
    file = folder / "mine.toml"
    file.write_text(f'name = "Mine"\n[[{kit}]]\nname = "{dataset}"\nquestions = 4\n{fields}')
    return file


def options(
    data: Path, file: Path, kit: str = "vlmevalkit", limit: int | None = None
) -> EvalOptions:
    return EvalOptions(
        suite="paper",
        data=data,
        work=data / "work",
        db=data / "scores.db",
        kit=kit,
        benchmarks=(str(file),),
        engine="batch",
        limit=limit,
        max_tokens=4,
    )


def test_own_multiple_choice_with_vlmevalkit(checkpoint: Path, tmp_path: Path) -> None:
    table = pd.read_csv(BENCHMARKS / "MMStar.tsv", sep="\t").head(4)
    table.to_csv(tmp_path / "MyChoices.tsv", sep="\t", index=False)
    mine = options(tmp_path, own_benchmark(tmp_path, "MyChoices"))
    (score,) = evaluate(checkpoint, mine).scores
    assert (score.benchmark, score.dataset, score.questions) == ("Mine", "MyChoices", 4)
    assert (score.kit, score.missing, score.data_state) == ("ms-vlmeval", 0, "unverified")
    with Ledger(tmp_path / "scores.db") as ledger:
        (evaluation,) = ledger.evaluations()
        assert [s.benchmark for s in evaluation.scores] == ["Mine"]
        samples = ledger.samples(evaluation.id or 0)
    assert {s.benchmark for s in samples} == {"Mine"}
    assert [s.gold for s in samples] == list(table["answer"])
    assert score.value == 100 * sum(s.score or 0 for s in samples) / 4


def test_short_answers_that_vlmevalkit_knows(tmp_path: Path) -> None:
    """A worker's total and its questions' outcomes agree where an answer is partly right."""
    table = pd.read_csv(BENCHMARKS / "ChartQA_TEST.tsv", sep="\t").head(4)
    table["answer"] = ["twenty red", "12.5", "['house', 'home']", "blue"]
    table.drop(columns="split").to_csv(tmp_path / "DocVQA_VAL.tsv", sep="\t", index=False)
    fields = 'judging = "none"\nscale = 100'
    (dataset,) = read_benchmark(own_benchmark(tmp_path, "DocVQA_VAL", fields=fields)).datasets
    python = ensure_environment("vlmevalkit")
    prompts = PromptSet([dataset], tmp_path, tmp_path / "cache", "kit", None)
    out = tmp_path / "out"
    out.mkdir()
    texts = ["twenty rod", "12.5", "home", "green"]
    ids = [str(index) for index in table["index"]]
    answers = {"DocVQA_VAL": dict(zip(ids, texts, strict=True))}
    with prompts.kit.start(python, tmp_path / "log", lambda: ("", "")) as worker:
        prompts.submit(worker)
        prompts.finish(worker)
        job = score_job(prompts.job(), out, answers, ("http://127.0.0.1:9/v1", "none", False))
        worker.run("score", job)
    _, scores = read_scores(prompts.kit, out / "result.json", [dataset])
    assert [o.value for o in scores["DocVQA_VAL"].outcomes] == pytest.approx([0.9, 1, 1, 0])
    assert scores["DocVQA_VAL"].value == pytest.approx(72.5)


def test_a_data_set_of_vlmevalkit_by_its_name(checkpoint: Path, tmp_path: Path) -> None:
    """The kit's scale is found by the mean of its own questions: DocVQA's ends at 100."""
    table = pd.read_csv(BENCHMARKS / "ChartQA_TEST.tsv", sep="\t").head(4)
    for name in ("DocVQA_VAL", "ScienceQA_TEST"):
        table.drop(columns="split", errors="ignore").to_csv(
            tmp_path / f"{name}.tsv", sep="\t", index=False
        )
        table = pd.read_csv(BENCHMARKS / "MMStar.tsv", sep="\t").head(4)
    names = ("vlmevalkit:DocVQA_VAL", "vlmevalkit:ScienceQA_TEST")
    plan = replace(options(tmp_path, Path()), benchmarks=names, max_tokens=16)
    evaluation = evaluate(checkpoint, plan)
    for score, name in zip(evaluation.scores, names, strict=True):
        samples = [s for s in evaluation.samples if s.benchmark == score.benchmark]
        assert (score.benchmark, score.questions) == (name.partition(":")[2], 4)
        assert score.value == pytest.approx(25 * sum(s.score or 0 for s in samples))
        assert score.data_state == "unverified"


def test_what_vlmevalkit_cannot_score_is_refused_before_anything_is_asked(
    checkpoint: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(BENCHMARKS / "MMStar.tsv", sep="\t").head(4)
    free = table.drop(columns=list("ABCD"))
    free.to_csv(tmp_path / "MyTexts.tsv", sep="\t", index=False)
    free.to_csv(tmp_path / "OCRBench.tsv", sep="\t", index=False)
    table.drop(columns="question").to_csv(tmp_path / "Odd.tsv", sep="\t", index=False)
    for column in ("answer", "question"):
        lacking = table.copy()
        lacking.loc[2, column] = None
        lacking.to_csv(tmp_path / f"No-{column}.tsv", sep="\t", index=False)
    for dataset, message in {
        "MyTexts": r"MyTexts\.tsv has no columns 'A' and 'B', .* it scores multiple choice only",
        "OCRBench": r"OCRBench: its type VQA in VLMEvalKit is not supported, .* try lmms-eval",
        "Odd": r"Odd\.tsv is not a table of questions: it lacks question, .*; get it again",
        "No-answer": rf"No-answer\.tsv has no answer at index {table['index'][2]}; fill it in, or",
        "No-question": r"No-question\.tsv has no question at index .*; fill it in, or remove",
        "Absent": r"Absent\.tsv in .* is missing, and cannot .*\(the kit knows no address for it\)",
    }.items():
        with pytest.raises(UserError, match=message):
            evaluate(checkpoint, options(tmp_path, own_benchmark(tmp_path, dataset)))
    assert not list((tmp_path / "work" / "answers").glob("*.jsonl"))


def test_a_task_that_lmmseval_knows_and_one_that_it_does_not(
    checkpoint: Path, tmp_path: Path
) -> None:
    hub = write_hub(BENCHMARKS, tmp_path / "hub")
    lite = tmp_path / "lmms-lab-encoder" / "LMMs-Eval-Lite" / "ai2d"
    (source,) = (hub / "lmms-lab-encoder" / "ai2d").rglob("*.parquet")
    lite.mkdir(parents=True)
    source.rename(lite / "lite-00000-of-00001.parquet")
    fields = (
        'metric = "exact_match,flexible-extract"\njudging = "none"\n'
        'hub = "lmms-lab-encoder/LMMs-Eval-Lite/ai2d"\n'
    )
    mine = own_benchmark(tmp_path, "ai2d_lite", "lmms-eval", fields)
    (score,) = evaluate(checkpoint, options(tmp_path, mine, "lmms-eval", limit=4)).scores
    assert (score.benchmark, score.dataset, score.questions) == ("Mine", "ai2d_lite", 4)
    assert (score.kit, score.missing) == ("lmms-eval", 0)
    assert score.value is not None
    # The same by its name alone: folder and metric are in the kit's own file of the task.
    by_name = replace(
        options(tmp_path, Path(), "lmms-eval", 4), benchmarks=("lmms-eval:ai2d_lite",)
    )
    (named,) = evaluate(checkpoint, by_name).scores
    assert (named.benchmark, named.metric) == ("ai2d_lite", "exact_match,flexible-extract")
    assert (named.value, named.data_sha256) == (score.value, score.data_sha256)
    for name, message in {
        "docvqa": "docvqa is a group of .* name one of them: docvqa_val, docvqa_test",
        "docvqa_test": "no score of docvqa_test from answers .its metric is submission",
        "docvqa_vall": "has no task 'docvqa_vall'; the nearest are docvqa_val",
        "coco_cap_chair": "is better when it is lower",
    }.items():
        with pytest.raises(UserError, match=message):
            evaluate(checkpoint, replace(by_name, benchmarks=(f"lmms-eval:{name}",)))
    unknown = own_benchmark(tmp_path, "no_such_task", "lmms-eval", fields)
    with pytest.raises(UserError, match=r"lmms-eval has no task no_such_task; .* use VLMEvalKit"):
        evaluate(checkpoint, options(tmp_path, unknown, "lmms-eval", limit=4))
