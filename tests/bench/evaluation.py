"""How fast `rilbench eval` asks, beside the kits by themselves. ``make bench``.

Writes ``results/bench/eval.json``. Questions per second run from the first request's arrival to
the last answer, so that no program's start counts; a server between notes the times, and for a
local model the model's own calls do. Every program asks the same benchmarks of the nano sandbox.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rilbench.evaluate.events import Progress
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.kits.lmmseval_dataset import write_hub
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, find_suite
from rilbench.paths import locate, nano_folder
from rilbench.serving import serve

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OUT = ROOT / "results" / "bench" / "eval.json"
COLUMNS = "AI2D,MMStar,SEED"
MODEL = "nano:restyled"
LATENCY = 0.2
REPEATS = 2
"""Each program, in turn; the median is written, and the lowest and highest."""

Times = list[tuple[float, float]]


class Programs:
    """Each asks a server, or has the model in its own process; they return what was timed."""

    def __init__(self, work: Path) -> None:
        self.work = work
        suite = find_suite("nano").pick(tuple(COLUMNS.split(",")))
        # A copy: VLMEvalKit writes pictures beside its data.
        self.data = Path(shutil.copytree(nano_folder() / "benchmarks", work / "data"))
        self.hub = write_hub(self.data, work / "hub")
        self.datasets = ",".join(d.name for d in suite.by(VLMEVALKIT).datasets)
        self.tasks = ",".join(d.name for d in suite.by(LMMSEVAL).datasets)
        self.pythons = {name: ensure_environment(name) for name in (VLMEVALKIT, LMMSEVAL)}
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "CACHE": str(work / "cache")}
        self.runs = 0

    def rilbench(self, target: str | float) -> Times:
        """``rilbench eval --endpoint``."""
        with stamped(target, self._folder()) as (url, log):
            address = f"{served(target)}@{url}"
            self._rilbench("--endpoint", address, "--benchmarks", COLUMNS)
            return read_times(log)

    def rilbench_batch(self) -> Times:
        """``rilbench eval --engine batch``: from the loaded model to the last answer."""
        folder = self._folder()
        plan = EvalOptions(
            "nano", self.data, folder, benchmarks=tuple(COLUMNS.split(",")), engine="batch"
        )
        seen: list[tuple[float, Progress]] = []
        evaluate(
            locate(MODEL),
            plan,
            lambda progress: seen.append((time.monotonic(), progress)),
        )
        answers = [(when, p) for when, p in seen if p.stage == "answers"]
        return [(answers[0][0], answers[-1][0])] * answers[-1][1].total

    def vlmevalkit_local(self, model: str) -> Times:
        """VLMEvalKit's loop over a local model."""
        out = self._folder() / "times.json"
        self._vlmevalkit(model, out)
        return [(begun, ended) for begun, ended in json.loads(out.read_text())]

    def vlmevalkit_api(self, target: str | float, in_flight: int) -> Times:
        """VLMEvalKit's loop over its client of a server."""
        folder = self._folder()
        with stamped(target, folder) as (url, log):
            self._vlmevalkit(f"api:{in_flight}:{served(target)}@{url}", folder / "times.json")
            return read_times(log)

    def lmmseval(self, target: str | float) -> Times:
        """lmms-eval with its client of a server."""
        folder = self._folder()
        with stamped(target, folder) as (url, log):
            script = ROOT / "tests" / "support" / "lmms_alone.py"
            client = f"base_url={url},api_key=none,timeout=600,model_version={served(target)}"
            arguments = [str(self.hub), self.tasks, client, str(folder / "out.json")]
            self._run(self.pythons[LMMSEVAL], script, *arguments)
            return read_times(log)

    def suite(self, engine: str) -> float:
        """Seconds of ``rilbench eval`` on all benchmarks, its start and scoring included."""
        started = time.monotonic()
        self._rilbench("--engine", engine)
        return time.monotonic() - started

    def _rilbench(self, *options: str) -> None:
        folder = self._folder()
        places = ["--work", str(folder / "work"), "--db", str(folder / "db")]
        command = [str(Path(sys.executable).parent / "rilbench"), "eval", "--model", MODEL]
        self._command([*command, *places, *options])

    def _vlmevalkit(self, model: str, out: Path) -> None:
        script = ROOT / "tests" / "support" / "vlmeval_asking.py"
        self._run(self.pythons[VLMEVALKIT], script, str(self.data), self.datasets, model, str(out))

    def _run(self, python: Path, script: Path, *arguments: str) -> None:
        self._command([str(python), str(script), *arguments])

    def _command(self, command: list[str]) -> None:
        log = self._folder() / "log"
        with log.open("w") as sink:
            done = subprocess.run(
                command, stdout=sink, stderr=sink, cwd=log.parent, env=self.environment, check=False
            )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{log.read_text()[-3000:]}")

    def _folder(self) -> Path:
        """A new one: nothing that an earlier run left is found again."""
        self.runs += 1
        folder = self.work / str(self.runs)
        folder.mkdir()
        return folder


