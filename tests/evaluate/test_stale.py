"""One work folder, something changed: nothing old is taken for the new."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_judge import FakeJudge, fake_judge, says

from rilbench.errors import UserError
from rilbench.evaluate.image_resize import Pixels
from rilbench.evaluate.judge_session import EXACT_RULES, Judge, read_judge
from rilbench.evaluate.kit_session import Kit
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate
from rilbench.ledger import Evaluation, Ledger, Score
from rilbench.logs import log_file

ASKED = 8  # Four questions of each of two benchmarks.


@pytest.fixture(scope="module")
def model() -> Iterator[FakeJudge]:
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        return says("B. green" if body["model"] == "another" else "A. red")

    with fake_judge(answer, ["model"]) as server:
        yield server


@pytest.fixture(scope="module")
def judge() -> Iterator[FakeJudge]:
    with fake_judge(lambda _: says("0.5")) as server:
        yield server


@pytest.fixture(scope="module")
def first(
    checkpoint: Path,
    data: Path,
    model: FakeJudge,
    judge: FakeJudge,
    tmp_path_factory: pytest.TempPathFactory,
) -> EvalOptions:
    """A plan that has been followed once."""
    folder = tmp_path_factory.mktemp("stale")
    plan = EvalOptions(
        suite="nano",
        data=data,
        work=folder / "work",
        db=folder / "ledger.db",
        judge=Judge(judge.url, "first"),
        endpoint=model.url,
        benchmarks=("MMStar", "MM-Vet"),
    )
    evaluate(checkpoint, plan)
    assert len(model.questions) == ASKED
    return plan


def changed(
    plan: EvalOptions, what: str, folder: Path, checkpoint: Path
) -> tuple[EvalOptions, Path]:
    """The plan and the model with one thing changed."""
    if what == "checkpoint":
        shutil.copytree(checkpoint, folder / "model")
        config = json.loads((folder / "model" / "config.json").read_text())
        (folder / "model" / "config.json").write_text(json.dumps(config | {"note": "other"}))
        return plan, folder / "model"
    if what == "processor":
        shutil.copytree(checkpoint, folder / "model")
        file = folder / "model" / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"repetition_penalty": 1.5}))
        return plan, folder / "model"
    if what == "data":
        shutil.copytree(plan.data, folder / "data")
        file = folder / "data" / "MMStar.tsv"
        file.write_text(file.read_text(encoding="utf-8").replace("Which colour", "What colour"))
        return replace(plan, data=folder / "data"), checkpoint
    if what == "kit version":
        home = ensure_environment("vlmevalkit").parent.parent
        (folder / "another-kit").symlink_to(home)
        return replace(plan, python=folder / "another-kit" / "bin" / "python"), checkpoint
    changes: dict[str, dict[str, Any]] = {
        "prompt": {"prompt": "model"},
        "length": {"max_tokens": 7},
        "pixels": {"pixels": Pixels(most=100)},
        "served model": {"endpoint": f"another@{plan.endpoint}"},
    }
    return replace(plan, **changes[what]), checkpoint


@pytest.mark.parametrize(
    "what",
    [
        *("checkpoint", "processor", "served model", "data", "length", "pixels"),
        *[pytest.param(w, marks=pytest.mark.slow) for w in ("kit version", "prompt")],
    ],
)
def test_a_change_asks_everything_again(
    first: EvalOptions, model: FakeJudge, checkpoint: Path, tmp_path: Path, what: str
) -> None:
    plan, folder = changed(first, what, tmp_path, checkpoint)
    asked, before = len(model.questions), rows(first)
    found = evaluate(folder, plan)
    # The data are those of one of the two benchmarks.
    assert len(model.questions) == asked + (ASKED // 2 if what == "data" else ASKED)
    assert rows(first) == before + 1
    # One of the four options is right each time, but the kit read other answers.
    read = {sample.extracted for sample in found.samples if sample.benchmark == "MMStar"}
    assert read == {"B" if what == "served model" else "A"}


def test_other_benchmarks_and_limits_ask_only_what_was_never_asked(
    first: EvalOptions, model: FakeJudge, checkpoint: Path, tmp_path: Path
) -> None:
    """Each has rows of its own, and the scores are those of an evaluation that asks all."""
    plan = replace(first, work=tmp_path / "work")

    with Kit(tmp_path / "kit.log", plan.judge) as kit:

        def asks(number: int, **changes: Any) -> list[tuple[str, int, int | None]]:
            before, done = len(model.questions), rows(plan)
            found = evaluate(checkpoint, replace(plan, **changes), kit=kit)
            assert len(model.questions) == before + number
            assert rows(plan) == done + 1
            return [(s.benchmark, s.questions, s.sampled) for s in found.scores]

        both, vet = ("MMStar", "MM-Vet"), ("MM-Vet",)
        assert asks(2, benchmarks=vet, limit=2) == [("MM-Vet", 2, 2)]
        assert asks(1, benchmarks=vet, limit=3) == [("MM-Vet", 3, 3)]
        assert asks(0, benchmarks=vet, limit=1) == [("MM-Vet", 1, 1)]
        assert asks(5, benchmarks=both) == [("MM-Vet", 4, None), ("MMStar", 4, None)]
        again = evaluate(checkpoint, plan, kit=kit)
        assert again.scores == evaluate(checkpoint, first).scores
        assert asks(7, benchmarks=("BLINK", "MMStar", "SEED2+")) == [
            *[("MMStar", 4, None), ("BLINK", 3, None), ("SEED2+", 4, None)]
        ]
        assert asks(1, benchmarks=vet, limit=1, fresh=True) == [("MM-Vet", 1, 1)]
        assert asks(0) == [("MM-Vet", 4, None), ("MMStar", 4, None)], "the others were kept"


def test_another_judge_judges_again_and_the_model_is_not_asked(
    first: EvalOptions, model: FakeJudge, judge: FakeJudge, checkpoint: Path
) -> None:
    asked, before = len(model.questions), rows(first)
    with fake_judge(lambda _: says("1.0")) as other:
        found = evaluate(checkpoint, replace(first, judge=Judge(other.url, "second")))
        assert len(other.seen) >= 4
    assert len(model.questions) == asked
    assert {s.benchmark: s.value for s in found.scores}["MM-Vet"] == 100
    assert rows(first) == before + 1


def test_other_fields_of_the_judge_are_another_judge(
    first: EvalOptions, model: FakeJudge, checkpoint: Path
) -> None:
    """They score again, and the two scores are not comparable."""

    def verdict(body: dict[str, Any]) -> tuple[int, bytes]:
        return says("1.0" if body.get("temperature") == 1 else "0.0")

    asked = len(model.questions)
    fields = {"temperature": 1, "max_tokens": 16}
    with fake_judge(verdict) as server:
        plain = replace(first, judge=Judge(server.url, "settings"))
        warm = replace(first, judge=Judge(server.url, "settings", fields))
        found = [vet(evaluate(checkpoint, plan)) for plan in (plain, warm, plain, warm)]
    assert [score.value for score in found] == [0, 100, 0, 100]
    assert len(model.questions) == asked
    assert found[0].judge == "judge-2026-01", "as in the ledgers of before"
    assert re.fullmatch("judge-2026-01 fields-[0-9a-f]{8}", found[1].judge or "")
    assert found[0].comparability == found[2].comparability != found[1].comparability
    assert found[1].comparability == found[3].comparability


def test_nothing_changed_asks_nobody(
    first: EvalOptions, model: FakeJudge, judge: FakeJudge, checkpoint: Path
) -> None:
    asked, judged = len(model.questions), len(judge.seen)
    found = evaluate(checkpoint, first)
    assert {s.benchmark: s.value for s in found.scores}["MM-Vet"] == 50
    assert len(model.questions) == asked
    assert len(judge.seen) == judged + 1, "the probe alone"
    verdicts = found.settings["judge"]["verdicts"]
    assert verdicts["asked"] == verdicts["judge"] + verdicts["cached"] > 0, "as it was then"


def test_fresh_verdicts_of_a_judge_by_code_are_scored_again(
    first: EvalOptions, checkpoint: Path, tmp_path: Path
) -> None:
    """Its code may read other files, which its name does not tell."""
    (tmp_path / "judge.py").write_text(
        "from pathlib import Path\n"
        "def judge(question, reference, response):\n"
        "    return float(Path(__file__).with_name('verdict').read_text())\n"
    )
    (tmp_path / "verdict").write_text("1")
    plan = replace(first, judge=read_judge(f"{tmp_path / 'judge.py'}:judge"))
    found = []
    for verdict, fresh in (("1", False), ("0", False), ("0", True), ("0", False)):
        (tmp_path / "verdict").write_text(verdict)
        found.append(vet(evaluate(checkpoint, replace(plan, fresh_verdicts=fresh))).value)
    assert found == [100, 100, 0, 0]


def test_afresh_everything_is_asked_again(
    first: EvalOptions, model: FakeJudge, checkpoint: Path
) -> None:
    asked = len(model.questions)
    found = evaluate(checkpoint, replace(first, fresh=True))
    assert len(model.questions) == asked + ASKED
    assert {s.benchmark: s.value for s in found.scores}["MM-Vet"] == 50
    evaluate(checkpoint, first)
    assert len(model.questions) == asked + ASKED


def test_afresh_from_a_server_that_is_down_nothing_is_lost(
    first: EvalOptions, checkpoint: Path, tmp_path: Path
) -> None:
    with fake_judge(lambda _: says("A. red"), ["model"]) as server:
        plan = replace(first, work=tmp_path / "work", endpoint=server.url, judge=EXACT_RULES)
        plan = replace(plan, benchmarks=("MMStar",))
        found = evaluate(checkpoint, plan)
    kept = {file: file.read_bytes() for file in plan.work.glob("answers/*.jsonl")}
    with pytest.raises(UserError, match=r"no server answers .* leave out --fresh to use"):
        evaluate(checkpoint, replace(plan, endpoint=f"model@{server.url}", fresh=True))
    assert {file: file.read_bytes() for file in kept} == kept
    again = evaluate(checkpoint, replace(plan, endpoint=f"model@{server.url}"))
    assert again.scores == found.scores


def test_a_damaged_work_folder_is_made_again(
    first: EvalOptions, model: FakeJudge, checkpoint: Path, tmp_path: Path
) -> None:
    plan = replace(first, work=tmp_path / "work", judge=EXACT_RULES)

    def only(pattern: str) -> list[Path]:
        found = [f for f in plan.work.glob(pattern) if "building" not in f.parts]
        assert found, pattern
        return found

    def cut(pattern: str, size: int) -> None:
        (file,) = only(pattern)
        with file.open("r+b") as opened:
            opened.truncate(size)

    def cut_at_a_line(pattern: str) -> None:
        (file,) = only(pattern)
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))

    def without_pictures() -> None:
        for file in only("prompts/*/LMUData/images/MMStar/*"):
            file.unlink()

    with Kit(tmp_path / "kit.log", plan.judge) as kit:
        whole, asked = evaluate(checkpoint, plan, kit=kit), len(model.questions)
        for damage in (
            lambda: cut("scores/*/result.json", 100),
            lambda: cut("scores/*/judge.json", 3),
            lambda: cut("prompts/*/questions.jsonl", 500),
            lambda: cut("prompts/*/questions.jsonl", 0),
            lambda: cut_at_a_line("prompts/*/questions.jsonl"),
            without_pictures,
        ):
            damage()
            assert evaluate(checkpoint, plan, kit=kit).scores == whole.scores
        assert len(model.questions) == asked, "all responses were kept"
        without_pictures()
        evaluate(checkpoint, replace(plan, fresh=True), kit=kit)
        assert len(model.questions) == asked + ASKED


def test_a_key_in_an_address_is_kept_nowhere(
    first: EvalOptions,
    checkpoint: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = "not-for-anybody"

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        refused = "box 2" in json.dumps(body)
        return (400, b"it is too long") if refused else says("A. red")

    with fake_judge(answer, ["m"]) as server, fake_judge(lambda _: says("0.5")) as grader:
        plan = replace(
            first,
            work=tmp_path / "work",
            db=tmp_path / "ledger.db",
            endpoint=f"m@{server.url}?api-version=1&api-key={key}",
            judge=Judge(f"{grader.url}?code={key}", "j"),
        )
        with log_file(tmp_path / "rilbench.log"):
            found = evaluate(checkpoint, plan)
        address = server.url
    assert found.settings["generation"]["server"] == f"m at {address}?api-version=1&api-key=…"
    assert any("refused" in (sample.finish_reason or "") for sample in found.samples)
    with log_file(tmp_path / "rilbench.log"), pytest.raises(UserError) as told:
        evaluate(checkpoint, replace(plan, work=tmp_path / "other"))
    assert key not in str(told.value)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or key not in path.read_text(errors="replace"), path
    said = capfd.readouterr()
    assert key not in said.out + said.err + caplog.text


def vet(evaluation: Evaluation) -> Score:
    (score,) = [score for score in evaluation.scores if score.benchmark == "MM-Vet"]
    return score


def rows(plan: EvalOptions) -> int:
    assert plan.db is not None
    with Ledger(plan.db) as ledger:
        return len(ledger.evaluations())
