"""Every kind of picture through the one loader that training, evaluation and prediction share."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin
from torch import Tensor

from frcnn.config import Config
from frcnn.data.feed.loader import eval_loader, train_loader
from frcnn.data.open import open_dataset
from frcnn.data.pictures.image import Decoding, image_size, read_header, read_pixels
from frcnn.data.sample import DataError
from frcnn.inputs import cut_pictures, read_picture
from frcnn.model.preprocess import pad_batch, prepare, resize_image, target_size
from frcnn.settings import with_settings

HEIGHT, WIDTH = 30, 50
SMALL = ["preprocess.min_size=24", "preprocess.max_size=64", "data.flip=0", "data.workers=0", "train.batch=1"]


def gradient(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 5 % 256, y * 8 % 256, (x + y) * 3 % 256], 2).astype(np.uint8))


def exif(value: int) -> bytes:
    """EXIF data with an orientation as a long number, which also holds what Pillow does not write."""
    entry = struct.pack("<H", 1) + struct.pack("<HHII", 0x0112, 4, 1, value)
    return b"Exif\x00\x00II*\x00" + struct.pack("<I", 8) + entry + struct.pack("<I", 0)


def tiff_tags(value: int) -> TiffImagePlugin.ImageFileDirectory_v2:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[0x0112] = 4
    tags[0x0112] = value
    return tags


def save_turned(path: Path, value: int) -> None:
    options = {"tiffinfo": tiff_tags(value)} if path.suffix == ".tif" else {"exif": exif(value)}
    gradient().save(path, **options)


def deep(top: int) -> Image.Image:
    values = np.linspace(0, top, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    return Image.fromarray(values.astype(np.uint16))


def frames(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (WIDTH, HEIGHT), (60 * i, 20, 20)) for i in range(1, count)]


def animate(path: Path) -> None:
    gradient().save(path, save_all=True, append_images=frames(4))


class Kind(NamedTuple):
    """A kind of picture: its file's name, how it is written, its mode as the header has it, and its size."""

    file: str
    write: Callable[[Path], object]
    mode: str = "RGB"
    size: tuple[int, int] = (HEIGHT, WIDTH)


KINDS = {
    "plain": Kind("a.png", lambda p: gradient().save(p)),
    **{
        f"exif {value}": Kind(
            "a.jpg",
            lambda p, value=value: save_turned(p, value),
            size=(WIDTH, HEIGHT) if 5 <= value <= 8 else (HEIGHT, WIDTH),
        )
        for value in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65537)
    },
    "tiff exif 0": Kind("a.tif", lambda p: save_turned(p, 0)),
    "tiff exif 6": Kind("a.tif", lambda p: save_turned(p, 6), size=(WIDTH, HEIGHT)),
    "gray": Kind("a.jpg", lambda p: gradient().convert("L").save(p), "L"),
    "bits": Kind("a.png", lambda p: gradient().convert("1").save(p), "1"),
    "palette": Kind("a.png", lambda p: gradient().quantize(32).save(p), "P"),
    "rgba": Kind("a.png", lambda p: gradient().convert("RGBA").save(p), "RGBA"),
    "gray with alpha": Kind("a.png", lambda p: gradient().convert("LA").save(p), "LA"),
    "cmyk": Kind("a.jpg", lambda p: gradient().convert("CMYK").save(p), "CMYK"),
    "16 bits": Kind("a.png", lambda p: deep(65535).save(p), "I;16"),
    "12 bits": Kind("a.tif", lambda p: deep(4095).save(p), "I;16"),
    "floats": Kind("a.tif", lambda p: deep(9999).convert("F").save(p), "F"),
    "mpo": Kind("a.mpo.jpg", lambda p: gradient().save(p, "MPO", save_all=True, append_images=frames(2))),
    "large": Kind("a.jpg", lambda p: gradient(480, 640).save(p), size=(480, 640)),
    "large, turned": Kind(
        "a.jpg", lambda p: gradient(480, 640).save(p, exif=exif(6)), size=(640, 480)
    ),
    "upper case": Kind("A.JPEG", lambda p: gradient().save(p)),
    "upper case png": Kind("A.PNG", lambda p: gradient().save(p)),
    "animated gif": Kind("a.gif", animate, "animated"),
    "animated png": Kind("a.png", animate, "animated"),
    "animated webp": Kind(
        "a.webp", animate, "animated"
    ),
    "pages": Kind("a.tif", lambda p: gradient().save(p, save_all=True, append_images=frames(12)), "12 pages"),
    "1 x 1": Kind("a.png", lambda p: Image.new("RGB", (1, 1), (9, 99, 199)).save(p), size=(1, 1)),
    "30,000 wide": Kind("a.jpg", lambda p: gradient(40, 30_000).save(p), size=(40, 30_000)),
}  # fmt: skip


