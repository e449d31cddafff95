from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from test_sample import make
from voc_files import devkit

from frcnn.data.checks.counts import check_counts
from frcnn.data.checks.decoded import SIDE, decode_all
from frcnn.data.checks.looks import alike, check_looks, difference_hashes
from frcnn.data.packed import Packed


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def again(image: Image.Image, how: str) -> Image.Image:
    """The picture as it comes back from elsewhere."""
    if how == "jpeg":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=25)
        return Image.open(buffer)
    if how == "small":
        return image.resize((128, 96))
    if how == "dark":
        return ImageEnhance.Brightness(image).enhance(0.6)
    if how == "moved":
        return image.crop((4, 3, image.width, image.height)).resize(image.size)
    return image.convert("L")


def of(images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    thumbs = np.stack([np.asarray(i.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)) for i in images])
    return thumbs, difference_hashes(thumbs)


def test_nothing_is_like_nothing() -> None:
    empty = np.zeros((0, SIDE, SIDE), np.uint8)
    assert len(difference_hashes(empty)) == 0
    none = np.zeros(0, np.int64)
    assert list(alike(empty, difference_hashes(empty), none, none)) == []


@pytest.mark.parametrize("how", ["jpeg", "small", "dark", "moved", "gray"])
def test_a_copy_is_recognised(how: str) -> None:
    images = [scene(i) for i in range(20)]
    thumbs, hashes = of([*images, again(images[7], how)])
    found = list(alike(thumbs, hashes, np.arange(20), np.asarray([20])))
    assert [(i, j) for i, j, _ in found] == [(7, 20)] and found[0][2] > 0.95


def test_other_pictures_are_not_alike() -> None:
    thumbs, hashes = of([scene(i) for i in range(60)])
    every = np.arange(60)
    assert list(alike(thumbs, hashes, every, every)) == []


def test_pictures_with_little_in_them_need_more_than_the_hash() -> None:
    slope = np.linspace(200, 100, 320)[None].repeat(240, 0)
    other = slope.copy()
    other[60:180, 100:220] -= 90
    images = [Image.fromarray(v.round().astype(np.uint8)) for v in (slope, other)]
    thumbs, hashes = of(images)
    assert np.bitwise_count(hashes[0] ^ hashes[1]) <= 10
    assert list(alike(thumbs, hashes, np.asarray([0]), np.asarray([1]))) == []


def test_each_picture_is_named_with_the_one_it_is_most_like() -> None:
    first = scene(1)
    thumbs, hashes = of([first, again(first, "moved"), first])
    every = np.arange(3)
    assert [(i, j) for i, j, _ in alike(thumbs, hashes, every, every)] == [(0, 1), (0, 2)]


def test_empty_and_unreadable_pictures_are_left_out(tmp_path: Path) -> None:
    devkit(tmp_path, {n: [("cat", 1, 1, 9, 9)] for n in "abc"})
    (tmp_path / "JPEGImages" / "b.jpg").write_bytes(b"")
    data = make([1, 1, 1])
    thumbs = decode_all(tmp_path, [f"JPEGImages/{n}.jpg" for n in "abc"]).thumbs
    assert thumbs[1].max() == 0
    assert list(check_looks(data, thumbs)) == []


def test_counts_need_many_pictures_with_many_objects() -> None:
    assert list(check_counts(make([]))) == []
    assert list(check_counts(make([5] * 10 + [0]))) == []
    assert list(check_counts(make([1] * 40 + [0]))) == []
    assert list(check_counts(make([9] * 40 + [0] * 8))) == []  # background is usual here


def test_odd_counts_are_named_once() -> None:
    data = make([9] * 20 + [10, 11, 8, 1, 0] + [9] * 20 + [60], classes=("cat",))
    data.objects.labels[:] = 0
    found = list(check_counts(data))
    assert [f.severity for f in found] == ["note", "warn", "note"]
    messages = [f.message.partition(";")[0] for f in found]
    assert messages == ['has 1 "cat"', "has no objects", 'has 60 "cat"']


def test_a_picture_whose_annotation_is_broken_is_not_said_to_be_without() -> None:
    data = make([9] * 30 + [0])
    assert len(list(check_counts(data))) == 1
    named = Packed(f"p{i}.xml" for i in range(31))
    data = replace(data, pictures=replace(data.pictures, annotations=named))
    assert list(check_counts(data, {str(data.annotation_path(30))})) == []
