"""How long `rilbench data overlap` takes at the paper's size: 40,000 questions, its 14 benchmarks.

``make bench`` writes ``results/bench/overlap.json``. The benchmarks' files have as many questions
as the published ones, made up, with small pictures, as the comparison does not depend on their
size; how many pictures of a megapixel are read in a second, which is the rest of the work, is
measured apart. One question in a hundred to train on is a benchmark's, its picture saved again.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image

from rilbench.data.contamination.image_hash import hash_image
from rilbench.data.contamination.overlap import BenchmarkIndex, find_overlap
from rilbench.data.question_files import Question, QuestionWriter, iter_questions
from rilbench.evaluate.suite import Suite, find_suite

QUESTIONS = 40_000
PLANTED = 100  # One question in so many.
PHOTOGRAPHS = 40
OUT = Path(__file__).parents[2] / "results" / "bench" / "overlap.json"

_WORDS = (
    "the picture shows a larger smaller number of boxes beside under over left right digit bar "
    "chart highest lowest option answer therefore because first second third between counted red "
    "blue green sum difference equal corner centre line point value label axis circle square"
)


def picture(number: int, size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    """Clouds, for each number others."""
    noise = Image.frombytes("RGB", (8, 6), random.Random(number).randbytes(8 * 6 * 3))
    stream = io.BytesIO()
    noise.resize(size, Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


def words(number: int) -> str:
    """A question of 4 to 24 words, for each number another."""
    rng = random.Random(-number - 1)
    return " ".join(rng.choices(_WORDS.split(), k=rng.randint(4, 24)))


def write_benchmarks(suite: Suite, folder: Path) -> int:
    """Files of the published sizes; returns how many questions there are."""
    number = 0
    for dataset in suite.datasets:
        with (folder / f"{dataset.name}.tsv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["index", "image", "question", "split"])
            for index in range(dataset.questions):
                image = base64.b64encode(picture(number)).decode()
                writer.writerow([index, image, words(number), dataset.split or ""])
                number += 1
    return number


def write_training(path: Path, known: int) -> None:
    """The questions to train on."""
    with QuestionWriter(path) as writer:
        for i in range(QUESTIONS):
            own = i * 7 % known if i % PLANTED == 0 else known + i
            image = picture(own, (96, 72), "JPEG") if own < known else picture(own)
            writer.write(Question(str(i), (image,), words(own), "a", "made up"))


def photographs_per_second() -> float:
    """Fingerprints of JPEG files of a megapixel."""
    images = [picture(number, (1152, 864), "JPEG") for number in range(PHOTOGRAPHS)]
    start = time.process_time()
    for image in images:
        hash_image(image)
    return PHOTOGRAPHS / (time.process_time() - start)


def main() -> None:
    """Measure and write the result."""
    suite = find_suite("paper")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = write_benchmarks(suite, folder)
        write_training(folder / "train.parquet", known)
        before = psutil.Process().memory_info().rss
        start, wall = time.process_time(), time.perf_counter()
        benchmarks = BenchmarkIndex(suite, folder, lambda _: None)
        indexed = time.process_time()
        questions = iter_questions(folder / "train.parquet")
        found = find_overlap(questions, benchmarks, "both", folder / "o.parquet", lambda _: None)
        compared = time.process_time()
        wall = time.perf_counter() - wall
        memory = psutil.Process().memory_info().rss - before
    result = {
        "command": "make bench",
        "questions": found.questions,
        "benchmark_questions": known,
        "planted": QUESTIONS // PLANTED,
        "found_by_picture_and_words": found.dropped,
        "cpu_seconds_to_index": round(indexed - start, 1),
        "cpu_seconds_to_compare": round(compared - indexed, 1),
        "seconds": round(wall, 1),
        "load_average": round(os.getloadavg()[0], 1),
        "megabytes": round(memory / 1e6),
        "megapixel_pictures_per_cpu_second": round(photographs_per_second(), 1),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
