from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from test_sample import make
from voc_files import devkit

from frcnn.data.checks import looks
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


def one_by_one(
    thumbs: np.ndarray, hashes: np.ndarray, first: np.ndarray, second: np.ndarray
) -> list[tuple[int, int, float]]:
    """What ``alike`` is to find, a pair at a time."""
    values = thumbs.reshape(len(thumbs), -1).astype(np.float64)
    found = []
    for j in second:
        pairs = [
            (round(float(np.corrcoef(values[i], values[j])[0, 1]), 4), -int(i))
            for i in first
            if (i < j or not np.array_equal(first, second))
            and np.bitwise_count(hashes[i] ^ hashes[j]) <= looks.MAX_BITS
        ]
        if pairs and max(pairs)[0] >= looks.LEAST_CORRELATION:
            likeness, i = max(pairs)
            found.append((-i, int(j), likeness))
    return found


@pytest.mark.parametrize("few", [1e9, 1e-9])  # by a matrix product, and pair by pair
@pytest.mark.parametrize("block", [7, 2048])
def test_blocks_and_ways_change_nothing(monkeypatch: pytest.MonkeyPatch, few: float, block: int) -> None:
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (4, SIDE, SIDE)).repeat(10, 0)
    scenes += np.rint(rng.normal(0, rng.choice([1, 20, 30], 40)[:, None, None], scenes.shape)).astype(int)
    thumbs = scenes.clip(0, 255).astype(np.uint8)
    thumbs[13] = thumbs[11]
    hashes = difference_hashes(thumbs)
    monkeypatch.setattr(looks, "FEW", few)
    monkeypatch.setattr(looks, "BLOCK", block)
    every = np.arange(40)
    for first, second in ((every, every), (every[::2], every[1::2]), (every[:3], every[30:])):
        expected = one_by_one(thumbs, hashes, first, second)
        found = list(alike(thumbs, hashes, first, second))
        assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
        assert np.allclose([pair[2] for pair in found], [pair[2] for pair in expected], atol=2e-4)
    assert 5 < len(list(alike(thumbs, hashes, every, every))) < 36


def frames(count: int, noise: float = 2.0) -> np.ndarray:
    """Thumbnails of a fixed camera."""
    rng = np.random.default_rng(0)
    view = rng.integers(0, 256, (1, SIDE, SIDE))
    return (view + rng.normal(0, noise, (count, SIDE, SIDE))).clip(0, 255).astype(np.uint8)


def test_a_fixed_camera_is_one_finding() -> None:
    data = make([1] * 60)
    data = replace(data, splits={"train": np.arange(35), "val": np.arange(35, 60)})
    (found,) = check_looks(data, frames(60))
    assert (found.code, found.severity) == ("D22", "warn") and "--group-by" in found.action
    assert "and 24 more of 25 pictures look like another one in train" in found.message
    assert Path(found.path).name in [f"p{i}.jpg" for i in range(35, 60)] and found.other
    (found,) = check_looks(replace(data, splits={}), frames(60))
    assert found.severity == "note" and "and 58 more of 60 pictures look like another one" in found.message
    few = make([1] * 24)
    few = replace(few, splits={"train": np.arange(5), "val": np.arange(5, 24)})
    assert len(list(check_looks(few, frames(24)))) == 19, "so few are named one by one"


def test_known_copies_are_not_said_again() -> None:
    data = make([1] * 60)
    data = replace(data, splits={"train": np.arange(35), "val": np.arange(35, 60)})
    same = {str(data.picture_path(i)) for i in range(35, 50)}
    found = list(check_looks(data, frames(60), same))
    assert [Path(f.path).name for f in found] == [f"p{i}.jpg" for i in range(50, 60)]


@pytest.mark.slow
def test_a_fixed_camera_takes_seconds() -> None:
    thumbs = frames(12_500)
    start = time.process_time()
    hashes = difference_hashes(thumbs)
    found = list(alike(thumbs, hashes, np.arange(10_000), np.arange(10_000, 12_500)))
    assert len(found) == 2500
    assert time.process_time() - start < 20
