from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from frcnn.bands import Bands, blank, channels_of, from_array, to_array, viewable


def values(channels: int, height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 255, (height, width, channels), np.uint8)


def test_channels_must_fit_each_other() -> None:
    with pytest.raises(ValueError, match="at least one, got 0"):
        Bands([])
    with pytest.raises(ValueError, match="L 2x2, L 3x2"):
        Bands([Image.new("L", (2, 2)), Image.new("L", (3, 2))])
    with pytest.raises(ValueError, match="RGB 2x2"):
        Bands([Image.new("RGB", (2, 2))])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_there_and_back(channels: int) -> None:
    picture = from_array(values(channels))
    assert (picture.size, picture.width, picture.height) == ((9, 6), 9, 6)
    assert channels_of(picture) == channels
    assert (to_array(picture) == values(channels)).all() and to_array(picture).shape == (6, 9, channels)
    assert isinstance(picture, Bands) == (channels not in (1, 3))


@pytest.mark.parametrize("channels", [2, 5])
def test_every_channel_goes_the_same_way_as_a_gray_picture(channels: int) -> None:
    given = values(channels, 12, 18)
    picture, layers = from_array(given), [Image.fromarray(v) for v in np.moveaxis(given, 2, 0)]
    assert isinstance(picture, Bands)
    method, box = Image.Transpose.ROTATE_90, (1.5, 2.0, 11.0, 9.25)
    for mine, theirs in (
        (picture.transpose(method), [v.transpose(method) for v in layers]),
        (picture.crop((1, 2, 5, 9)), [v.crop((1, 2, 5, 9)) for v in layers]),
        (
            picture.resize((7, 5), box=box),
            [v.resize((7, 5), Image.Resampling.BILINEAR, box) for v in layers],
        ),
    ):
        assert (to_array(mine) == np.stack([np.asarray(v) for v in theirs], 2)).all()


def test_paste_and_copy() -> None:
    ground = blank((4, 3), [1, 2, 3, 4])
    assert isinstance(ground, Bands)
    before, piece = ground.copy(), from_array(values(4, 2, 2))
    assert isinstance(piece, Bands)
    ground.paste(piece, (1, 0))
    assert (to_array(ground)[:2, 1:3] == values(4, 2, 2)).all()
    assert (to_array(ground)[2] == [1, 2, 3, 4]).all() and (to_array(before) == [1, 2, 3, 4]).all()


@pytest.mark.parametrize(("colour", "mode"), [([7], "L"), ([1, 2, 3], "RGB")])
def test_a_plain_picture_of_pillow(colour: list[int], mode: str) -> None:
    picture = blank((5, 2), colour)
    assert isinstance(picture, Image.Image) and picture.mode == mode
    assert (to_array(picture) == colour).all() and picture.size == (5, 2)


@pytest.mark.parametrize(
    ("channels", "shown"), [(1, (0, 0, 0)), (2, (0, 0, 0)), (3, (0, 1, 2)), (5, (0, 1, 2))]
)
def test_what_people_see(channels: int, shown: tuple[int, ...]) -> None:
    given = values(channels)
    for picture in (given, from_array(given)):
        seen = viewable(picture)
        assert seen.mode == "RGB" and (np.asarray(seen) == given[:, :, shown]).all()
