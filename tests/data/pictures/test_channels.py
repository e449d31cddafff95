from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frcnn.bands import Bands, to_array
from frcnn.config import Config, PreprocessConfig
from frcnn.data.check import load_checked
from frcnn.data.open import open_dataset
from frcnn.data.pictures.channels import AUTO, eight_bits, holds
from frcnn.data.pictures.image import Decoding, image_size, read_header, read_image, read_pixels
from frcnn.data.sample import DataError
from frcnn.inputs import read_picture
from frcnn.settings import ConfigError, with_settings


def values(channels: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (20, 30, channels)).astype(dtype)


def pages(path: Path, stack: np.ndarray) -> None:
    first, *rest = [Image.fromarray(np.ascontiguousarray(v)) for v in np.moveaxis(stack, 2, 0)]
    first.save(path, save_all=True, append_images=rest)


def test_nothing_is_scaled_where_there_are_eight_bits() -> None:
    assert eight_bits(np.zeros((0, 3), np.uint8)).shape == (0, 3)
    assert eight_bits(np.asarray([[3, 200]], np.uint8)).tolist() == [[3, 200]]
    assert eight_bits(np.asarray([[0, 4095]], np.uint16)).tolist() == [[0, 255]]


@pytest.mark.parametrize("channels", [2, 4, 5, 12])
def test_arrays_and_pages_are_the_same(tmp_path: Path, channels: int) -> None:
    np.save(tmp_path / "a.npy", values(channels))
    pages(tmp_path / "a.tif", values(channels))
    for name, mode in (("a.npy", f"{channels} bands"), ("a.tif", f"{channels} pages")):
        picture, size = read_pixels(tmp_path / name, None, Decoding(channels))
        assert isinstance(picture, Bands) and (to_array(picture) == values(channels)).all()
        assert size == image_size(tmp_path / name) == (20, 30)
        assert read_header(tmp_path / name).mode == mode and holds(mode, channels) and not holds(mode, 13)
        assert (to_array(read_picture(tmp_path / name, Decoding(channels)).pixels) == values(channels)).all()


def test_channels_of_a_picture_are_scaled_together(tmp_path: Path) -> None:
    stack = np.zeros((4, 4, 5), np.uint16)
    stack[..., 0], stack[..., 1] = 4095, 1000
    np.save(tmp_path / "a.npy", stack)
    pages(tmp_path / "a.tif", stack)
    for name in ("a.npy", "a.tif"):
        found = to_array(read_pixels(tmp_path / name, None, Decoding(5))[0])
        assert found[0, 0].tolist() == [255, 62, 0, 0, 0]


@pytest.mark.parametrize("file", ["a.npy", "a.png", "a.tif"])
def test_a_stated_depth_scales_all_pictures_alike(tmp_path: Path, file: str) -> None:
    path, dark = tmp_path / file, np.asarray([[0, 200, 256]], np.uint16)
    np.save(path, dark) if file.endswith("npy") else Image.fromarray(dark).save(path)
    for bits, expected in ((AUTO, [0, 50, 64]), (12, [0, 12, 16]), (16, [0, 1, 1])):
        assert to_array(read_pixels(path, None, Decoding(bits=bits))[0])[0, :, 0].tolist() == expected
        if file != "a.npy":
            seen = read_picture(Image.open(path), Decoding(bits=bits))
            assert to_array(seen.pixels)[0, :, 0].tolist() == expected
    with pytest.raises(DataError, match=r"0 to 256, and preprocess.bits is 8 \(0 to 255\); use more bits"):
        read_pixels(path, None, Decoding(bits=8))
    chosen = with_settings(Config(), ["preprocess.bits=12"])
    assert Decoding.of(chosen) == Decoding(bits=12) and Decoding.of(Config()) == Decoding()
    with pytest.raises(ConfigError, match=r"preprocess\.bits"):
        with_settings(Config(), ["preprocess.bits=11"])


def test_eight_bits_and_floats_know_no_depth(tmp_path: Path) -> None:
    assert eight_bits(np.asarray([[3, 200]], np.uint8), 16).tolist() == [[3, 200]]
    assert eight_bits(np.asarray([[0.0, 1.0]]), 16).tolist() == [[0, 255]]
    with pytest.raises(DataError, match="holds values from -1 to 5"):
        eight_bits(np.asarray([[-1, 5]]), 16)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 4), ("CMYK", 4), ("LA", 2)])
