"""What a training step of the nano student costs, beside other trainers. ``make bench-step``.

Writes ``results/bench/step.json``: CPU seconds (user and system, of all processes) of a step, the
median without the first two, and ratios of these. All parts start from one checkpoint, whose
responses are as long as the teachers'. A step trains on 128 responses to 16 questions, unless the
part says otherwise:

- ``ril``: ``rilbench train``; ``ril_plain``: the same, with a prompt for each response
- ``dr_grpo_g``: method dr-grpo with 64 responses, as many as RIL samples
- ``trl``: TRL's GRPOTrainer, which samples all 128 itself (``trl_step.py``)
- ``bare``: RIL's arithmetic in one process (``bare_step.py``)
- ``growth``: ``ril`` with 32 questions
- ``length``: ``ril`` with every response twice as long: teachers and student say all of it twice

``python tests/bench/step.py ril trl`` measures these parts alone and keeps what the file has of the
others. With ``--folder``, checkpoint and collected responses stay for the next call.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from rilbench.data.rollout_groups import training_steps

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "bench" / "step.json"
RILBENCH = Path(sys.executable).with_name("rilbench")
TRL_PYTHON = ROOT / ".venv-trl" / "bin" / "python"
QUESTIONS = "nano:prompts.parquet"
"""The recipe's questions."""
DROPPED = 2
"""Steps at the start that do not count."""
CHECKPOINT_SETTINGS = {"sft.steps": 40, "sft.lr": 1e-3, "sft.final_lr": 1e-4}
"""Enough that the student writes as long as its teachers."""
RATIOS = {
    "ril/trl": ("ril", "trl"),
    "ril/dr_grpo_g": ("ril", "dr_grpo_g"),
    "ril/bare": ("ril", "bare"),
    "ril/ril_plain": ("ril", "ril_plain"),
    "questions_doubled": ("growth", "ril"),
    "length_doubled": ("length", "ril"),
}


@dataclass(frozen=True)
class Moment:
    """The end of a step, in seconds since its command's start."""

    wall: float
    cpu: float
    line: Mapping[str, Any]
    """What the command wrote about the step."""


class TreeClock:
    """User and system time of a process and of all that it starts, ended ones included."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.running = {process.pid: process}
        self.seen: dict[int, float] = {}

    def seconds(self) -> float:
        """The sum; a process that ended counts with what it had when last asked."""
        with suppress(psutil.NoSuchProcess):
            for child in self.process.children(recursive=True):
                self.running.setdefault(child.pid, child)
        for pid, process in list(self.running.items()):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self.seen[pid] = times.user + times.system
                continue
            del self.running[pid]
        return sum(self.seen.values())


def watch(command: Sequence[object], lines: Path, log: Path) -> list[Moment]:
    """Run a command; return the moment of each line that it adds to a file.

    Raises:
        SystemExit: it failed.
    """
    moments: list[Moment] = []
    start = time.monotonic()
    with log.open("w") as output:
        process = psutil.Popen(
            list(map(str, command)), cwd=log.parent, stdout=output, stderr=output
        )
    clock, asked = TreeClock(process), start
    while process.poll() is None:
        written = lines.read_text(encoding="utf-8") if lines.exists() else ""
        if written.count("\n") > len(moments):
            line = json.loads(written.splitlines()[len(moments)])
            moments.append(Moment(time.monotonic() - start, clock.seconds(), line))
        elif time.monotonic() > asked + 0.5:
            clock.seconds()
            asked = time.monotonic()
        time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return moments


class Bench:
    """The parts, in one folder.

    Args:
        folder: takes checkpoint, collected responses and runs.
        steps: of each part.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.checkpoint = folder / "sft" / "checkpoint"
        self.start = {"student.model": self.checkpoint, "student.name": "trained"}
        self.start |= {"discriminator.pretrain_steps": 2}
        self.twice = {"collection.folder": folder / "twice", "data.max_response_tokens": 96}

    def prepare(self) -> None:
        """Make the checkpoint and collect all responses, if they are missing."""
        if not self.checkpoint.exists():
            self._train("sft", CHECKPOINT_SETTINGS, "--method", "sft")
        if not (self.folder / "collect").exists():
            self._train("collect", self.start, "--collect-only")

    def prepare_length(self) -> None:
        """The same with responses that are said twice, imported as the teachers' own."""
        if (self.folder / "sft_twice" / "checkpoint").exists():
            return
        for teacher in ("72b", "78b"):
            table = pq.read_table(self.folder / "collection" / f"{teacher}.parquet")
            rows = table.select(["question_id", "response"]).to_pylist()
            file = self.folder / f"{teacher}.jsonl"
            said = ({"id": r["question_id"], "response": 2 * f"{r['response']} "} for r in rows)
            file.write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")
            command = [RILBENCH, "data", "import-responses", file, "--teacher", teacher]
            command += ["--questions", QUESTIONS, "--model", "twice"]
            subprocess.run([*command, "--out", self.folder / "twice"], check=True)
        self._train("sft_twice", {**CHECKPOINT_SETTINGS, **self.twice}, "--method", "sft")

    def _train(self, name: str, settings: Mapping[str, object], *options: str) -> list[Moment]:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        command = [RILBENCH, "train", "--recipe", "both", "--student", "nano", "--run", name]
        command += ["--runs", self.folder, "--db", self.folder / "ledger.db"]
        command += ["--steps", self.steps, *options]
        every = {"collection.folder": self.folder / "collection", **settings}
        command += [part for key, value in every.items() for part in ("--set", f"{key}={value}")]
        return watch(command, self.folder / name / "metrics.jsonl", self.folder / f"{name}.log")

    def ril(self) -> list[Moment]:
        """RIL."""
        return self._train("ril", self.start)

    def ril_plain(self) -> list[Moment]:
        """RIL with a prompt for each response."""
        return self._train("ril_plain", {**self.start, "hardware.share_prompts": "false"})

    def dr_grpo_g(self) -> list[Moment]:
        """Dr.GRPO with as many responses as RIL samples."""
        return self._train("dr_grpo_g", {**self.start, "num_samples": 4}, "--method", "dr-grpo")

    def growth(self) -> list[Moment]:
        """RIL with twice the questions."""
        return self._train("growth", {**self.start, "schedule.prompts_per_step": 32})

    def length(self) -> list[Moment]:
        """RIL with responses twice as long."""
        self.prepare_length()
        student = {"student.model": self.folder / "sft_twice" / "checkpoint"}
        return self._train("length", {**self.start, **self.twice, **student})

    def trl(self) -> list[Moment]:
        """TRL, on the questions of RIL's last step."""
        questions = self.folder / "questions"
        write_questions(self._recorded_run(), questions)
        return self._run_script("trl", TRL_PYTHON, questions)

    def bare(self) -> list[Moment]:
        """The arithmetic alone, on RIL's last step."""
        return self._run_script("bare", Path(sys.executable), self._recorded_run())

    def _recorded_run(self) -> Path:
        if not (self.folder / "ril" / "checkpoint").exists():
            self.ril()
        return self.folder / "ril"

    def _run_script(self, name: str, python: Path, given: Path) -> list[Moment]:
        lines = self.folder / f"{name}.jsonl"
        lines.unlink(missing_ok=True)
        script = Path(__file__).with_name(f"{name}_step.py")
        command = [python, script, self.checkpoint, given, self.steps, lines]
        return watch(command, lines, self.folder / f"{name}.log")


