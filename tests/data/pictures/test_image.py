from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from frcnn.data.pictures.image import conversion, image_size, read_header, read_headers, read_image
from frcnn.data.sample import DataError


def gradient(height: int = 30, width: int = 50) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 5, y * 8, (x + y) * 3], 2)
    return Image.fromarray(pixels.astype(np.uint8))


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(read_image(path)[0])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.write_bytes(b""), "not a picture"),
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 40), "x.png: "),
        (lambda p: p.write_text("hello"), "not a picture"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    path = tmp_path / "x.png"
    make(path)
    for function in (read_image, image_size):
        with pytest.raises(DataError, match=reason) as caught:
            function(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert read_header(path).error and read_header(path).height == 0


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "bmp", "tif"])
def test_a_truncated_file_is_named(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / f"whole.{kind}"
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(whole)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=f"cut.{kind}: "):
        read_image(path)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_the_header_check_notices_truncation(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / f"whole.{kind}"
    gradient(200, 300).save(whole)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(whole.read_bytes()[:-100])
    assert read_header(path).error
    assert not read_header(whole).error


def test_bytes_after_the_end_of_a_picture_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "long.jpg"
    gradient().save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 500)
    assert read_header(path)[:2] == (30, 50) and read_image(path)[1] == (30, 50)


def test_rgb_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    gradient().save(path)
    image, size = read_image(path)
    assert (image.mode, image.size, size) == ("RGB", (50, 30), (30, 50))
    assert (np.asarray(image) == np.asarray(gradient())).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_exif_is_applied_to_pixels_and_sizes(tmp_path: Path, orientation: int, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(kind, {})
    gradient().save(path, exif=exif, **options)
    stored = gradient()
    stored.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored), np.int64)
    image, size = read_image(path)
    assert np.abs(np.asarray(image) - expected).max() <= 6  # JPEG is not exact
    assert size == expected.shape[:2] == image_size(path)
    assert read_header(path).orientation == orientation


def test_exif_after_the_pixels_of_a_png_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "late.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient().save(path, exif=exif)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:start] + content[stop:end] + content[start:stop] + content[end:])
    assert image_size(path) == read_image(path)[1] == (50, 30)


def test_gray_equals_its_rgb_copy(tmp_path: Path) -> None:
    gray = gradient().convert("L")
    gray.save(tmp_path / "g.png")
    gray.convert("RGB").save(tmp_path / "c.png")
    assert (pixels_of(tmp_path / "g.png") == pixels_of(tmp_path / "c.png")).all()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "png"), ("L", "png"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("CMYK", "tif"),
     ("YCbCr", "tif"), ("LAB", "tif")],
)  # fmt: skip
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    source = gradient() if mode != "LAB" else Image.merge("LAB", gradient().split())
    (source if mode == "LAB" else source.convert(mode)).save(path)
    image, size = read_image(path)
    assert (image.mode, size) == ("RGB", (30, 50))
    assert np.asarray(image).std() > 5
    assert read_header(path).mode == mode and conversion(mode)


def test_alpha_is_dropped_and_colours_stay(tmp_path: Path) -> None:
    image = gradient()
    image.putalpha(0)
    image.save(tmp_path / "a.png")
    assert (pixels_of(tmp_path / "a.png") == np.asarray(gradient())).all()


def test_transparent_palette_keeps_its_colours(tmp_path: Path) -> None:
    image = gradient().quantize(16)
    image.save(tmp_path / "p.png", transparency=bytes([0] * 16))
    assert (pixels_of(tmp_path / "p.png") == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize(
    ("dtype", "top", "kind"),
    [(np.uint16, 65535, "png"), (np.uint16, 65535, "tif"), (np.uint16, 4095, "tif"),
     (np.uint16, 1023, "png"), (np.uint16, 255, "png"), (np.int32, 65535, "tif"),
     (np.int32, 10_000_000, "tif"), (np.float32, 1.0, "tif"),
     (np.float32, 255.0, "tif"), (np.float32, 7000.0, "tif")],
)  # fmt: skip
def test_deep_pictures_use_the_whole_range(tmp_path: Path, dtype: type, top: float, kind: str) -> None:
    values = np.linspace(0, top, 256 * 4).reshape(16, 64).astype(dtype)
    path = tmp_path / f"deep.{kind}"
    Image.fromarray(values).save(path)
    found = pixels_of(path)
    assert found.dtype == np.uint8 and found.shape == (16, 64, 3)
    expected = np.rint(values.astype(np.float64) * 255 / values.max())
    assert np.abs(found - expected[..., None]).max() <= 1
    assert len(np.unique(found)) == 256


def test_deep_pictures_with_negative_and_missing_values(tmp_path: Path) -> None:
    values = np.asarray([[-5.0, 0.0], [np.nan, 5.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "f.tif")
    assert pixels_of(tmp_path / "f.tif")[..., 0].tolist() == [[0, 128], [128, 255]]
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "z.png")
    assert not pixels_of(tmp_path / "z.png").any()


@pytest.mark.parametrize("at_least", [(1, 1), (100, 100), (101, 151), (400, 600), (999, 999)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_draft_never_goes_below_what_is_needed(
    tmp_path: Path, at_least: tuple[int, int], orientation: int
) -> None:
    path = tmp_path / "big.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    gradient(400, 600).save(path, exif=exif)
    full = (400, 600) if orientation == 1 else (600, 400)
    image, size = read_image(path, at_least)
    assert size == full
    assert image.height >= min(at_least[0], full[0]) and image.width >= min(at_least[1], full[1])
    if at_least == (1, 1):
        assert image.height == full[0] / 8


def test_a_picture_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"a\.png: 1,500 pixels, .* is 200; cut it into tiles"):
        read_image(tmp_path / "a.png")


def test_headers_of_many_files_keep_their_order(tmp_path: Path) -> None:
    assert read_headers([]) == []
    paths = []
    for i in range(70):
        paths.append(tmp_path / f"{i}.png")
        Image.new("L", (i + 1, 2)).save(paths[-1])
    paths[7].write_bytes(b"no")
    heads = read_headers(paths)
    assert [h.width for h in heads] == [0 if i == 7 else i + 1 for i in range(70)]


def test_the_header_does_not_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    gradient().save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert read_header(tmp_path / "a.png")[:2] == (30, 50)
