"""Every reader of a question's picture sees the same pixels, however odd its file is."""

import base64
import io
import json

import numpy as np
import pytest
from odd_pictures import SIZE, odd_pictures
from PIL import Image
from transformers.image_utils import load_image

from rilbench.data.importer import Options, import_questions
from rilbench.data.question_files import Question, read_questions, write_questions
from rilbench.data.stored_questions import QuestionScan, store_pictures
from rilbench.errors import InvalidQuestionError
from rilbench.evaluate.image_resize import AS_IS
from rilbench.images import MOST_PIXELS, as_seen, check_image, open_image
from rilbench.model.server import read_picture
from rilbench.serving import image_part
from rilbench.train.verl.model_families import RLDataset

PICTURES = odd_pictures()


def pixels(picture):
    return np.asarray(picture.convert("RGB"))


def by_a_server(image):
    """As ``transformers serve`` reads a request."""
    return load_image(image_part(image)["image_url"]["url"])


def by_verl(image, **config):
    """As the rollout and the update read a row: with Qwen-VL's limits, or with none."""
    part = {"type": "image", "image": Image.open(io.BytesIO(image)), "min_pixels": 56 * 28}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]
    images, _, _ = RLDataset._process_multi_modal_info(messages, 14, config)
    return images[0]


READERS = {
    "teacher's server": by_a_server,
    "our server on a CPU": lambda image: read_picture(image_part(image)["image_url"]["url"]),
    "verl, Qwen-VL": by_verl,
    "verl, InternVL": lambda image: by_verl(image, pictures_as_they_are=True),
    "data select": open_image,
}


@pytest.mark.parametrize("name", PICTURES)
def test_all_readers_see_the_same(tmp_path, name):
    raw = PICTURES[name]
    (tmp_path / "p.bin").write_bytes(raw)
    row = {"id": "q", "question": "?", "answer": "a", "image": "p.bin"}
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    import_questions([tmp_path / "q.jsonl"], tmp_path / "i.parquet", Options(), lambda *_: None)
    (imported,) = read_questions(tmp_path / "i.parquet")

    write_questions(tmp_path / "raw.parquet", [Question("q", (raw,), "?", "a", "s")])
    scan = QuestionScan([tmp_path / "raw.parquet"], tmp_path / "pictures.arrow", 0)
    assert [question.id for question in scan] == ["q"]
    store_pictures(tmp_path / "pictures.arrow", [scan])
    (stored,) = scan.questions[0].images
    evaluated = AS_IS.fit(tmp_path / "p.bin")
    assert imported.images == (stored,) == (evaluated,) == (as_seen(raw),) == (as_seen(stored),)
    assert (stored is raw or stored == raw) == name.startswith("plain")

    seen = pixels(open_image(raw))
    assert seen.shape == (*SIZE[::-1], 3)
    for reader, read in READERS.items():
        assert (pixels(read(stored)) == seen).all(), reader


def test_what_is_seen_is_what_the_file_shows():
    colours = pixels(Image.open(io.BytesIO(PICTURES["plain png"]))).astype(int)
    for name in ("exif", "exif png", "cmyk", "bmp", "tiff", "palette png", "animated webp"):
        off = np.abs(pixels(open_image(PICTURES[name])).astype(int) - colours).mean()
        assert off < 12, name
    deep = pixels(open_image(PICTURES["16 bits"]))
    assert (deep[0, 0, 0], deep[14, 0, 0], deep[-1, -1, 0]) == (0, 128, 255), "not all white"
    assert (pixels(open_image(PICTURES["16 bits tiff"])) == deep).all()
    for name in ("rgba", "rgba webp", "la", "palette gif"):
        drawing = open_image(PICTURES[name])
        assert (drawing.getpixel((0, 0)), drawing.getpixel((8, 8))) == ((255,) * 3, (0,) * 3), name
    assert open_image(PICTURES["rgba"]).getpixel((40, 10)) == (227, 142, 142)


def test_media_types_are_true():
    for name, image in PICTURES.items():
        head, _, body = image_part(as_seen(image))["image_url"]["url"].partition(",")
        with Image.open(io.BytesIO(base64.b64decode(body))) as picture:
            assert head == f"data:image/{picture.format.lower()};base64", name


def test_a_picture_of_any_size_is_scaled_once():
    stream = io.BytesIO()
    Image.new("RGB", (8000, 4000), "red").save(stream, "JPEG")
    small = as_seen(stream.getvalue())
    width, height = check_image(small)
    assert 0.99 * MOST_PIXELS < width * height <= MOST_PIXELS
    assert width == pytest.approx(2 * height, abs=2)
    assert as_seen(small) is small


def test_pixels_that_are_no_colours_are_refused():
    stream = io.BytesIO()
    Image.fromarray(np.ones((8, 8), np.float32)).save(stream, "TIFF")
    for read in (as_seen, check_image, open_image):
        with pytest.raises(InvalidQuestionError, match="convert it to 8 bits"):
            read(stream.getvalue())
