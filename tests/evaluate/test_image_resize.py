"""Size limits of an image."""

import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from rilbench.errors import UserError
from rilbench.evaluate.image_resize import Pixels

SIDE = st.integers(1, 9000)


@given(SIDE, SIDE, st.integers(1, 10**6))
@example(77, 77, 1)  # 77 times the scale is a little less than 1
def test_an_image_keeps_to_the_upper_limit(width: int, height: int, most: int) -> None:
    size = Pixels(most=most).size(width, height)
    assert min(size) >= 1
    assert size[0] * size[1] <= most
    if width * height <= most:
        assert size == (width, height)


@given(SIDE, SIDE, st.integers(1, 10**6))
def test_an_image_keeps_to_the_lower_limit(width: int, height: int, least: int) -> None:
    size = Pixels(least=least).size(width, height)
    assert size[0] * size[1] >= least
    assert size[0] >= width
    assert size[1] >= height


@given(st.integers(300, 3000), st.integers(300, 3000))
def test_the_sides_keep_their_proportion(width: int, height: int) -> None:
    new = Pixels(most=40_000).size(width, height)
    assert new[0] / new[1] == pytest.approx(width / height, rel=0.05)


def test_a_file_within_the_limits_is_sent_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (30, 20), "red").save(file)
    assert Pixels().fit(file) == file.read_bytes()
    assert Pixels(1, 600).fit(file) == file.read_bytes()
    png = Pixels(most=150).fit(file)
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size == (15, 10)
        assert picture.getpixel((7, 5)) == (255, 0, 0)


@pytest.mark.parametrize("limits", [(0, None), (10, 5), (-1, None), (None, 0)])
def test_limits_that_no_image_keeps_are_refused(limits: tuple[int | None, int | None]) -> None:
    with pytest.raises(UserError, match="must be at least 1 and not exceed"):
        Pixels(*limits)