def served(target: str | float) -> str:
    """The model's name at a server; one that only waits takes any."""
    return "slow" if isinstance(target, float) else str(locate(MODEL))


@contextmanager
def stamped(target: str | float, folder: Path) -> Iterator[tuple[str, Path]]:
    """A server in a process of its own that notes the times of its requests."""
    log = folder / "times.jsonl"
    command = [sys.executable, str(HERE / "stamped_server.py"), str(log), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), log
        finally:
            process.terminate()


def read_times(log: Path) -> Times:
    """When each request came and went; all must have been answered."""
    found = [json.loads(line) for line in log.read_text().splitlines()]
    refused = [status for _, _, status in found if status != 200]
    if refused:
        raise SystemExit(f"{len(refused)} requests were refused, the first with {refused[0]}")
    return [(came, went) for came, went, _ in found]


def rate(times: Times) -> float:
    """Questions per second."""
    return len(times) / (max(went for _, went in times) - min(came for came, _ in times))


def measure(programs: dict[str, Callable[[], Times]], repeats: int) -> dict[str, object]:
    """Rates of each program, and in each turn the ratios of ours to the kits'."""
    rates: dict[str, list[float]] = {name: [] for name in programs}
    questions: dict[str, int] = {}
    for _ in range(repeats):
        for name, run in programs.items():
            times = run()
            questions[name] = len(times)
            rates[name].append(rate(times))
            sys.stderr.write(f"{name}: {rates[name][-1]:.2f} questions/s\n")
    over = {
        ours: {
            theirs: spread([a / b for a, b in zip(rates[ours], rates[theirs], strict=True)])
            for theirs in rates
            if not theirs.startswith("rilbench")
        }
        for ours in rates
        if ours.startswith("rilbench")
    }
    per_second = {name: spread(found) for name, found in rates.items()}
    return {"questions": questions, "per_second": per_second, "over": over}


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    """Measure everything and write the result, part by part."""
    before = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    result: dict[str, object] = before | {  # evaluation_size.py adds a part
        "command": "make bench",
        "columns": COLUMNS,
        "repeats": REPEATS,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }

    def write(part: str, found: object) -> None:
        result[part] = found
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        programs = Programs(Path(folder))
        write(f"{MODEL} on transformers serve", measure_nano(programs))
        seconds = {engine: round(programs.suite(engine), 1) for engine in ("server", "batch")}
        write("all 14, cold, seconds", seconds)
        write(f"latency of {LATENCY} s", measure_latency(programs))
    sys.stdout.write(f"{OUT.relative_to(ROOT)}\n")


def measure_nano(programs: Programs) -> dict[str, object]:
    """Against a model of a million parameters, on one core."""
    path = locate(MODEL)
    with serve(path, log=programs.work / "server.log") as server:
        url = server.base_url
        return measure(
            {
                "rilbench": lambda: programs.rilbench(url),
                "rilbench, batch": programs.rilbench_batch,
                "vlmevalkit, local model": lambda: programs.vlmevalkit_local(f"local:{path}"),
                # Not VLMEvalKit's client: transformers serve refuses what it sends.
                "lmms-eval, API": lambda: programs.lmmseval(url),
            },
            REPEATS,
        )


def measure_latency(programs: Programs) -> dict[str, object]:
    """Against a model that takes as long as a large one on a GPU."""
    return measure(
        {
            "rilbench": lambda: programs.rilbench(LATENCY),
            "vlmevalkit, local model": lambda: programs.vlmevalkit_local(f"sleep:{LATENCY}"),
            "vlmevalkit, API": lambda: programs.vlmevalkit_api(LATENCY, 0),
            "vlmevalkit, API, 32 in flight": lambda: programs.vlmevalkit_api(LATENCY, 32),
            "lmms-eval, API": lambda: programs.lmmseval(LATENCY),
        },
        REPEATS,
    )


if __name__ == "__main__":
    main()
