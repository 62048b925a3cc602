"""A rehearsal as a user starts it, of a recipe for GPUs on a machine without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rilbench.data.question_files import read_questions, write_questions
from rilbench.devices import has_gpu
from rilbench.paths import locate

SCRIPT = Path(sys.executable).parent / "rilbench"


def rehearse(place, name, *arguments):
    """Rehearse a run; return what is printed."""
    done = subprocess.run(
        [str(SCRIPT), "train", "--rehearse", "--run", name, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    return done.stdout


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
@pytest.mark.timeout(1200)
def test_a_recipe_for_gpus_is_rehearsed_without_one(tmp_path):
    questions = read_questions(locate("nano:prompts.parquet"))
    write_questions(tmp_path / "questions.parquet", questions[:24])
    settings = {
        "data.train": "questions.parquet",
        "data.dev": "questions.parquet",
        "teachers.models": "{72b: nano:72b, 78b: nano:78b}",
        "judge.model": "rule",
        "sft.steps": 0,
    }
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    said = rehearse(tmp_path, "big", "--recipe", "both", "--student", "qwen2.5-vl-3b", *given)
    for words in (
        "a random student of qwen2_5_vl's layout",
        "4 prompts a step instead of 36, responses of 64 tokens instead of 2048",
        "every stage ran: 8 questions",
        "the run itself has not begun",
    ):
        assert words in " ".join(said.split())
    folder = tmp_path / "runs" / "big-rehearsal"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["big-rehearsal"]
    report = json.loads((folder / "rehearsal.json").read_text())
    assert set(report["seconds"]) >= {"collect", "ril", "export"}
    assert report["memory"]["all"] >= max(
        size for kind, size in report["memory"].items() if kind != "all"
    )
    assert report["step_bytes"] > 0
    # The longest prompts, and every response to its limit.
    rows = [
        json.loads(line)
        for step in (1, 2)
        for line in (folder / "run" / "rollouts" / f"step_{step}.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 2 * 4 * 8
    assert {row["tokens"] for row in rows} == {64}
    assert {row["source"] for row in rows} == {"student", "72b", "78b"}


@pytest.mark.timeout(1200)
def test_sft_alone_is_rehearsed(tmp_path):
    """Its loop takes no teacher responses, and it writes no metrics of one."""
    sft = ("--method", "sft", "--set", "sft.steps=4")
    said = rehearse(tmp_path, "small", "--recipe", "72b", "--student", "nano", *sft)
    assert "the run itself has not begun" in said
    report = json.loads((tmp_path / "runs" / "small-rehearsal" / "rehearsal.json").read_text())
    assert set(report["seconds"]) >= {"collect", "sft", "export"}


def test_the_folder_of_a_run_is_not_a_rehearsal_s(tmp_path):
    from command import refused, run

    (tmp_path / "runs" / "nano-both-ril-rehearsal").mkdir(parents=True)
    result = run("train", "--recipe", "both", "--student", "nano", "--rehearse", cwd=tmp_path)
    refused(result, "is not the folder of a rehearsal", "another --run")