PARTS: dict[str, Callable[[Bench], list[Moment]]] = {
    "ril": Bench.ril,
    "ril_plain": Bench.ril_plain,
    "dr_grpo_g": Bench.dr_grpo_g,
    "trl": Bench.trl,
    "bare": Bench.bare,
    "growth": Bench.growth,
    "length": Bench.length,
}


def write_questions(run: Path, folder: Path) -> None:
    """The questions of a run's last step, as ``trl_step.py`` reads them."""
    folder.mkdir(exist_ok=True)
    written = []
    for number, group in enumerate(training_steps(run, "")[-1].groups):
        names = [f"{number}-{i}.png" for i in range(len(group.pictures))]
        for name, picture in zip(names, group.pictures, strict=True):
            (folder / name).write_bytes(picture)
        text = group.text.replace("<image>", "")
        written.append({"text": text, "gold": group.gold, "pictures": names})
    (folder / "questions.json").write_text(json.dumps(written), encoding="utf-8")


def summary(moments: Sequence[Moment], steps: int) -> dict[str, Any]:
    """What the file says of a part."""
    assert len(moments) == steps, f"{len(moments)} of {steps} steps were seen"
    each = [moments[i].cpu - moments[i - 1].cpu for i in range(DROPPED, steps)]
    own = [m.line.get("tokens_student", m.line.get("tokens")) for m in moments[DROPPED:]]
    return {
        "cpu_seconds": round(statistics.median(each), 3),
        "each_step": [round(seconds, 2) for seconds in each],
        "tokens_of_own_responses": round(statistics.mean(own), 1),
        "first_step": {
            "wall_seconds": round(moments[0].wall, 1),
            "cpu_seconds": round(moments[0].cpu, 1),
        },
        "load_average": round(os.getloadavg()[0], 1),
    }


def ratios(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Those whose two parts were measured."""
    return {
        name: round(parts[above]["cpu_seconds"] / parts[below]["cpu_seconds"], 2)
        for name, (above, below) in RATIOS.items()
        if above in parts and below in parts
    }


def measure(names: Sequence[str], bench: Bench, out: Path) -> dict[str, Any]:
    """Measure parts; each is in the file as soon as it is measured."""
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"parts": {}}
    bench.prepare()
    for name in PARTS:
        if name in names:
            found["parts"][name] = summary(PARTS[name](bench), bench.steps)
            parts = {each: found["parts"][each] for each in PARTS if each in found["parts"]}
            found = {"command": "make bench-step", "ratios": ratios(parts), "parts": parts}
            out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def main() -> None:
    """Measure the parts that are named, or all."""
    parser = argparse.ArgumentParser(description="CPU seconds of a training step, by part")
    parser.add_argument("parts", nargs="*", help=f"parts to measure: {' '.join(PARTS)}; all")
    parser.add_argument("--steps", type=int, default=8, help="steps of each part, at least 3")
    parser.add_argument("--folder", type=Path, help="folder for checkpoint and runs; it stays")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="rilbench-step-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(options.parts or list(PARTS), Bench(folder, options.steps), options.out)
    sys.stdout.write(json.dumps(found["ratios"]) + "\n")


if __name__ == "__main__":
    main()
