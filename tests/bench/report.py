"""How large a report of 10,000 questions is, and how soon Chromium has it open.

``make bench`` writes ``results/bench/report.json``. The questions are made up, with pictures like
photographs that nothing compresses further; four models answer each at the length of an explained
choice. Loading is measured from the start of the navigation until the first questions are listed,
the network off and nothing cached; ``listed_cpu_ms`` is what the page's process had computed by
then, which other work on the machine does not prolong.
"""

from __future__ import annotations

import functools
import io
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageChops

from rilbench.benchmark_names import PAPER_14
from rilbench.evaluate.suite import find_suite
from rilbench.ledger import Evaluation, Ledger, Run, Sample, Score, utc_now

QUESTIONS = 10_000
LOADS = 5
CHROMIUM = "/usr/bin/chromium"
OUT = Path(__file__).parents[2] / "results" / "bench" / "report.json"

LOADED = "performance.getEntriesByType('navigation')[0].loadEventStart"
SEARCH = """() => {
    document.getElementById("text").value = "digit beside";
    const start = performance.now();
    window.questions.update();
    return performance.now() - start;
}"""

_WORDS = (
    "the picture shows a larger smaller number of boxes beside under over left right digit bar "
    "chart highest lowest option answer therefore because first second third between counted red "
    "blue green sum difference equal corner centre line point value label axis circle square"
)
_MODELS = (
    ("student", "base", "none", None, "aaaaaa"),
    ("student", "ril", "both", "big", "bbbbbb"),
    ("teacher-72b", "base", "none", None, "cccccc"),
    ("teacher-78b", "base", "none", None, "dddddd"),
)


@functools.cache
def scenes() -> list[Image.Image]:
    """Clouds of colour, of 480 × 360 pixels."""
    rng = random.Random(1)
    small = [Image.frombytes("RGB", (24, 18), rng.randbytes(24 * 18 * 3)) for _ in range(20)]
    return [each.resize((480, 360), Image.Resampling.BICUBIC) for each in small]


def picture(rng: random.Random) -> bytes:
    """A JPEG file, no two alike: a scene that is moved round."""
    image = ImageChops.offset(rng.choice(scenes()), rng.randrange(480), rng.randrange(360))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def text(rng: random.Random, words: int) -> str:
    """Words drawn at random."""
    return " ".join(rng.choices(_WORDS.split(), k=words))


def questions(folder: Path, number: int, rng: random.Random) -> list[tuple[str, str]]:
    """Write a folder of prompts; return (benchmark, question id) of each."""
    folder.mkdir(parents=True)
    datasets = [(b.column, b.datasets[0].name) for b in find_suite("paper").benchmarks]
    datasets = [each for each in datasets if each[0] != "MMMU-Pro"]  # Two sets: other names.
    keys, lines = [], []
    for index in range(number):
        column, dataset = datasets[index % len(datasets)]
        (folder / f"{index}.jpg").write_bytes(picture(rng))
        asked = f"Question: {text(rng, 18)}?\nOptions:\nA. {text(rng, 4)}\nB. {text(rng, 4)}"
        parts = [{"type": "image", "path": f"{index}.jpg"}, {"type": "text", "text": asked}]
        names = {"dataset": dataset, "question_id": str(index), "group": str(index)}
        lines.append(json.dumps({**names, "truth": "A", "category": None, "parts": parts}))
        keys.append((column, str(index)))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return keys


