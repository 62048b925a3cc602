"""What a run of the paper's size needs before its first step, and for two steps of a nano student.

``make bench-scale`` writes ``results/bench/scale.json``: 40,000 questions with pictures of 60 KB,
1.28 million saved responses of two teachers, made up; everything else is the product's own code,
and verl's. Each part runs in a process of its own; memory is what a process had for itself
(``RssAnon``): pages of mapped files belong to the system. Needs 20 GB of disk, which it frees.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from PIL import Image

OUT = Path(__file__).parents[2] / "results" / "bench" / "scale.json"
QUESTIONS, DEV, PICTURE_BYTES = 40_000, 256, 60_000
RESPONSES, RESPONSE_BYTES = 16, 2_000
SFT_STEPS, SFT_BATCH = 1_000, 64
POLL_SECONDS = 0.1


def recipe(folder: Path, *more: str):
    """The recipe with both teachers, of the paper's number of responses."""
    from rilbench.config import load_recipe

    return load_recipe("both", "nano", None, [*settings(folder), *more])


def settings(folder: Path) -> list[str]:
    """What differs from the nano student's recipe."""
    return [
        f"data.train={folder / 'train.parquet'}",
        f"data.dev={folder / 'dev.parquet'}",
        f"collection.folder={folder / 'collection'}",
        f"collection.teacher_responses={RESPONSES}",
        "collection.student_responses=1",
        "schedule.prompts_per_step=4",
        "discriminator.pretrain_steps=2",
        "discriminator.pretrain_batch_size=16",
    ]


# ---- the made-up data


def write_questions(path: Path, number: int) -> None:
    """Questions of distinct pictures: a small JPEG file, filled up with noise after its end."""
    from rilbench.data.question_files import Question, QuestionWriter

    stream = io.BytesIO()
    Image.new("RGB", (84, 56), "teal").save(stream, "JPEG")
    rng = random.Random(number)
    with QuestionWriter(path) as writer:
        for i in range(number):
            image = stream.getvalue() + rng.randbytes(PICTURE_BYTES - stream.tell())
            writer.write(Question(f"{path.stem}-{i}", (image,), f"What is in {i}?", "yes", "made"))


def write_collections(folder: Path) -> None:
    """Every response that the recipe's models are asked for."""
    from rilbench.data.response_store import SavedResponse, add_responses
    from rilbench.train.pipeline.preflight import read_inputs
    from rilbench.train.pipeline.run_folder import Run

    inputs = read_inputs(Run(folder / "none", recipe(folder)))
    rng = random.Random(1)
    words = "because the red box is left of a larger one which shows seven lines so it is"
    text = " ".join(rng.choices(words.split(), k=1_000_000))

    def responses(plan) -> Iterator[SavedResponse]:
        for question in inputs.questions:
            for sample in range(plan.responses):
                start = rng.randrange(len(text) - RESPONSE_BYTES)
                said = text[start : start + RESPONSE_BYTES]
                yield SavedResponse(
                    *(question.id, question.sha256, plan.model, sample, 0, said, 400, "stop")
                )

    (folder / "collection").mkdir()
    for collection in inputs.collections:
        add_responses(collection.plan, collection.folder, responses(collection.plan), set())


# ---- the parts, each in a process of its own


