"""Bad inputs of a training run, each with what it gets: ``make bench-inputs``.

Writes results/bench/bad-inputs.md. Every row is a command that is run here, on data made here; none
starts verl. What needs its loop is in tests/train/test_failed_questions.py and test_world_size.py.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.errors import UserError
from rilbench.scratch import LONGEST, Scratch
from rilbench.train.failure_reason import one_line
from rilbench.train.start_lock import one_start_at_a_time

PAGE = Path(__file__).parents[2] / "results" / "bench" / "bad-inputs.md"
HEAD = """# Bad inputs of a training run

Written by `make bench-inputs`, which runs each row. Rows with one number are one kind of input
(another option, another file).

| | input | outcome |
|---|---|---|
"""
Row = tuple[str, str, str]


def picture(width: int, height: int, form: str = "jpeg") -> bytes:
    """A picture of noise, as a file."""
    file = io.BytesIO()
    Image.effect_noise((width, height), 80).convert("RGB").save(file, form)
    return file.getvalue()


def write_questions(name: str, question: str = "Which is it?", image: bytes = b"") -> str:
    """Eight good questions and ``bad``, as JSON lines; returns the file's name."""
    good = picture(56, 56)
    Path("good.jpg").write_bytes(good)
    Path(f"{name}.jpg").write_bytes(image or good)
    rows = [
        {"id": f"g{i}", "image": "good.jpg", "question": f"{i}?", "answer": "a"} for i in range(8)
    ]
    rows.append({"id": "bad", "image": f"{name}.jpg", "question": question, "answer": "a"})
    Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return f"{name}.jsonl"


def train(*options: str, run: str = "r") -> str:
    """The last telling line of ``rilbench train --collect-only``."""
    command = [
        "train",
        "--recipe",
        "both",
        "--student",
        "nano",
        "--method",
        "dr-grpo",
        "--run",
        run,
    ]
    command += ["--set", "schedule.prompts_per_step=4", "--collect-only"]
    result = CliRunner().invoke(app, [*command, *options])
    if isinstance(result.exception, UserError):
        return f"refused: {result.exception}"
    notes = [line.strip() for line in result.output.splitlines() if "note:" in line]
    assert result.exit_code == 0, result
    return "; ".join(notes) or "accepted"


def questions() -> Iterator[Row]:
    """A3 and A4: questions that verl or the student's processor cannot read."""
    torn = picture(56, 56)[:-100]
    cases = {
        "video": ("`<video>` in a question", write_questions("video", "an <video> tag")),
        "mark": ("`<\\|image_pad\\|>` in a question", write_questions("mark", "a <|image_pad|>")),
        "torn": ("a cut JPEG of a good one's size", write_questions("torn", image=torn)),
        "strip": ("a picture of 3 x 900", write_questions("strip", image=picture(3, 900))),
    }
    for name, (what, file) in cases.items():
        number = "A4" if name == "strip" else "A3"
        data = ("--set", f"data.train={file}", "--set", "data.dev=dev.jsonl")
        yield number, what, train(*data, run=name)
        yield number, f"{what}, `--strict`", train(*data, "--strict", run=f"strict-{name}")


def resumed() -> Iterator[Row]:
    """A6: what --resume may change."""
    data = ("--set", "data.train=dev.jsonl", "--set", "data.dev=dev.jsonl")
    train(*data, run="days")
    for setting in (
        "schedule.steps=40",
        "schedule.save_every=5",
        "schedule.keep=1",
        "schedule.eval_every=5",
        "schedule.export=best",
        "collection.concurrency=4",
        "collection.max_failed=0.6",
        "judge.max_missing=0.2",
        "judge.url=http://judge:8000/v1",
        "collection.endpoints.72b=http://teacher:8000/v1",
        "collection.folder=shared",
        "hardware.devices=2",
        "policy.lr=1e-3",
    ):
        before = [] if setting != "schedule.export=best" else ["--set", "schedule.eval_every=5"]
        outcome = train(*data, *before, "--set", setting, "--resume", run="days")
        yield "A6", f"`--resume --set {setting}`", outcome


def neighbours() -> Iterator[Row]:
    """A5, A10, A14 and minor 12: other users, other runs, long TMPDIR, memory."""
    long = str(Path("a-batch-systems-folder" * 4).absolute())
    Path(long).mkdir()
    before, tempfile.tempdir = tempfile.tempdir, long
    scratch = Scratch()
    size = len(str(scratch.path))
    mode = f"{scratch.path.parent.stat().st_mode & 0o777:o}"
    scratch.close()
    tempfile.tempdir = before
    yield "A5", "another user's locks", f"each user has a folder rilbench-UID of mode {mode}"
    outcome = f"temporary files in a folder of {size} characters; sockets fit up to {LONGEST}"
    yield "A14", f"`TMPDIR` of {len(long)} characters", outcome
    told: list[str] = []
    with one_start_at_a_time(Path("runs/first"), told.append):
        try:
            with one_start_at_a_time(Path("runs/second"), told.append, minutes=0.01):
                pass
        except UserError as error:
            told.append(str(error))
    outcome = "; then: ".join(told).replace(str(os.getpid()), "PID")
    yield "A10", "a start while another run starts", outcome
    memory = "4 worker(s) were killed due to the node running low on memory.\nRefer to x"
    yield "12", "Ray's memory monitor", one_line(MemoryError(memory))


def minor() -> Iterator[Row]:
    """The minor list: paths, intervals, login, settings, names."""
    Path("list.json").write_text("[]", encoding="utf-8")
    Path("train.jsonl").touch()
    for path in ("trian.jsonl", ".", "list.json"):
        yield "2", f"`data.train={path}`", train("--set", f"data.train={path}", run="path")
    best = ("--set", "schedule.export=best", "--eval-every", "7", "--set", "schedule.save_every=10")
    yield "4", "`export=best`, save every 10, score every 7 of 30", train(*best, "--steps", "30")
    os.environ.pop("WANDB_API_KEY", None)
    os.environ |= {"HOME": str(Path.cwd()), "NETRC": "none"}
    yield "5", "`--log wandb` without a login", train("--log", "wandb")
    for key in ("judge.retries", "policy.lora", "schedule.warmup", "policy.lrr"):
        yield "9", f"`--set {key}=1`", train("--set", f"{key}=1")
    for name in (".", "../x"):
        yield "14", f"`--run {name}`", train(run=name)


def main() -> None:
    """Run every row and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_questions("dev")
        rows = [row for part in (questions, resumed, neighbours, minor) for row in part()]
        here = str(Path(folder).resolve())
    lines = [
        f"| {number} | {what} | {outcome.replace(here, '.').replace('|', chr(92) + '|')} |"
        for number, what, outcome in rows
    ]
    PAGE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
