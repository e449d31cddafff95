"""Pictures and targets as users hand them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from frcnn.config import PreprocessConfig
from frcnn.inputs import as_list, as_pixels, collate_targets, cut_pictures, read_picture
from frcnn.structures import ImageBatch


def batch(n: int = 1) -> ImageBatch:
    sizes, original = torch.tensor([[20.0, 30.0]] * n), torch.tensor([[40.0, 90.0]] * n)
    return ImageBatch(torch.zeros(n, 3, 32, 32), sizes, sizes / original, original)


def test_no_pictures_and_no_objects() -> None:
    assert as_list([]) == []
    targets = collate_targets([{"boxes": [], "labels": []}], batch())
    assert targets.boxes.shape == (1, 8, 4) and (targets.labels == -1).all() and not targets.ignore.any()


def test_targets_are_scaled_per_axis_and_padded() -> None:
    many = {"boxes": [[9, 8, 18, 16]] * 9, "labels": list(range(9)), "ignore": [True] + [False] * 8}
    targets = collate_targets([many, {"boxes": np.zeros((0, 4)), "labels": []}], batch(2))
    assert targets.labels.shape == (2, 16)
    torch.testing.assert_close(targets.boxes[0, 0], torch.tensor([3.0, 4.0, 6.0, 8.0]))
    assert targets.real.sum() == 8 and targets.ignore[0, 0]
    with pytest.raises(ValueError, match="1 targets for 2 pictures"):
        collate_targets([many], batch(2))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"shape \(4, 5\)"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), r"\(3, h, w\)"),
        (np.zeros((4, 5, 3), np.int64), "int64"),
        (np.full((4, 5, 3), 200.0), "divide by 255"),
        (np.full((4, 5, 3), -0.5), r"-0\.5"),
    ],
)
def test_what_cannot_be_understood_is_named(picture: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_pixels(picture)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "P", "RGBA", "F"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_picture_in_memory_is_the_picture_in_its_file(tmp_path: Path, mode: str, orientation: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(
            values[..., 0].astype(np.uint16) * 16
        )  # 12 bits: a plain conversion is white
    elif mode == "F":
        picture = Image.fromarray(values[..., 0].astype(np.float32) / 255)
    else:
        picture = Image.fromarray(values).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / ("a.tif" if mode == "F" else "a.png")
    picture.save(path, exif=exif)
    from_file = read_picture(path)
    with Image.open(path) as opened:
        in_memory = read_picture(opened)
    assert from_file.size == in_memory.size == ((20, 12) if orientation == 6 else (12, 20))
    assert np.array_equal(np.asarray(from_file.pixels), np.asarray(in_memory.pixels))
    assert len(np.unique(np.asarray(in_memory.pixels))) > 5  # not clipped to white


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (PreprocessConfig(min_size=60, max_size=99), (120, 90)),
        (PreprocessConfig(min_size=60, max_size=99, tile=480), (120, 90)),
        (PreprocessConfig(min_size=60, max_size=99, tile=479), (480, 360)),
        (PreprocessConfig(min_size=181, max_size=999), (480, 360)),
        (PreprocessConfig(min_size=60, max_size=99, method="torchvision"), (480, 360)),
    ],
)
def test_a_file_is_decoded_no_larger_than_needed(
    tmp_path: Path, spec: PreprocessConfig, size: tuple[int, int]
) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (360, 480, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.jpg")
    whole = next(cut_pictures([tmp_path / "a.jpg"], spec)).picture
    assert whole.size == (360, 480)
    assert not isinstance(whole.pixels, np.ndarray) and whole.pixels.size == size
    assert np.asarray(next(cut_pictures([picture], spec)).picture.pixels).shape == (360, 480, 3)
