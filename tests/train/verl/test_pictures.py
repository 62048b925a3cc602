"""Rows that name their pictures, read by verl's own data sets."""

import io
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from collected import stored
from omegaconf import OmegaConf
from PIL import Image
from transformers import AutoProcessor

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import load_recipe
from rilbench.data.question_files import Question
from rilbench.paths import locate
from rilbench.train.pipeline.prepare_data import pixel_limits, prepare_data
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.verl.config import DATASETS_CACHE, picture_file
from rilbench.train.verl.model_families import RLDataset


def picture(colour, size=(56, 84)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "png")
    return file.getvalue()


QUESTIONS = [
    Question("one", (picture("red"),), "What is it?", "red", "test"),
    Question("two", (picture("blue"), picture("lime")), "<image> or <image>?", "blue", "test"),
]


@pytest.fixture
def run(tmp_path):
    settings = ["schedule.prompts_per_step=2"]
    run = Run(tmp_path / "run", load_recipe("both", "nano", "dr-grpo", settings))
    questions = stored(QUESTIONS, picture_file(run.folder))
    prepare_data(run, inspect_checkpoint(locate("nano:restyled")), [], questions, questions)
    return run


def test_verls_data_set_reads_rows_and_the_worker_their_pictures(run):
    student = locate("nano:restyled")
    processor = AutoProcessor.from_pretrained(student)
    files = {"picture_file": str(picture_file(run.folder))}
    config = OmegaConf.create({**files, "filter_overlong_prompts": False})
    train = str(run.folder / "data" / "train.parquet")
    before = set(Path(datasets.config.HF_DATASETS_CACHE).glob("parquet/*"))
    data = RLDataset(train, processor.tokenizer, config, processor)
    assert set(Path(datasets.config.HF_DATASETS_CACHE).glob("parquet/*")) == before
    assert any((run.folder / "data" / DATASETS_CACHE).rglob("*.arrow"))
    rows = [data[i] for i in range(2)]
    assert not any(isinstance(part.get("image"), Image.Image) for part in parts(rows[1]))
    limits = pixel_limits(student)
    assert [part for part in parts(rows[1]) if part["type"] == "image"] == [
        {"type": "image", "row": 1, **limits},
        {"type": "image", "row": 2, **limits},
    ]
    for as_they_are in (False, True):
        config.pictures_as_they_are = as_they_are
        images, *_ = RLDataset._process_multi_modal_info(rows[1]["raw_prompt"], 14, config)
        assert [image.getpixel((1, 1)) for image in images] == [(0, 0, 255), (0, 255, 0)]


def parts(row):
    (message,) = row["raw_prompt"]
    return message["content"]


def test_a_small_row_file_has_bounded_row_groups(run, monkeypatch):
    monkeypatch.setattr("rilbench.data.row_files.GROUP_BYTES", 1)
    questions = stored(QUESTIONS, picture_file(run.folder))
    prepare_data(run, inspect_checkpoint(locate("nano:restyled")), [], questions, questions)
    for name in ("train", "dev"):
        assert pq.ParquetFile(run.folder / "data" / f"{name}.parquet").num_row_groups == 2
