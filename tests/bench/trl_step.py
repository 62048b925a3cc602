"""A training by TRL's GRPOTrainer, for ``tests/bench/step.py``; runs in an environment of its own.

It reads a checkpoint and a folder with ``questions.json`` and pictures, and writes a JSON line for
each step. A step is 8 responses to each of 16 questions and one update, with the settings of the
nano student's recipe.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image, List
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

QUESTIONS, RESPONSES, MICRO_BATCH = 16, 8, 64


class StepLines(TrainerCallback):  # type: ignore[misc]
    """Writes a line after each step.

    Args:
        lines: the file.
    """

    def __init__(self, lines: Path) -> None:
        self.lines = lines

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write the length of a step's responses; the last log, of the whole run, has none."""
        length = (logs or {}).get("completions/mean_length")
        if length is not None:
            with self.lines.open("a") as file:
                file.write(json.dumps({"step": state.global_step, "tokens": length}) + "\n")


def read_questions(folder: Path) -> Dataset:
    """The questions as TRL takes them: a conversation, its pictures and the right answer."""
    questions = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    assert len(questions) == QUESTIONS
    rows = [
        {
            "prompt": [{"role": "user", "content": each["text"]}],
            "images": [str(folder / name) for name in each["pictures"]],
            "gold": each["gold"],
        }
        for each in questions
    ]
    return Dataset.from_list(rows).cast_column("images", List(Image()))


def ends_right(completions: list[Any], gold: list[str], **_: Any) -> list[float]:
    """1 for each response that ends with the right answer, or with one of several."""
    texts = [completion[0]["content"].strip() for completion in completions]
    right = [tuple(each.split("<OR>")) for each in gold]
    return [float(text.endswith(ends)) for text, ends in zip(texts, right, strict=True)]


def settings(steps: int, folder: str) -> GRPOConfig:
    """The nano student's recipe in TRL's words: one optimiser step for each 128 responses."""
    return GRPOConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=QUESTIONS * RESPONSES // MICRO_BATCH,
        num_generations=RESPONSES,
        max_completion_length=48,
        temperature=1.0,
        top_p=0.95,
        top_k=50,
        repetition_penalty=1.05,
        loss_type="dr_grpo",
        scale_rewards=False,
        beta=0.01,
        epsilon=0.2,
        learning_rate=2e-4,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        seed=0,
    )


def main() -> None:
    """Train: CHECKPOINT QUESTIONS STEPS LINES."""
    checkpoint, questions, steps, lines = sys.argv[1:]
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.tokenizer.padding_side = "left"
    with tempfile.TemporaryDirectory() as folder:
        GRPOTrainer(
            model=AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32),
            reward_funcs=ends_right,
            args=settings(int(steps), folder),
            train_dataset=read_questions(Path(questions)),
            processing_class=processor,
            callbacks=[StepLines(Path(lines))],
        ).train()


if __name__ == "__main__":
    main()
