"""Images that are the same, saved again, or different: photographs, charts, nano's."""

import io
import itertools
import random

import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

from rilbench.data.contamination.image_hash import ImageIndex, hash_image
from rilbench.data.contamination.ngram_match import NEAR, SAME
from rilbench.errors import InvalidQuestionError
from rilbench.nano.data import benchmark_questions


def encode(picture, kind="PNG", **settings):
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)
    return stream.getvalue()


@pytest.fixture(scope="module")
def photographs():
    with get_sample_data("grace_hopper.jpg") as file:
        photo = Image.open(file).convert("RGB")
    return [photo.crop((x, y, x + 200, y + 150)) for x in (0, 150, 300) for y in range(0, 450, 100)]


@pytest.fixture(scope="module")
def charts():
    """Of one template, as charts of a data set are."""
    from matplotlib.figure import Figure

    found, rng = [], random.Random(0)
    for i in range(40):
        figure = Figure(figsize=(4, 3))
        axes = figure.subplots()
        values = [rng.random() for _ in range(5)]
        axes.bar(range(5), values) if i % 2 else axes.plot(values)
        axes.set_title(f"chart {i}")
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        found.append(Image.open(stream).convert("RGB"))
    return found


def index_of(pictures):
    index = ImageIndex()
    for picture in pictures:
        index.add(encode(picture))
    index.finish()
    return index


CHANGES = {
    "jpeg": lambda p: encode(p, "JPEG", quality=90),
    "poor jpeg": lambda p: encode(p, "JPEG", quality=40),
    "half": lambda p: encode(p.resize((p.width // 2, p.height // 2)), "JPEG", quality=85),
    "larger": lambda p: encode(p.resize((p.width * 3 // 2, p.height * 3 // 2)), "WEBP"),
    "brighter": lambda p: encode(p.point(lambda v: min(255, v + 12))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["photographs", "charts"])
def test_an_image_saved_again_is_near(request, kind, change):
    pictures = request.getfixturevalue(kind)
    index = index_of(pictures)
    found = index.match([hash_image(CHANGES[change](picture)) for picture in pictures])
    assert found == [{i: NEAR} for i in range(len(pictures))]


@pytest.mark.parametrize("kind", ["photographs", "charts"])
def test_the_same_file_or_pixels_are_the_same(request, kind):
    pictures = request.getfixturevalue(kind)
    index = index_of(pictures)
    for image in (encode, lambda p: encode(p, "WEBP", lossless=True)):
        found = index.match([hash_image(image(picture)) for picture in pictures])
        assert found == [{i: SAME} for i in range(len(pictures))]
    assert len(index) == len(pictures)
    assert index.add(encode(pictures[3], "BMP")) == 3


def test_different_images_do_not_match():
    pictures = [
        picture.images[0]
        for name in ("AI2D_TEST", "ChartQA_TEST", "MMStar", "RealWorldQA")
        for picture, _ in benchmark_questions(name, "test", 20)
    ]
    index = ImageIndex()
    for image in pictures:
        index.add(image)
    index.finish()
    assert index.match([hash_image(image) for image in pictures]) == [{i: SAME} for i in range(80)]


def test_flat_images_are_near_nothing():
    greys = [Image.new("RGB", (60, 40), (shade,) * 3) for shade in (0, 128, 130, 255)]
    index = index_of(greys)
    assert index.match([hash_image(encode(greys[1].resize((30, 20))))]) == [{}]
    assert index.match([hash_image(encode(greys[1]))]) == [{1: SAME}]


def test_exif_rotation_is_applied(photographs):
    picture = photographs[0]
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    index = index_of([picture])
    assert index.match([hash_image(encode(turned, "PNG", exif=exif))]) == [{0: SAME}]


def test_a_file_that_is_not_an_image_is_refused(photographs):
    cut = encode(photographs[0], "JPEG")[:-500]
    for image in (b"", b"text", cut, b"%!PS-Adobe", encode(photographs[0])[:200]):
        with pytest.raises(InvalidQuestionError, match="get it again"):
            hash_image(image)


def test_a_bomb_is_refused():
    whole = encode(Image.new("L", (10, 10)))
    size = (60_000).to_bytes(4, "big")
    bomb = whole[:16] + size + size + whole[24:]
    with pytest.raises(InvalidQuestionError):
        hash_image(bomb)


def test_an_empty_index():
    index = ImageIndex()
    index.finish()
    assert index.match([]) == []
    assert list(itertools.chain(*index.match([hash_image(encode(Image.new("L", (9, 9))))]))) == []