def evaluation(
    model: tuple[str, str, str, str | None, str],
    keys: list[tuple[str, str]],
    folder: Path,
    rng: random.Random,
) -> Evaluation:
    """One model's answers, right three times out of five."""
    student, method, teacher, run, fingerprint = model
    samples = tuple(
        Sample(
            benchmark=benchmark,
            question_id=name,
            prompt_hash="p",
            response=f"{text(rng, 40)}. Answer: {rng.choice('AB')}",
            score=float(rng.random() < 0.6),
            gold="A",
            extracted=rng.choice("AB"),
            tokens=48,
            finish_reason="stop",
            stem=text(rng, 12),
        )
        for benchmark, name in keys
    )
    scores = []
    for column in PAPER_14:
        own = [s.score or 0.0 for s in samples if s.benchmark == column]
        counts = {"questions": len(own), "answered": len(own), "missing": 0}
        value = 100 * statistics.fmean(own) if own else None
        how = {"kit": "kit", "kit_version": "1", "dataset": column, "metric": "m"}
        scores.append(Score(benchmark=column, value=value, data_sha256="0", **how, **counts))
    return Evaluation(
        path=f"/models/{student}",
        fingerprint=fingerprint,
        student=student,
        method=method,
        teacher=teacher,
        run=run,
        start_fingerprint="aaaaaa" if run else None,
        suite="paper",
        created=utc_now(),
        settings={"questions": str(folder)},
        scores=tuple(scores),
        samples=samples,
    )


def ledger(folder: Path, number: int) -> Path:
    """A ledger with a run of 300 steps and four evaluations of so many questions."""
    rng = random.Random(0)
    keys = questions(folder / "prompts", number, rng)
    path = folder / "big.db"
    values = [round(rng.random(), 4) for _ in range(300)]
    names = (
        "answer_reward_student",
        "answer_reward_teacher",
        "similarity_reward_student",
        "kl",
        "entropy",
    )
    with Ledger(path) as opened:
        opened.record_run(
            Run(
                name="big",
                path=str(folder / "runs" / "big"),
                recipe_fingerprint="r",
                recipe_yaml="teachers: {names: [a, b], models: {a: teacher-72b, b: teacher-78b}}",
                student="student",
                method="ril",
                teacher="both",
                status="finished",
                created=utc_now(),
                curves=dict.fromkeys(names, values),
            )
        )
        for model in _MODELS:
            opened.record(evaluation(model, keys, folder / "prompts", rng))
    return path


def loads(page: Path) -> dict[str, list[float]]:
    """Milliseconds until the questions are listed, and until all is drawn, of several loads."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"listed": [], "cpu": [], "load": [], "filtered": []}
    with sync_playwright() as drivers:
        flags = ["--no-sandbox", "--disable-gpu"]
        for _ in range(LOADS):  # A browser of its own each time: nothing is cached.
            browser = drivers.chromium.launch(executable_path=CHROMIUM, args=flags)
            tab = browser.new_context(offline=True).new_page()
            devtools = tab.context.new_cdp_session(tab)
            devtools.send("Performance.enable")
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready]")
            told = devtools.send("Performance.getMetrics")["metrics"]
            seconds = next(each["value"] for each in told if each["name"] == "ProcessTime")
            found["cpu"].append(1000 * seconds)
            found["listed"].append(float(tab.evaluate("document.documentElement.dataset.ready")))
            tab.wait_for_load_state("load")
            found["load"].append(float(tab.evaluate(LOADED)))
            found["filtered"].append(float(tab.evaluate(SEARCH)))
            browser.close()
    return found


def main(number: int = QUESTIONS) -> None:
    """Measure and write the result."""
    from rilbench.report.page import write_report
    from rilbench.report.report_data import gather

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, page = ledger(folder, number), folder / "report.html"
        start = time.perf_counter()
        with Ledger.open_read(path) as opened:
            size = write_report(gather(opened, ["big"]), page)
        seconds = time.perf_counter() - start
        times = loads(page)
        shown = page.read_text(encoding="utf-8").count("data:image/webp")
    result = {
        "command": "make bench",
        "questions": number,
        "models": len(_MODELS),
        "pictures": shown,
        "megabytes": round(size / 1e6, 1),
        "listed_ms": round(statistics.median(times["listed"])),
        "listed_ms_most": round(max(times["listed"])),
        "listed_cpu_ms": round(statistics.median(times["cpu"])),
        "loaded_ms": round(statistics.median(times["load"])),
        "filtered_ms": round(statistics.median(times["filtered"])),
        "loads": LOADS,
        "written_in_seconds": round(seconds, 1),
        # On a machine that does other work, the times are that much longer.
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
