"""From the kit's scores to the ledger's rows, on two questions put together by hand."""

import json
import subprocess
from pathlib import Path
from statistics import fmean

import pytest
from one_file import one_file

from rilbench.checkpoint import Checkpoint, Labels
from rilbench.evaluate.kits.scores import KitScore, Outcome
from rilbench.evaluate.prompts import PromptSet
from rilbench.evaluate.provenance import Provenance, code_version, to_evaluation
from rilbench.evaluate.responses import open_answers
from rilbench.evaluate.suite import Suite, suite
from rilbench.ledger import Evaluation
from rilbench.serving import Completion

MMBENCH, MMVET, PRO = (b for b in suite("nano") if b.column in ("MMB", "MM-Vet", "MMMU-Pro"))
TRAINED = Labels("s", "ril", "72b", "r", "0", "recipe", "family", 7)
MODEL = Checkpoint(Path("/models/s"), "f" * 16, "qwen2_5_vl", TRAINED)


def record(data: Path, folder: Path, limit: int | None) -> Evaluation:
    small = Suite("nano", (MMBENCH, MMVET), 64)
    prompts = PromptSet(small.datasets, data, folder, "kit", limit)
    prompts.folder.mkdir(parents=True)
    rows = [("MMBench_DEV_EN", "1", "1"), ("MMBench_DEV_EN", "1000001", "1")]
    rows += [("MMVet", "v1_0", "v1_0"), ("MMVet", "v1_1", "v1_1")]
    with (prompts.folder / "questions.jsonl").open("w") as file:
        for dataset, question, group in rows:
            row = {"dataset": dataset, "question_id": question, "group": group, "category": group}
            parts = [{"type": "text", "text": question}]
            file.write(json.dumps({**row, "truth": question[-1], "parts": parts}) + "\n")
    scores = {
        "MMBench_DEV_EN": KitScore(100.0, (Outcome("1", 1.0, "A,B"),), 0, 1.0),
        "MMVet": KitScore(50.0, (Outcome("v1_0", None, None), Outcome("v1_1", 0.5, None)), 1, 1.0),
    }
    with open_answers(one_file(folder / "answers.jsonl")) as answers:
        for number, (dataset, question, _) in enumerate(rows):
            text = "" if number == 3 else f"answer {number}"
            finish = "length" if number == 1 else "stop"
            answers.append_all({(dataset, question): Completion(text, finish, 5, number, 0.5)})
        judge = {"name": "judge-7b"}
        provenance = Provenance(small, prompts, "ms-vlmeval 0.0.20", judge, {"server": "x"}, {})
        return to_evaluation(MODEL, provenance, answers, scores)


def test_scores_carry_their_provenance(data: Path, tmp_path: Path) -> None:
    found = record(data, tmp_path, None)
    assert (found.student, found.method, found.teacher, found.run) == ("s", "ril", "72b", "r")
    assert (found.recipe_fingerprint, found.family, found.seed) == ("recipe", "family", 7)
    assert found.settings["generation"] == {"server": "x"}
    assert (Path(found.settings["questions"]) / "questions.jsonl").is_file()
    mmbench, mmvet = found.scores
    assert (mmbench.kit, mmbench.kit_version) == ("ms-vlmeval", "0.0.20")
    assert (mmbench.questions, mmbench.answered, mmbench.missing) == (1, 1, 0)
    assert (mmvet.questions, mmvet.answered, mmvet.missing) == (2, 1, 1)
    assert (mmbench.judge, mmvet.judge) == (None, "judge-7b")
    circular, first, second = found.samples
    assert circular.response == "answer 0\n---\nanswer 1"
    assert (circular.gold, circular.tokens, circular.seconds) == ("1,1", 1, 1.0)
    assert circular.finish_reason == "length"
    assert [sample.category for sample in found.samples] == ["1", "v1_0", "v1_1"]
    assert (first.score, second.score) == (None, 0.5)
    assert len({sample.prompt_hash for sample in found.samples}) == 3


def test_a_part_of_a_benchmark_is_never_taken_for_the_whole(data: Path, tmp_path: Path) -> None:
    provenances = {
        tuple(score.provenance for score in record(data, tmp_path / str(limit), limit).scores)
        for limit in (None, 1, 2)
    }
    assert len(provenances) == 3


def test_several_datasets_count_as_their_plain_mean(data: Path, tmp_path: Path) -> None:
    small = Suite("nano", (PRO,), 64)
    prompts = PromptSet(small.datasets, data, tmp_path, "kit", None)
    prompts.folder.mkdir(parents=True)
    sizes = {"MMMU_Pro_10c": 3, "MMMU_Pro_V": 1}
    keys = [(dataset, str(i)) for dataset, size in sizes.items() for i in range(size)]
    with (prompts.folder / "questions.jsonl").open("w") as file:
        for dataset, index in keys:
            row = {"dataset": dataset, "question_id": index, "group": index, "truth": "A"}
            file.write(json.dumps({**row, "category": None, "parts": []}) + "\n")
    outcomes = tuple(Outcome(str(i), 0.0, "B") for i in range(3))
    one = KitScore(100.0, (Outcome("0", 1.0, "A"),), 0, 1.0)
    three = KitScore(0.0, outcomes, 0, 1.0)
    with open_answers(one_file(tmp_path / "answers.jsonl")) as answers:
        for key in keys:
            answers.append_all({key: Completion("A", "stop", 5, 1, 0.5)})
        provenance = Provenance(small, prompts, "ms-vlmeval 0.0.20", {"name": "judge-7b"}, {}, {})
        scores = {"MMMU_Pro_10c": three, "MMMU_Pro_V": one}
        found = to_evaluation(MODEL, provenance, answers, scores)
        without = to_evaluation(
            MODEL, provenance, answers, {**scores, "MMMU_Pro_V": KitScore(None, (), 1, 1.0)}
        )
    (score,) = found.scores
    assert (score.value, score.questions, score.judge) == (50.0, 4, None)
    assert (score.dataset, score.metric) == ("MMMU_Pro_10c+MMMU_Pro_V", "mean of Overall")
    assert score.data_sha256 not in prompts.data_hashes.values()
    assert [sample.question_id for sample in found.samples] == ["/".join(key) for key in keys]
    assert without.scores[0].value is None
    # Means of the strata's means are the score: what intervals and comparisons are made from.
    assert [sample.stratum for sample in found.samples] == [dataset for dataset, _ in keys]
    strata = {dataset: [] for dataset in sizes}
    for sample in found.samples:
        strata[sample.stratum].append(sample.score)
    assert 100 * fmean(map(fmean, strata.values())) == score.value


def test_code_version_is_the_checkouts() -> None:
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        pytest.skip("not a git checkout")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
    )
    assert code_version()[0] == head.stdout.strip()