def test_channels_of_pillow_are_kept_as_stored(tmp_path: Path, mode: str, channels: int) -> None:
    picture = Image.fromarray(values(channels), mode=None) if mode == "RGBA" else Image.new(mode, (30, 20))
    path = tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}"
    picture.convert(mode).save(path)
    found = read_pixels(path, None, Decoding(channels))[0]
    assert (to_array(found) == np.asarray(picture)).all() and holds(mode, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_and_colour_come_from_every_file(tmp_path: Path, channels: int) -> None:
    gray = np.repeat(values(1), 3, 2)
    Image.fromarray(gray).save(tmp_path / "a.png")
    Image.fromarray(gray[..., 0]).save(tmp_path / "b.png")
    np.save(tmp_path / "c.npy", gray)
    np.save(tmp_path / "d.npy", gray[..., 0])
    np.save(tmp_path / "E.NPY.npy", gray[..., :1])
    for file in tmp_path.iterdir():
        picture, _ = read_pixels(file, None, Decoding(channels))
        assert isinstance(picture, Image.Image) and picture.mode == {1: "L", 3: "RGB"}[channels]
        assert (to_array(picture) == gray[..., :channels]).all()
        assert holds(read_header(file).mode, channels)


class Bad:
    def __init__(self) -> None:
        self.seen = True


def cut(path: Path) -> None:
    np.save(path, values(5))
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("a.npy", lambda p: p.write_bytes(b""), "a.npy: "),
        ("a.npy", lambda p: p.write_bytes(b"no array"), "a.npy: "),
        ("a.npy", cut, "a.npy: "),
        ("a.npy", lambda p: np.save(p, np.asarray([[Bad()]])), "cannot be decoded"),
        ("a.npy", lambda p: np.save(p, np.zeros(7)), r"shape \(7,\); \(height, width, channels\)"),
        ("a.npy", lambda p: np.save(p, np.zeros((0, 4, 5))), r"shape \(0, 4, 5\)"),
        ("a.npy", lambda p: np.save(p, np.zeros((4, 4, 5), complex)), "an array of complex128"),
        (
            "a.npy",
            lambda p: np.save(p, values(4)),
            "holds 4 channels, and preprocess.channels is 5; use --set",
        ),
        ("a.png", lambda p: Image.fromarray(values(3)).save(p), r"holds 3 channels \(RGB\)"),
        ("a.tif", lambda p: pages(p, values(4)), "holds 4 pages, and preprocess.channels is 5"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, name: str, write: Callable[[Path], object], reason: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=reason) as caught:
        read_pixels(tmp_path / name, None, Decoding(5))
    assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)


def test_a_bomb_is_refused_unread(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (30_000, 30_000, 1)).flush()
    assert "900,000,000 pixels" in read_header(tmp_path / "a.npy").error


def test_people_see_the_first_three(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values(6))
    assert (np.asarray(read_image(tmp_path / "a.npy")[0]) == values(6)[..., :3]).all()


@pytest.mark.parametrize(
    ("given", "mean", "std"),
    [
        ({"channels": 1}, (0.449,), (0.226,)),
        ({"channels": 4, "mean": (0.1, 0.2, 0.3)}, (0.2,) * 4, (0.226,) * 4),
        ({"channels": 2, "mean": (0.1, 0.2), "std": (0.3, 0.4)}, (0.1, 0.2), (0.3, 0.4)),
        ({}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_mean_and_deviation_of_every_channel(
    given: dict[str, object], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    spec = PreprocessConfig.model_validate(given)
    assert spec.mean == pytest.approx(mean, abs=2e-3) and spec.std == pytest.approx(std, abs=2e-3)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("preprocess.mean=[0.5,0.5]", "mean has 2 numbers for 3 channels; give one for each"),
        ("preprocess.channels=0", "channels"),
        ("preprocess.channels=many", "channels"),
    ],
)
def test_settings_that_do_not_fit(setting: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        with_settings(Config(), [setting])


def test_arrays_are_pictures_where_there_are_no_others(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("path,x1,y1,x2,y2,class\na.npy,1,1,9,9,x\nb.npy,1,1,9,9,x\n")
    np.save(tmp_path / "a.npy", values(5))
    np.save(tmp_path / "b.npy", values(4))
    dataset = open_dataset(tmp_path)
    assert [s.size for s in dataset] == [(20, 30)] * 2
    config = with_settings(Config(), ["preprocess.channels=5"])
    report = load_checked(tmp_path, config=config, clean=False)[1]
    (found,) = report.errors
    assert found.code == "D13" and "an array of 4 channels, and preprocess.channels is 5" in found.message
    assert not report.with_code("D15")
    kept = load_checked(tmp_path, config=with_settings(config, ["data.on_bad_image=skip"]))[0]
    assert [p.name for p in (kept.picture_path(0),)] == ["a.npy"] and len(kept) == 1
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.npy"):
        open_dataset(tmp_path)
