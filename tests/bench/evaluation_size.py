"""`rilbench eval` on a whole suite's number of questions, beside lmms-eval. ``make bench-eval``.

Adds a part to ``results/bench/eval.json``. Both ask a server that answers after 0.2 s, with 256
requests in flight and pictures up to 1.5 MB; lmms-eval asks the first questions only, as its rate
does not change. ``rilbench eval`` asks once more with the number in flight left to it, which starts
with 32.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from evaluation import LATENCY, OUT, ROOT, Programs, Times, rate, read_times, stamped
from PIL import Image

from rilbench.evaluate.kits.lmmseval_dataset import write_hub
from rilbench.paths import nano_folder

QUESTIONS = int(os.environ.get("QUESTIONS", "35000"))
ASKED_BY_LMMSEVAL = min(QUESTIONS, int(os.environ.get("ASKED_BY_LMMSEVAL", "3000")))
IN_FLIGHT = 256
LMMS = "lmms-eval, API"
COLUMN, FILE = "SEED", "SEEDBench_IMG.tsv"
SIZES = {30_000: 0.97, 300_000: 0.025, 1_500_000: 0.005}
"""Bytes of a picture, and the share of the questions that have one like it."""


def picture(size: int, rng: np.random.Generator) -> str:
    """A JPEG of about so many bytes, base64."""
    edge = int((size / 0.75) ** 0.5)
    pixels = rng.integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return base64.b64encode(file.getvalue()).decode()


def lines(number: int) -> Iterator[dict[str, object]]:
    """Questions as VLMEvalKit's file has them."""
    rng = np.random.default_rng(0)
    pool = {size: [picture(size, rng) for _ in range(8)] for size in SIZES}
    chosen = rng.choice(list(SIZES), number, p=list(SIZES.values()))
    for index, size in enumerate(chosen):
        yield {
            "index": index,
            "image": pool[int(size)][index % 8],
            "question": f"Which letter is shown in picture {index}?",
            "answer": "ABCD"[index % 4],
            **{letter: f"the letter {letter}" for letter in "ABCD"},
            "category": "Letters",
        }


def write_data(folder: Path, number: int) -> int:
    """Replace a benchmark's file by a large one; return its bytes."""
    file = folder / FILE
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = lines(number)
        first = next(rows)
        writer = csv.DictWriter(out, list(first), delimiter="\t")
        writer.writeheader()
        writer.writerow(first)
        writer.writerows(rows)
    return file.stat().st_size


def lines_of(log: Path) -> int:
    """How many requests a server has noted."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def used() -> tuple[float, float]:
    """CPU seconds of all children that ended, and the most memory of one of them in GiB."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024**2


class Large(Programs):
    """The programs that ask, with the large benchmark."""

    def eval(self, name: str, *options: str) -> Times:
        """``rilbench eval --endpoint`` up to the last response; scoring is VLMEvalKit's."""
        folder = self._folder()
        # The same work folder for all: the prompts are written once.
        places = ["--work", str(self.work / "work"), "--db", str(folder / "db")]
        program = str(Path(sys.executable).parent / "rilbench")
        with stamped(LATENCY, folder) as (url, log), (folder / "log").open("w") as sink:
            asked = ["--endpoint", f"{name}@{url}", "--benchmarks", COLUMN]
            command = [program, "eval", *asked, *places, *options]
            with subprocess.Popen(
                command, stdout=sink, stderr=sink, cwd=folder, env=self.environment
            ) as running:
                while running.poll() is None and lines_of(log) < QUESTIONS:
                    time.sleep(1.0)
                if running.poll() is not None:
                    raise SystemExit(f"{command}\n{(folder / 'log').read_text()[-3000:]}")
                time.sleep(3.0)  # It writes the last responses.
                running.terminate()
            return sorted(read_times(log))[-QUESTIONS:]  # without what finds out the server's model

    def lmms(self) -> Times:
        """lmms-eval's client, with the same number in flight."""
        folder = self._folder()
        with stamped(LATENCY, folder) as (url, log):
            script = ROOT / "tests" / "support" / "lmms_alone.py"
            client = f"base_url={url},api_key=none,timeout=600,model_version=slow,"
            client += f"num_concurrent={IN_FLIGHT},adaptive_max_concurrency={IN_FLIGHT}"
            arguments = [str(self.hub), "seedbench", client, str(folder / "out.json")]
            self._run(self.pythons["lmms-eval"], script, *arguments)
            return read_times(log)


def measure(program: str, times: Times, started: float, before: float) -> dict[str, object]:
    """What one program did."""
    cpu = used()[0] - before
    found = {
        "questions": len(times),
        "per_second": round(rate(times), 1),
        "wall_seconds": round(time.monotonic() - started, 1),
        "cpu_seconds_with_server": round(cpu, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }
    sys.stderr.write(f"{program}: {found}\n")
    return found


def main() -> None:
    """Write the data, let both ask, add the part to the result."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        programs = Large(work)
        nano = Path(shutil.copytree(nano_folder(), work / "nano"))
        write_data(programs.data, ASKED_BY_LMMSEVAL)
        programs.hub = write_hub(programs.data, work / "hub-large")
        size = write_data(nano / "benchmarks", QUESTIONS)
        programs.environment |= {"RILBENCH_NANO": str(nano)}
        result: dict[str, object] = {"bytes_of_data": size, "in_flight": IN_FLIGHT}
        over: dict[str, float] = {}
        rates = {}
        for program, ask in {
            LMMS: programs.lmms,
            "rilbench": lambda: programs.eval("fixed", "--concurrency", str(IN_FLIGHT)),
            "rilbench, growing": lambda: programs.eval("grows"),
        }.items():
            started, before = time.monotonic(), used()[0]
            times = ask()
            rates[program] = rate(times)
            result[program] = measure(program, times, started, before)
            result["most_memory_of_a_process_gib"] = round(used()[1], 2)
            if program != LMMS:
                over[program] = round(rates[program] / rates[LMMS], 2)
            write({**result, "over lmms-eval": over})


def write(part: dict[str, object]) -> None:
    """Put what was measured so far into the result."""
    whole = json.loads(OUT.read_text(encoding="utf-8"))
    whole[f"{QUESTIONS} questions, latency of {LATENCY} s"] = part
    OUT.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