def config(*settings: str) -> Config:
    return with_settings(Config(), [*SMALL, *settings])


def table(folder: Path, name: str, size: tuple[int, int]) -> Path:
    """A data set of one picture."""
    height, width = size
    (folder / "boxes.csv").write_text(f"path,x1,y1,x2,y2,class\n{name},0,0,{width},{height},thing\n")
    return folder


def everywhere(folder: Path, chosen: Config) -> tuple[Tensor, Tensor, Tensor]:
    """What training, evaluation and prediction give to the network."""
    dataset = open_dataset(folder, config=chosen.data)
    spec, path = chosen.preprocess, dataset.picture_path(0)
    train = next(iter(train_loader(dataset, chosen, prepare, pad_batch, seed=0))).images.pixels
    val = next(iter(eval_loader(dataset, chosen, prepare, pad_batch, 1))).images.pixels
    seen = next(cut_pictures([path], spec, Decoding.of(chosen))).part
    pixels = resize_image(seen.pixels, spec, target_size(*seen.size, spec))
    return train, val, pad_batch([pixels], [seen.size], spec).pixels


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_the_same_everywhere(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = tmp_path / kind.file
    kind.write(path)
    head = read_header(path)
    assert (head.height, head.width, head.mode, head.error) == (*kind.size, kind.mode, "")
    pixels, size = read_pixels(path)
    assert isinstance(pixels, Image.Image) and pixels.mode == "RGB"
    assert size == kind.size == (pixels.height, pixels.width)
    train, val, predicted = everywhere(table(tmp_path, kind.file, kind.size), config())
    assert train.shape[1] == 3 and (train == val).all()
    assert val.shape == predicted.shape and (val == predicted).all()


@pytest.mark.parametrize("value", [0, 9, 65537])
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_orientations_that_do_not_exist_turn_nothing(tmp_path: Path, value: int, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    save_turned(path, value)
    gradient().save(tmp_path / f"b.{ending}")
    assert read_header(path).orientation == 1
    assert np.array_equal(read_pixels(path)[0], read_pixels(tmp_path / f"b.{ending}")[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_exif_may_be_ignored(tmp_path: Path, orientation: int, ending: str) -> None:
    save_turned(tmp_path / f"a.{ending}", orientation)
    path = tmp_path / "b" / f"a.{ending}"
    path.parent.mkdir()
    gradient().save(path)
    stored, how = tmp_path / f"a.{ending}", Decoding(upright=False)
    found, size = read_pixels(stored, None, how)
    assert np.array_equal(found, read_pixels(path)[0])
    assert size == image_size(stored, upright=False) == (HEIGHT, WIDTH)
    assert read_header(stored, upright=False).orientation == 1
    path.unlink()
    given = everywhere(table(tmp_path, f"a.{ending}", size), config("data.exif=ignore"))
    assert all(pixels.shape == given[0].shape for pixels in given)
    assert given[0].shape[3] > given[0].shape[2]


@pytest.mark.parametrize(("top", "levels"), [(65535, 256), (4095, 256), (1023, 256)])
def test_deep_pictures_are_scaled_and_never_clipped(tmp_path: Path, top: int, levels: int) -> None:
    deep(top).save(tmp_path / "a.tif")
    found = np.asarray(read_pixels(tmp_path / "a.tif")[0])[..., 0]
    assert (found.min(), found.max(), len(np.unique(found))) == (0, 255, levels)
    assert (np.diff(found.reshape(-1).astype(int)) >= 0).all()


def bomb(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 50_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (bomb, r"a\.png: 3,000,000,000 pixels, and Pillow's limit .* is 178,956,970; cut it into tiles"),
        (truncated, r"a\.png: .*truncated"),
        (lambda p: p.write_bytes(b""), r"a\.png: not a picture"),
        (lambda p: None, r"a\.png: no such file"),
    ],
)
def test_what_cannot_be_read_is_named_everywhere(
    tmp_path: Path, write: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "a.png"
    write(path)
    for read in (read_pixels, read_picture, image_size):
        with pytest.raises(DataError, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert read_header(path).error and not read_header(path).height


def test_colour_profiles_do_not_disturb(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gradient().save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(read_pixels(tmp_path / "a.png")[0], gradient())