class Parts:
    """CPU seconds of the parts of one process."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.process_time()

    def done(self, name: str) -> None:
        """The part ends here."""
        now = time.process_time()
        self.seconds[name] = round(now - self._start, 1)
        self._start = now


def start_run(folder: Path) -> dict[str, float]:
    """What the driver does before verl starts."""
    from rilbench.train.pipeline.collect_stage import collect_all, find_servers
    from rilbench.train.pipeline.preflight import read_inputs
    from rilbench.train.pipeline.prepare_data import prepare_data
    from rilbench.train.pipeline.run_folder import open_run

    run, parts = open_run(folder / "run", recipe(folder), resume=False), Parts()
    inputs = read_inputs(run)
    parts.done("read the questions")
    find_servers(run.recipe, inputs.collections, inputs.questions)
    parts.done("what is collected")
    inputs.store_pictures(run)
    parts.done("store the pictures")
    collect_all(run, inputs.collections, inputs.questions, _Silent())
    parts.done("check the collections")
    notes = prepare_data(run, inputs.student, inputs.collections, inputs.questions, inputs.dev)
    assert not notes, notes
    parts.done("store the responses, write the rows")
    return parts.seconds


class _Silent:
    def note(self, text: str) -> None:
        raise AssertionError(text)

    def stage(self, name: str, state: str) -> None:
        assert (name, state) == ("collect", "skipped"), (name, state)


def count_prompts(folder: Path) -> dict[str, float]:
    """The preflight's check of every prompt."""
    from rilbench.train.pipeline.preflight import read_inputs
    from rilbench.train.pipeline.run_folder import Run

    parts = Parts()
    read_inputs(Run(folder / "run", recipe(folder)))
    parts.done("read the questions and check each")
    return parts.seconds


def read_rows(folder: Path) -> dict[str, float]:
    """verl's data set of the run's rows, and the rows of one step with their pictures."""
    import torch  # noqa: F401  before the clock starts
    from omegaconf import OmegaConf
    from transformers import AutoProcessor

    from rilbench.paths import locate
    from rilbench.train.verl.config import picture_file
    from rilbench.train.verl.model_families import RLDataset

    processor = AutoProcessor.from_pretrained(locate("nano:restyled"))
    files = {"picture_file": str(picture_file(folder / "run"))}
    config = OmegaConf.create({**files, "filter_overlong_prompts": False})  # as the product
    parts = Parts()
    file = folder / "run" / "data" / "train.parquet"
    data = RLDataset(str(file), processor.tokenizer, config, processor)
    assert len(data) == QUESTIONS
    parts.done("verl's data set")
    for i in random.Random(0).sample(range(QUESTIONS), 36):
        images, *_ = RLDataset._process_multi_modal_info(data[i]["raw_prompt"], 14, config)
        assert len(images) == 1
    parts.done("36 rows with their pictures")
    return parts.seconds


def read_whole_file(folder: Path) -> dict[str, float]:
    """verl's reading call on a file of nested pictures above 2 GiB, written by the same writer."""
    import datasets

    parts = Parts()
    file = folder / "train.parquet"
    cache = folder / "cache"
    data = datasets.load_dataset("parquet", data_files=str(file), cache_dir=str(cache))["train"]
    assert len(data) == QUESTIONS
    assert len(data[QUESTIONS - 1]["images"][0]) == PICTURE_BYTES
    parts.done("datasets.load_dataset")
    return parts.seconds


def write_sft(folder: Path) -> dict[str, float]:
    """The examples of the SFT stage, read by verl's data set."""
    from omegaconf import OmegaConf
    from transformers import AutoProcessor

    from rilbench.paths import locate
    from rilbench.train.pipeline.preflight import read_inputs
    from rilbench.train.pipeline.run_folder import Run
    from rilbench.train.pipeline.sft import write_examples
    from rilbench.train.verl.config import picture_file
    from rilbench.train.verl.model_families import SFTDataset

    more = ["method=sft", f"sft.steps={SFT_STEPS}", f"sft.batch_size={SFT_BATCH}"]
    run = Run(folder / "run", recipe(folder, *more))
    inputs = read_inputs(run)
    parts = Parts()
    write_examples(run, inputs)
    parts.done("write the examples")
    processor = AutoProcessor.from_pretrained(locate("nano:restyled"))
    config = {"picture_file": str(picture_file(run.folder)), "max_length": 4096}
    config |= {"pad_mode": "no_padding", "truncation": "right"}
    file = str(run.folder / "sft" / "train.parquet")
    data = SFTDataset(file, processor.tokenizer, OmegaConf.create(config), processor)
    assert len(data) == SFT_STEPS * SFT_BATCH
    parts.done("verl's data set")
    assert all("pixel_values" in data[i]["multi_modal_inputs"] for i in range(32))
    parts.done("32 examples with their pictures")
    return parts.seconds


