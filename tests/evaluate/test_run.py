"""Evaluation from checkpoint to ledger: real kit, real server, real judge."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_judge import fake_judge, says

from rilbench.benchmark_names import PAPER_14
from rilbench.checkpoint import Labels, inspect_checkpoint, write_labels
from rilbench.errors import UserError
from rilbench.evaluate.events import Progress
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.kit_session import Kit
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.model_run import ModelRun
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.prompts import PromptSet
from rilbench.evaluate.responses import open_answers
from rilbench.evaluate.run import evaluate, evaluate_many
from rilbench.evaluate.suite import find_suite
from rilbench.judge.server import RULE_JUDGE
from rilbench.ledger import Ledger
from rilbench.serving import Completion

QUESTIONS = 63  # in the fixture's files, of the splits that count.


def right_answers(data: Path) -> dict[tuple[str, str], str]:
    """The right answer to every question but MMBench's English ones, by dataset and id."""
    answers = {}
    for dataset in find_suite("nano").datasets:
        table = pd.read_csv(data / f"{dataset.name}.tsv", sep="\t", dtype=str)
        if dataset.split is not None:
            table = table[table["split"] == dataset.split]
        for _, row in table.iterrows():
            truth = row["answer"]
            if dataset.name == "MathVista_MINI" and row["question_type"] == "multi_choice":
                truth = row["answer_option"]
            answers[dataset.name, row["index"]] = truth.replace("<AND>", " and ")
    return {key: text for key, text in answers.items() if key[0] != "MMBench_DEV_EN"}


def answer_in_advance(model: Path, plan: EvalOptions) -> int:
    """Leave what a killed evaluation leaves: some answers, here right ones, and a torn line."""
    suite = find_suite(plan.suite)
    environment = ensure_environment("vlmevalkit").parent.parent.name
    prompts = PromptSet(suite.datasets, plan.data, plan.work / "prompts", environment, None)
    run = ModelRun(plan, suite, prompts, RULE_JUDGE, None, lambda _: None)
    files = run.answer_files(inspect_checkpoint(model).content)
    known = right_answers(plan.data)
    with open_answers(files) as answers:
        answers.append_all(
            {key: Completion(text, "stop", 9, 2, 0.5) for key, text in known.items()}
        )
    with files["MMStar"].open("a") as torn:
        torn.write('{"dataset": "MMStar", "question_id": "0", "te')
    return len(known)


