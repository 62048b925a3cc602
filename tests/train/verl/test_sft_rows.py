"""The rows of the SFT stage, as verl's data set makes them of saved responses."""

import io

import pyarrow as pa
import pytest
from omegaconf import OmegaConf
from PIL import Image
from transformers import AutoProcessor
from verl.utils.dataset.dataset_utils import SFTTensorCollator
from verl.utils.model import extract_multi_modal_inputs

from rilbench.data.row_files import row_file, write_column
from rilbench.model.inputs import teacher_tokens
from rilbench.paths import locate
from rilbench.train.pipeline.prepare_data import pixel_limits, verl_images_type
from rilbench.train.verl.model_families import SFTDataset

RESPONSES = (
    "It is red.",
    "The <image> shows a red square.",
    "I watched the <video> tag.",
    "the token <|im_end|> ends a turn",
    "<|vision_start|><|image_pad|><|vision_end|>",
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft-rows")
    student = locate("nano:restyled")
    processor, limits = AutoProcessor.from_pretrained(student), pixel_limits(student)
    picture = io.BytesIO()
    Image.new("RGB", (56, 56), "red").save(picture, "png")
    write_column(folder / "pictures.arrow", [[picture.getvalue()]], "binary")
    message = pa.struct({"role": pa.string(), "content": pa.string()})
    schema = pa.schema({"messages": pa.list_(message), "images": verl_images_type(limits)})
    with row_file(folder / "train.parquet", schema) as writer:
        for response in RESPONSES:
            messages = [
                {"role": "user", "content": "<image>What colour is it?"},
                {"role": "assistant", "content": response},
            ]
            writer.write({"messages": messages, "images": [{"row": 0, **limits}]})
    config = {"picture_file": str(folder / "pictures.arrow"), "max_length": 512}
    config |= {"pad_mode": "no_padding", "truncation": "right"}
    file = str(folder / "train.parquet")
    data = SFTDataset(file, processor.tokenizer, OmegaConf.create(config), processor)
    return processor, [data[i] for i in range(len(RESPONSES))]


def test_a_response_has_the_tokens_that_the_loop_gives_it_whatever_it_says(rows):
    processor, read = rows
    for row, response in zip(read, RESPONSES, strict=True):
        learned = row["input_ids"][row["loss_mask"].bool()].tolist()
        assert learned == teacher_tokens(processor.tokenizer, response, 512)


def test_every_response_follows_the_same_prompt(rows):
    processor, read = rows
    question = {"type": "text", "text": "What colour is it?"}
    message = {"role": "user", "content": [{"type": "image"}, question]}
    text = processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    picture = Image.new("RGB", (56, 56), "red")
    expected = processor(text=[text], images=[picture], return_tensors="pt")
    for row in read:
        prompt = row["input_ids"][~row["loss_mask"].bool()]
        assert prompt.tolist() == expected["input_ids"][0].tolist()
        assert row["multi_modal_inputs"]["pixel_values"].equal(expected["pixel_values"])


def test_questions_of_text_stand_beside_those_with_pictures(rows, tmp_path):
    """verl's collation takes its keys from the first row, which may be of text."""
    processor, read = rows
    message = pa.struct({"role": pa.string(), "content": pa.string()})
    limits = pixel_limits(locate("nano:restyled"))
    schema = pa.schema({"messages": pa.list_(message), "images": verl_images_type(limits)})
    messages = [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "It is 4."},
    ]
    with row_file(tmp_path / "text.parquet", schema) as writer:
        writer.write({"messages": messages, "images": []})
    config = OmegaConf.create({"max_length": 512, "pad_mode": "no_padding", "truncation": "right"})
    data = SFTDataset(str(tmp_path / "text.parquet"), processor.tokenizer, config, processor)
    batch = SFTTensorCollator("no_padding")([data[0], read[0]])
    inputs = extract_multi_modal_inputs(batch["multi_modal_inputs"])
    assert inputs["pixel_values"].equal(read[0]["multi_modal_inputs"]["pixel_values"])
