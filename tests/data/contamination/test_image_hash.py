"""Pictures that are the same, saved anew, or others: photographs, charts, the laboratory's."""

import io
import itertools
import random

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from rilbench.data.contamination.image_hash import PrintIndex, print_of
from rilbench.data.contamination.ngram_match import NEAR, SAME
from rilbench.data.question import RefusedError
from rilbench.nano.data import benchmark_questions


def encode(picture, kind="PNG", **settings):
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)
    return stream.getvalue()


@pytest.fixture(scope="module")
def photographs():
    return [
        Image.fromarray(photo).crop((x, y, x + 300, y + 220))
        for photo in load_sample_images().images
        for x in (0, 150, 300)
        for y in (0, 100, 200)
    ]


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
    index = PrintIndex()
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
def test_a_picture_saved_anew_is_near(request, kind, change):
    pictures = request.getfixturevalue(kind)
    index = index_of(pictures)
    found = index.match([print_of(CHANGES[change](picture)) for picture in pictures])
    assert found == [{i: NEAR} for i in range(len(pictures))]


@pytest.mark.parametrize("kind", ["photographs", "charts"])
def test_the_same_file_or_pixels_are_the_same(request, kind):
    pictures = request.getfixturevalue(kind)
    index = index_of(pictures)
    for image in (encode, lambda p: encode(p, "WEBP", lossless=True)):
        found = index.match([print_of(image(picture)) for picture in pictures])
        assert found == [{i: SAME} for i in range(len(pictures))]
    assert len(index) == len(pictures)
    assert index.add(encode(pictures[3], "BMP")) == 3


def test_other_pictures_are_neither():
    pictures = [
        picture.images[0]
        for name in ("AI2D_TEST", "ChartQA_TEST", "MMStar", "RealWorldQA")
        for picture, _ in benchmark_questions(name, "test", 20)
    ]
    index = PrintIndex()
    for image in pictures:
        index.add(image)
    index.finish()
    assert index.match([print_of(image) for image in pictures]) == [{i: SAME} for i in range(80)]


def test_even_pictures_are_near_to_nothing():
    greys = [Image.new("RGB", (60, 40), (shade,) * 3) for shade in (0, 128, 130, 255)]
    index = index_of(greys)
    assert index.match([print_of(encode(greys[1].resize((30, 20))))]) == [{}]
    assert index.match([print_of(encode(greys[1]))]) == [{1: SAME}]


def test_a_turned_picture_is_upright(photographs):
    picture = photographs[0]
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    index = index_of([picture])
    assert index.match([print_of(encode(turned, "PNG", exif=exif))]) == [{0: SAME}]


def test_what_is_no_picture_is_refused(photographs):
    cut = encode(photographs[0], "JPEG")[:-500]
    for image in (b"", b"text", cut, b"%!PS-Adobe", encode(photographs[0])[:200]):
        with pytest.raises(RefusedError, match="get it again"):
            print_of(image)


def test_a_bomb_is_refused():
    whole = encode(Image.new("L", (10, 10)))
    size = (60_000).to_bytes(4, "big")
    bomb = whole[:16] + size + size + whole[24:]
    with pytest.raises(RefusedError):
        print_of(bomb)


def test_an_empty_index():
    index = PrintIndex()
    index.finish()
    assert index.match([]) == []
    assert list(itertools.chain(*index.match([print_of(encode(Image.new("L", (9, 9))))]))) == []