def test_resumes_scores_and_records(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "trained"
    shutil.copytree(checkpoint, model)
    write_labels(model, Labels("nano", "ril", "72b", "run-1", "0123456789abcdef"))
    plan = EvalOptions("nano", data, tmp_path / "work", db=tmp_path / "scores.db")
    known = answer_in_advance(model, plan)
    assert known == QUESTIONS - 6
    seen: list[Progress] = []
    found = evaluate(model, plan, seen.append)

    assert [p.done for p in seen if p.stage == "answers"] == list(range(known, known + 7))
    assert [p.total for p in seen if p.stage == "answers"] == [known + 6] * 7
    log = (plan.work / "server.log").read_text()
    assert log.count("POST /v1/chat/completions") == 6 + 1  # MMBench's rotations; the first probe.
    scores = {score.benchmark: score for score in found.scores}
    assert {name: score.value for name, score in scores.items()} == pytest.approx(
        {**dict.fromkeys(PAPER_14, 100), "MMB": scores["MMB"].value}
    )
    judged = {name for name, score in scores.items() if score.judge == RULE_JUDGE}
    assert judged == {"MathVista", "MM-Vet", "MM-Vet-v2"}
    assert {score.judge for name, score in scores.items() if name not in judged} == {None}
    assert scores["MMMU-Pro"].questions == 8
    # Random weights: the server sends tokens of which none is text, and that is no answer.
    assert scores["MMB"].questions == 3
    assert scores["MMB"].missing == sum(found.reading("MMB").no_answer.values())
    samples = {(s.benchmark, s.question_id): s for s in found.samples}
    assert len(samples) == len(found.samples) == QUESTIONS - 6  # MMBench's rotations count once.
    assert samples["MMMU-Pro", "MMMU_Pro_V/1"].gold == "J"
    assert samples["ChartQA", "1"].response == "red"
    assert samples["ChartQA", "1"].tokens == 2
    rotated = samples["MMB", "2"]
    assert rotated.gold == "C,B"
    assert rotated.response.count("\n---\n") == 1
    categories = [
        samples[key].category for key in (("ChartQA", "1"), ("MMB", "2"), ("MMStar", "0"))
    ]
    assert categories == ["test_augmented", "coarse_perception", "math"]

    with Ledger(tmp_path / "scores.db") as ledger:
        (row,) = ledger.evaluations("nano")
        assert row.id == found.id
        assert (row.student, row.method, row.teacher, row.run) == ("nano", "ril", "72b", "run-1")
        assert row.fingerprint == inspect_checkpoint(model).fingerprint
        assert row.settings["generation"]["max_tokens"] == 64
        assert {score.kit_version for score in row.scores} == {"0.0.20"}
        assert len(ledger.samples(found.id)) == len(samples)

    # Again: nothing is asked, no kit and no server start, and the scores are the same.
    (plan.work / "server.log").unlink()
    (plan.work / "kit.log").unlink()
    start = time.monotonic()
    again = evaluate_many([model, model], plan)
    assert time.monotonic() - start < 15
    assert [each.scores for each in again] == [found.scores] * 2
    assert not (plan.work / "server.log").exists()
    assert not (plan.work / "kit.log").exists()


def test_one_kit_serves_one_call_after_another(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    shutil.copytree(checkpoint, second)
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps(config))
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    table = pd.read_csv(broken / "SEEDBench_IMG.tsv", sep="\t")
    table.drop(columns="answer").to_csv(broken / "SEEDBench_IMG.tsv", sep="\t", index=False)
    plan = EvalOptions("nano", data, tmp_path / "work", engine="batch", limit=1)
    with Kit(tmp_path / "kit.log") as kit:
        with pytest.raises(UserError, match=r"SEEDBench_IMG\.tsv has no column 'answer'"):
            evaluate_many([checkpoint], replace(plan, data=broken), kit=kit)
        # The one that failed in the middle of its work is gone.
        assert kit._process is None
        (first,) = evaluate_many([checkpoint], plan, kit=kit)
        process = kit._process
        assert process is not None
        (other,) = evaluate_many([second], plan, kit=kit)
        assert kit._process is process
    assert kit._process is None
    assert [s.score for s in other.samples] == [s.score for s in first.samples]
    server = first.settings["generation"]["server"]
    assert server == f"transformers generate {version('transformers')}, batches of 64, on cpu"
    assert not (plan.work / "server.log").exists()


def test_missing_verdicts_are_asked_for_again_and_the_key_is_nowhere(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    key = "sk-not-for-anybody"
    monkeypatch.setenv("RILBENCH_JUDGE_KEY", key)
    down = True

    def judge(body: dict[str, Any]) -> tuple[int, bytes]:
        graded = "correctness score" in json.dumps(body)
        # A judge that repeats the key, as some do in their refusals.
        return (400, f"no {key}".encode()) if graded and down else says("0.5" if graded else "B")

    with fake_judge(judge) as real:
        plan = EvalOptions(
            *("nano", data, tmp_path / "work", tmp_path / "scores.db"),
            judge=Judge(real.url, "m"),
            benchmarks=("MM-Vet", "mmstar"),
            engine="batch",
        )
        first = {score.benchmark: score for score in evaluate(checkpoint, plan).scores}
        assert (first["MM-Vet"].value, first["MM-Vet"].missing) == (None, 4)
        assert first["MMStar"].missing == 0
        assert {score.judge for score in first.values()} == {"judge-2026-01"}
        asked, down = len(real.seen), False
        again = evaluate(checkpoint, plan)
        second = {score.benchmark: score for score in again.scores}
        assert (second["MM-Vet"].value, second["MM-Vet"].missing) == (50, 0)
        assert second["MMStar"] == first["MMStar"]
        # The probe and MM-Vet's four; what was read for MMStar is not asked for again.
        assert len(real.seen) == asked + 5
        assert again.settings["judge"]["verdicts"]["failed"] == 0
        seconds = evaluate(checkpoint, plan)
        assert len(real.seen) == asked + 6, "nothing but the probe"
        assert seconds.scores == again.scores
        assert real.keys == {f"Bearer {key}"}
    said = capfd.readouterr()
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) > 5
    for path in found:
        assert key.encode() not in path.read_bytes(), path
    assert key not in said.out + said.err


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_was(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    plan = EvalOptions("nano", data, tmp_path / "work", db=tmp_path / "scores.db", concurrency=1)
    code = (
        "from pathlib import Path; from rilbench.evaluate.options import EvalOptions\n"
        "from rilbench.evaluate.run import evaluate\n"
        f"work = Path({str(plan.work)!r})\n"
        f"evaluate(Path({str(checkpoint)!r}), EvalOptions('nano', Path({str(data)!r}), work))"
    )
    first = subprocess.Popen([sys.executable, "-c", code])
    while not list(plan.work.glob("answers/*.jsonl")):
        assert first.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    first.kill()
    first.wait()
    known = {file: file.read_bytes() for file in plan.work.glob("answers/*.jsonl")}
    complete = sum(content.count(b"\n") for content in known.values())
    assert 0 < complete < QUESTIONS

    evaluate(checkpoint, plan)
    for file, content in known.items():
        assert file.read_bytes().startswith(content[: content.rfind(b"\n") + 1])
    lines = [line for file in plan.work.glob("answers/*.jsonl") for line in file.open()]
    keys = [(row["dataset"], row["question_id"]) for row in map(json.loads, lines)]
    assert len(keys) == len(set(keys)) == QUESTIONS
    log = (plan.work / "server.log").read_text()
    assert log.count("POST /v1/chat/completions") == QUESTIONS - complete + 1


def test_bad_input_is_found_before_any_work(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    plan = EvalOptions("nano", data, work, db=tmp_path / "scores.db")
    with pytest.raises(UserError, match="unknown suite 'pap'; choose from paper, nano"):
        evaluate(checkpoint, EvalOptions("pap", data, work))
    with pytest.raises(UserError, match="does not exist"):
        evaluate(tmp_path / "absent", plan)
    with pytest.raises(UserError, match="one model"):
        evaluate_many(
            [checkpoint] * 2, EvalOptions("nano", data, work, endpoint="http://127.0.0.1:9/v1")
        )
    with pytest.raises(UserError, match=r"the judge m at http://127\.0\.0\.1:9/v1 does not"):
        evaluate(
            checkpoint, EvalOptions("nano", data, work, judge=Judge("http://127.0.0.1:9/v1", "m"))
        )
    with pytest.raises(UserError, match="'vllm'; choose from server, batch"):
        EvalOptions("nano", data, work, engine="vllm")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="needs no server"):
        EvalOptions("nano", data, work, engine="batch", endpoint="http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="batch size must be"):
        EvalOptions("nano", data, work, batch=0)
    with pytest.raises(UserError, match="another toolkit or judge"):
        evaluate_many(
            [checkpoint], plan, kit=Kit(work / "kit.log", Judge("http://127.0.0.1:9/v1", "m"))
        )
    database = tmp_path / "locked.db"
    database.touch(0o444)
    with pytest.raises(UserError, match="read-only"):
        evaluate(checkpoint, EvalOptions("nano", data, work, db=database))
    assert not work.exists()