PARTS = {
    "start of a run": start_run,
    "verl's data set of the rows": read_rows,
    "verl's reading call on 2.4 GB of nested pictures": read_whole_file,
    "SFT examples": write_sft,
    "length check of the preflight": count_prompts,
}


# ---- measuring


def measure(command: list[str], log: Path) -> dict[str, object]:
    """Run a command; return its CPU seconds and each process's peak of memory of its own."""
    peaks: dict[str, float] = {}
    total, seconds = 0.0, {}
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, cwd=log.parent)
        while process.poll() is None:
            now = 0.0
            for one in _tree(process.pid):
                name, gibibytes, cpu = one
                peaks[name[0]] = max(peaks.get(name[0], 0.0), gibibytes)
                seconds[name[1]] = cpu
                now += gibibytes
            total = max(total, now)
            time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {log.read_text()[-3000:]}")
    return {
        "cpu_seconds": round(sum(seconds.values()), 1),
        "peak_gib": {name: round(peak, 2) for name, peak in sorted(peaks.items())},
        "peak_gib_of_all": round(total, 2),
    }


def _tree(pid: int) -> Iterator[tuple[tuple[str, int], float, float]]:
    """A process and its descendants: name and id, GiB of its own, CPU seconds."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return
    for one in family:
        with contextlib.suppress(psutil.Error, OSError, LookupError):  # it has just ended
            status = Path(f"/proc/{one.pid}/status").read_text()
            anonymous = int(status.split("RssAnon:")[1].split()[0]) / 2**20
            times = one.cpu_times()
            yield (_name(one.cmdline()), one.pid), anonymous, times.user + times.system


def _name(command: list[str]) -> str:
    text = " ".join(command)
    for known in ("trainer_main", "rilbench train", "ray::", "scale.py"):
        if known in text:
            # Ray pads the titles of its processes with spaces.
            return text.split("(")[0].split(".")[0].strip() if known == "ray::" else known
    return "others"


def main() -> None:
    """Write the data, run each part, write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", choices=list(PARTS))
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.part:
        sys.stdout.write("PARTS " + json.dumps(PARTS[arguments.part](arguments.folder)) + "\n")
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="rilbench-scale-"))
    try:
        _measure_all(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure_all(folder: Path) -> None:
    write_questions(folder / "train.parquet", QUESTIONS)
    write_questions(folder / "dev.parquet", DEV)
    write_collections(folder)
    result: dict[str, object] = {
        "command": "make bench-scale",
        "questions": QUESTIONS,
        "picture_bytes": QUESTIONS * PICTURE_BYTES,
        "saved_responses": 2 * QUESTIONS * RESPONSES,
        "bytes_of_responses": 2 * QUESTIONS * RESPONSES * RESPONSE_BYTES,
        "sft_examples": SFT_STEPS * SFT_BATCH,
    }
    parts: dict[str, object] = {}
    result |= {"bytes_in_data": {}, "parts": parts}
    for name in PARTS:
        log = folder / "part.log"
        measured = measure([sys.executable, __file__, name, "--folder", str(folder)], log)
        line = next(line for line in log.read_text().splitlines() if line.startswith("PARTS "))
        parts[name] = {**measured, "cpu_seconds_by_part": json.loads(line.removeprefix("PARTS "))}
        _write(result)
    data = folder / "run" / "data"
    sizes = {path.name: path.stat().st_size for path in sorted(data.iterdir()) if path.is_file()}
    result["bytes_in_data"] = sizes
    _write(result)
    shutil.rmtree(folder / "cache")
    shutil.rmtree(folder / "run")
    script = Path(sys.executable).with_name("rilbench")
    command = [str(script), "train", "--recipe", "both", "--student", "nano", "--run", "run"]
    command += ["--runs", str(folder), "--steps", "2", "--db", str(folder / "ledger.db")]
    command += [part for each in settings(folder) for part in ("--set", each)]
    parts["two steps of the nano student"] = measure(command, folder / "train.log")
    assert not (data / "datasets-cache").exists()
    _write(result)


def _write(result: dict[str, object]) -> None:
    """What is measured so far: the whole takes half an hour."""
    result["load_average"] = round(os.getloadavg()[0], 1)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
