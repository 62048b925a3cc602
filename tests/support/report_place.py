"""A small ledger with a run, its evaluations, its questions and its recorded rows."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from rilbench.ledger import Evaluation, Ledger, Run, Sample, Score, utc_now

HOSTILE = "</script><script>window.hacked=1</script><!--<img src=x onerror=window.hacked=1>"
BENCHMARKS = {"MMStar": "MMStar", "BLINK": "BLINK"}
RECIPE = """# fingerprint: r1
teachers:
  names: [72b, 78b]
  models: {72b: 'nano:72b', 78b: 'nano:78b', old: 'nano:old'}
data: {train: nowhere.parquet}
"""


def png(colour: tuple[int, int, int], size: tuple[int, int] = (24, 24)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def sample(benchmark: str, name: str, **changes: object) -> Sample:
    values: dict[str, object] = {
        "benchmark": benchmark,
        "question_id": name,
        "prompt_hash": "p",
        "response": f"It is A of {name}.",
        "score": 1.0,
        "gold": "A",
        "extracted": "A",
        "tokens": 5,
        "finish_reason": "stop",
        "stem": f"Which is {name}?",
    }
    return Sample(**{**values, **changes})  # type: ignore[arg-type]


def score(benchmark: str, samples: list[Sample], **changes: object) -> Score:
    own = [each.score for each in samples if each.benchmark == benchmark]
    known = [each for each in own if each is not None]
    values: dict[str, object] = {
        "benchmark": benchmark,
        "value": 100 * sum(known) / len(known) if known else None,
        "kit": "ms-vlmeval",
        "kit_version": "1",
        "dataset": benchmark,
        "metric": "Overall",
        "questions": len(own),
        "answered": len(own),
        "missing": len(own) - len(known),
        "data_sha256": "0",
    }
    return Score(**{**values, **changes})  # type: ignore[arg-type]


def evaluation(samples: list[Sample], **changes: object) -> Evaluation:
    values: dict[str, object] = {
        "path": "/models/student",
        "fingerprint": "start1",
        "student": "nano",
        "method": "base",
        "teacher": "none",
        "suite": "nano",
        "created": utc_now(),
        "scores": tuple(score(name, samples) for name in BENCHMARKS),
        "samples": tuple(samples),
    }
    return Evaluation(**{**values, **changes})  # type: ignore[arg-type]


def outcomes(right: Mapping[str, float | None], **changes: object) -> list[Sample]:
    return [
        sample(benchmark, name, score=right.get(name, 1.0), **changes)
        for benchmark in BENCHMARKS
        for name in ("1", "2", "3")
    ]


def write_prompts(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = []
    for benchmark, dataset in BENCHMARKS.items():
        for name in ("1", "2", "3"):
            (folder / f"{dataset}-{name}.png").write_bytes(png((int(name) * 50, 0, 0)))
            parts = [
                {"type": "image", "path": f"{dataset}-{name}.png"},
                {"type": "text", "text": f"Which is {name} of {benchmark}?\nA. this\nB. that"},
            ]
            row = {"dataset": dataset, "question_id": name, "group": name, "parts": parts}
            lines.append(json.dumps({**row, "truth": "A", "category": None}))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_rows(folder: Path) -> None:
    rows = folder / "rollouts"
    rows.mkdir(parents=True)
    for step in (1, 2, 10):
        row = {"question_id": "q1", "answer_reward": 1.0}
        row |= {"similarity_reward": 0.0, "discriminator_prob": 0.75}
        row |= {"advantage": -0.5, "tokens": 3, "source": "student", "response": f"at {step}"}
        lines = [row | {"source": "72b", "response": HOSTILE, "answer_reward": None}, row]
        text = "\n".join(json.dumps(each) for each in lines)
        (rows / f"step_{step}.jsonl").write_text(text + '\n{"question_id": "q', encoding="utf-8")


def run(folder: Path, **changes: object) -> Run:
    values: dict[str, object] = {
        "name": folder.name,
        "path": str(folder),
        "recipe_fingerprint": "r1",
        "recipe_yaml": RECIPE,
        "student": "nano",
        "method": "ril",
        "teacher": "both",
        "status": "finished",
        "created": utc_now(),
        "seed": 3,
        "metrics": {"steps": 10, "step_seconds": 1.5, "trained_tokens": 1000, "judge_calls": 7},
        "curves": {
            "answer_reward_student": [0.1, 0.2, None, 0.4],
            "answer_reward_teacher": [0.8, 0.9, 0.8, 0.9],
            "discriminator_accuracy": [1.0, 0.9, 0.8, 0.5],
            "learning_rate": [1e-4] * 4,
            "warnings": [[], [], ["collapse"], []],
        },
    }
    return Run(**{**values, **changes})  # type: ignore[arg-type]


@dataclasses.dataclass
class Place:
    folder: Path
    db: Path
    run: Path

    def add(self, *evaluations: Evaluation) -> list[int]:
        with Ledger(self.db) as ledger:
            return [ledger.record(each) for each in evaluations]


def make_place(tmp_path: Path) -> Place:
    """Evaluations: 1 before, 2 after, 3 and 4 teachers, 5 of another model."""
    prompts = write_prompts(tmp_path / "prompts")
    found = Place(tmp_path, tmp_path / "l.db", tmp_path / "runs" / "first")
    write_rows(found.run)
    asked = {"settings": {"questions": str(prompts)}}
    trained = {"run": "first", "method": "ril", "teacher": "both", "start_fingerprint": "start1"}
    after = outcomes({"2": 0.0})
    after[0] = dataclasses.replace(after[0], response=HOSTILE)
    with Ledger(found.db) as ledger:
        ledger.record_run(run(found.run))
        ledger.record(evaluation(outcomes({"1": 0.0, "3": None}), **asked))
        ledger.record(
            evaluation(
                after,
                path=f"{found.run}/checkpoint",
                fingerprint="after1",
                recipe_fingerprint="r1",
                **asked,
                **trained,
            )
        )
        for name in ("72b", "78b"):
            model = {"path": f"/elsewhere/{name}", "student": f"nano-{name}", "fingerprint": name}
            ledger.record(evaluation(outcomes({}), **model, **asked))
        ledger.record(evaluation(outcomes({}), student="other", fingerprint="other1", path="/o"))
    return found
