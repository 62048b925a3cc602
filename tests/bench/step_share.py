"""How much of a step is the model's compute, for a student of 120 million parameters on a CPU.

``make bench-share`` writes ``results/bench/step-share.json``: a random student of Qwen2.5-VL's
layout with 28 layers, pictures of 1024 x 1024 pixels, responses of 512 tokens, rehearsed for two
steps (``rilbench train --rehearse``). During the second step py-spy notes every 50 ms what each
process does; a moment counts as compute when any process is in the model's forward or backward
pass, in the loss of its logits, or in its optimiser.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "bench" / "step-share.json"
PYSPY = (str(ROOT / ".tools" / "bin" / "uv"), "tool", "run", "--quiet", "py-spy==0.4.2")
QUESTIONS, SIDE, RESPONSE_TOKENS = 4, 1024, 512
COMPUTE = (
    "transformers/models/",
    "transformers/modeling_",
    "torch/autograd/",
    "torch/optim/",
    "torch/nn/modules/",
    "torch/nn/functional",
    "verl/utils/torch_functional",
    "verl/utils/memory_utils",
    "rilbench/train/losses",
    "rilbench/model/decoder",
    "rilbench/model/varlen",
)
"""Where the code of models, losses and optimisers stands."""
SETTINGS = {
    "group_size": 2,
    "schedule.prompts_per_step": 1,
    "data.max_response_tokens": RESPONSE_TOKENS,
    "data.max_prompt_tokens": 2048,
    "collection.teacher_responses": 2,
    "collection.student_responses": 1,
    "discriminator.pretrain_steps": 1,
    "discriminator.pretrain_batch_size": 4,
}


def write_student(folder: Path) -> int:
    """A random student of Qwen2.5-VL's layout; return its number of parameters."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    from rilbench.nano.model import make

    small, processor = make("qwen2_5_vl", vocabulary_seed=0, seed=0)
    config = small.config
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 576, 1536, 28
    text.num_attention_heads, text.num_key_value_heads = 9, 3
    text.max_position_embeddings = 4096
    text.layer_types = ["full_attention"] * 28
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    vision.depth, vision.hidden_size, vision.intermediate_size, vision.num_heads = 8, 320, 960, 5
    vision.out_hidden_size, vision.fullatt_block_indexes = text.hidden_size, [3, 7]
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    model.generation_config = small.generation_config
    model.save_pretrained(folder)
    processor.tokenizer.model_max_length = 4096
    processor.image_processor.size = {"shortest_edge": 28**2, "longest_edge": SIDE**2}
    processor.save_pretrained(folder)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def write_questions(path: Path) -> None:
    """Questions about pictures of noise, which no format makes small."""
    import io

    from rilbench.data.question_files import Question, QuestionWriter

    rng = np.random.default_rng(0)
    with QuestionWriter(path) as writer:
        for i in range(QUESTIONS):
            stream = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(
                stream, "JPEG"
            )
            writer.write(Question(f"q{i}", (stream.getvalue(),), "What is it?", "noise", "made"))


def record_second_step(process: subprocess.Popen[bytes], metrics: Path, trace: Path) -> float:
    """Let py-spy watch all processes from the end of the first step to the end of the second.

    Returns:
        Seconds between the two.
    """
    wait_for_lines(process, metrics, 1)
    # Its guard's command has the same words; the trainer is its child.
    *_, trainer = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "trainer_main" in " ".join(child.cmdline())
    ]
    command = [*PYSPY, "record", "--pid", str(trainer.pid), "--subprocesses", "--rate", "20"]
    command += ["--format", "chrometrace", "--output", str(trace), "--nonblocking"]
    spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    started = time.monotonic()
    wait_for_lines(process, metrics, 2)
    seconds = time.monotonic() - started
    spy.send_signal(2)  # it writes what it has
    assert spy.stderr is not None
    said = spy.stderr.read().decode()
    assert spy.wait() == 0, said
    return seconds


def wait_for_lines(process: subprocess.Popen[bytes], file: Path, number: int) -> None:
    """Until a file has so many lines."""
    while not file.exists() or len(file.read_text().splitlines()) < number:
        assert process.poll() is None, "the rehearsal ended early"
        time.sleep(0.1)


def compute_seconds(trace: Path) -> tuple[float, float]:
    """Seconds in which some process computes, of how many watched.

    Args:
        trace: of py-spy, in Chrome's format: frames begin (B) and end (E) by process and thread.
    """
    events = json.loads(trace.read_text())
    events = events if isinstance(events, list) else events["traceEvents"]
    open_frames: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    busy: list[tuple[float, int]] = []
    moments = [event["ts"] for event in events if "ts" in event]
    for event in sorted((e for e in events if e["ph"] in "BE"), key=lambda e: e["ts"]):
        stack = open_frames[event["pid"], event["tid"]]
        before = any(map(is_compute, stack))
        if event["ph"] == "B":
            stack.append(event)
        elif stack:
            stack.pop()
        after = any(map(is_compute, stack))
        if before != after:
            busy.append((event["ts"], 1 if after else -1))
    total, active, since = 0.0, 0, 0.0
    for moment, change in busy:
        if not active:
            since = moment
        active += change
        if not active:
            total += moment - since
    return total / 1e6, (max(moments) - min(moments)) / 1e6


def is_compute(frame: dict[str, Any]) -> bool:
    """Whether a frame belongs to a model, a loss or an optimiser."""
    return any(part in place(frame) for part in COMPUTE)


def place(frame: dict[str, Any]) -> str:
    """The file of a frame."""
    return str(frame.get("args", {}).get("filename") or frame.get("name", ""))


def main() -> None:
    """Make the inputs, rehearse, watch the second step, write the result."""
    folder = Path(tempfile.mkdtemp(prefix="rilbench-share-"))
    try:
        parameters = write_student(folder / "student")
        write_questions(folder / "questions.parquet")
        given = {
            **SETTINGS,
            "student.model": folder / "student",
            "data.train": folder / "questions.parquet",
            "data.dev": folder / "questions.parquet",
        }
        command = [str(Path(sys.executable).with_name("rilbench")), "train", "--recipe", "72b"]
        command += ["--student", "nano", "--run", "big", "--runs", str(folder), "--rehearse"]
        command += [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
            metrics = folder / "big-rehearsal" / "run" / "metrics.jsonl"
            try:
                seconds = record_second_step(process, metrics, folder / "trace.json")
            except AssertionError as error:
                raise SystemExit(f"{error}\n{(folder / 'log').read_text()[-3000:]}") from error
            process.wait()
        step = json.loads(metrics.read_text().splitlines()[1])
        computing, watched = compute_seconds(folder / "trace.json")
        result = {
            "command": "make bench-share",
            "parameters": parameters,
            "layers": 28,
            "picture_pixels": SIDE**2,
            "response_tokens": RESPONSE_TOKENS,
            "rows": 2 * SETTINGS["group_size"] * SETTINGS["schedule.prompts_per_step"],
            "step_seconds": round(seconds, 1),
            "watched_seconds": round(watched, 1),
            "compute_seconds": round(computing, 1),
            "outside_compute": round(1 - computing / watched, 3),
            "seconds_after_sampling": step.get("seconds_after_sampling"),
            "load_average": round(os.getloadavg()[0], 1),
        }
        OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        shutil.copy(folder / "trace.json", Path(tempfile.gettempdir()) / "step-share-trace.json")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
