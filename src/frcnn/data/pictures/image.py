"""Picture files to 8-bit RGB, or to another number of channels, the same way in every command.

The EXIF orientation is applied, unless ``data.exif`` is ``ignore``; a value that stands for none of the eight
orientations (0, 9, 65537) turns nothing. Of several frames or pages the first is used. What becomes of other
kinds of pictures:

- gray is repeated to three channels; palettes are looked up; an alpha channel is dropped (the colours are
  kept as stored);
- CMYK, YCbCr, LAB and HSV are converted by Pillow;
- 16-bit and 32-bit integers are scaled by their bit depth: v / (2**bits - 1) * 255, rounded. It is
  ``preprocess.bits``, and a picture with larger values is refused; or, if that is ``auto``, the smallest of
  8, 10, 12, 14, 16 that holds the picture's largest value; then, of a picture with values below 0 or above
  65535, its own least and greatest value become 0 and 255;
- floats are scaled from 0..1 or, if larger, from 0..255; otherwise from the picture's own range. Values that
  are not finite become 0.

``data/pictures/channels.py`` does that, and makes pictures of other numbers of channels
(``preprocess.channels``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageOps

from frcnn.bands import Pixels, viewable
from frcnn.config import Config
from frcnn.data.pictures.channels import (
    ARRAYS,
    AUTO,
    array_size,
    is_array,
    read_array,
    stacked_pages,
    to_channels,
)
from frcnn.data.pictures.picturefile import ends_early, late_metadata, reason
from frcnn.data.sample import DataError

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .tif .tiff .webp .gif .ppm .pgm .pbm .pnm .jp2 .tga .avif".split()
)
"""Files with these endings (in any case) are pictures."""
NAMED = EXTENSIONS | {ARRAYS}
"""Files with these endings are pictures where something names them."""
_ORIENTATION = 0x0112
_SWAPPED = (5, 6, 7, 8)
_UNTURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation -> what takes an upright picture back to what is stored."""
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
Size = tuple[int, int]
AtLeast: TypeAlias = "Size | Callable[[Size], Size | None] | None"
"""(height, width) that will be needed, or what tells it from the file's own; None: all of it."""


class Decoding(NamedTuple):
    """How picture files become pixels.

    Attributes:
        channels: 1: gray; 3: RGB; others as ``data/pictures/channels.py`` says.
        upright: whether the EXIF orientation is applied.
        bits: depth by which more than 8 bits are scaled; ``AUTO``: that of each picture.
    """

    channels: int = 3
    upright: bool = True
    bits: int = AUTO

    @classmethod
    def of(cls, config: Config) -> Decoding:
        """What a configuration says."""
        bits = config.preprocess.bits
        return cls(config.preprocess.channels, config.data.exif == "apply", AUTO if bits == "auto" else bits)


RGB = Decoding()


class Header(NamedTuple):
    """What is known of a picture without decoding it.

    ``height`` and ``width`` have the EXIF orientation applied where it is (else ``orientation`` is 1); all
    numbers are 0 where ``error`` says why the file cannot be read. ``mode`` is Pillow's,
    "animated", "5 pages" of a TIFF, or "5 bands" of an array.
    """

    height: int
    width: int
    orientation: int
    mode: str
    file_bytes: int
    error: str = ""


def conversion(mode: str, channels: int = 3) -> str:
    """In words, what becomes of a picture of a header's ``mode`` that is read as RGB, or as gray (1 channel);
    "" where it is that already.
    """
    if mode in (("1", "L") if channels == 1 else ("RGB",)):
        return ""
    if mode == "RGB":
        return "in colour, of which the lightness is used"
    if mode == "animated":
        return "animated, of which the first frame is used"
    if mode.endswith(" pages"):
        return f"{mode}, of which the first is used"
    if mode.endswith(" bands"):
        return f"an array of {mode.removesuffix(' bands')} channels"
    if mode in ("1", "L"):
        return "gray, repeated to three channels"
    if mode == "P":
        return "palette, looked up"
    if mode in ("RGBA", "LA", "La", "PA", "RGBa", "RGBX"):
        return "with alpha channel, which is dropped"
    if mode.startswith("I"):
        return "more than 8 bits, scaled by its bit depth"
    if mode == "F":
        return "floating point, scaled from 0..1, 0..255 or its own range"
    return f"{mode}, converted to {'gray' if channels == 1 else 'RGB'}"


def read_image(
    path: str | Path, at_least: AtLeast = None, upright: bool = True
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a picture for people: 8-bit RGB, of an array with more channels the first three.

    Args:
        path: the file.
        at_least: as of ``read_pixels``.
        upright: whether the EXIF orientation is applied.

    Returns:
        As ``read_pixels``.

    Raises:
        DataError: as ``read_pixels``.
    """
    pixels, size = _read(path, at_least, None, Decoding(upright=upright))
    return viewable(pixels), size


def read_pixels(
    path: str | Path, at_least: AtLeast = None, how: Decoding = RGB
) -> tuple[Pixels, tuple[int, int]]:
    """Decode a picture for the network: 8-bit channels, as many as ``how`` says.

    Args:
        path: the file.
        at_least: (height, width) that will be needed, or a function that tells it from the (height, width) of
            the file; a JPEG may then be decoded at 1/2, 1/4 or 1/8, but never below it.
        how: channels and orientation.

    Returns:
        The picture (possibly reduced), and the (height, width) of the file at full size.

    Raises:
        DataError: naming the file and the reason, when it is missing, broken, truncated, too large, or has
            another number of channels or more bits.
    """
    return _read(path, at_least, how.channels, how)


def _read(
    path: str | Path, at_least: AtLeast, channels: int | None, how: Decoding
) -> tuple[Pixels, tuple[int, int]]:
    """``channels`` None: of an array as many as it has, else RGB."""
    try:
        if is_array(path):
            return read_array(path, channels, how.bits), array_size(path)[:2]
        with Image.open(path) as image:
            head = _describe(image, how.upright)
            size = (head.height, head.width)
            if channels not in (None, 1, 3) and head.mode.endswith(" pages"):
                return stacked_pages(image, channels or 0, how.bits, path), size
            least = at_least(size) if callable(at_least) else at_least
            if least is not None and image.format == "JPEG":
                high, wide = least[::-1] if head.orientation in _SWAPPED else least
                image.draft(image.mode, (max(wide, 1), max(high, 1)))
            return to_channels(_loaded(image, how.upright), channels or 3, how.bits, path), size
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path}: not enough memory to decode this picture; cut it into tiles") from None
    except Exception as error:  # decoders raise many types: SyntaxError, struct.error, zlib.error ...
        raise DataError(f"{path}: {reason(error)}") from None


def _loaded(image: Image.Image, upright: bool) -> Image.Image:
    """Decode an open picture, and turn it where it is to be turned."""
    orientation = _orientation(image, getattr(image, "filename", ""))
    image.load()
    if upright:
        return ImageOps.exif_transpose(image)
    if image.format == "TIFF" and orientation != 1:  # Pillow has turned it already
        return image.transpose(_UNTURN[orientation])
    return image.copy()


def image_size(path: str | Path, upright: bool = True) -> tuple[int, int]:
    """(height, width) from the header alone, with the EXIF orientation applied where ``upright`` says so.

    Raises:
        DataError: naming the file and the reason.
    """
    head = read_header(path, upright)
    if head.error:
        raise DataError(f"{path}: {head.error}")
    return head.height, head.width


def read_header(path: str | Path, upright: bool = True) -> Header:
    """The header of a picture; a file that ends too early is noticed too. Never raises for a bad file."""
    try:
        if is_array(path):
            height, width, bands = array_size(path)
            return Header(height, width, 1, f"{bands} bands", os.path.getsize(path))
        with Image.open(path) as image:
            head = _describe(image, upright)
            early = ends_early(path, image.format or "")
        if early:
            read_image(path)  # the ending is unusual: only decoding tells whether pixels are missing
        return head
    except DataError as error:
        return Header(0, 0, 1, "", 0, str(error).removeprefix(f"{path}: "))
    except Exception as error:  # as in read_image
        return Header(0, 0, 1, "", 0, reason(error))


def read_headers(paths: Sequence[str | Path], upright: bool = True) -> list[Header]:
    """``read_header`` for each file, in threads where there are many: a network disk answers slowly."""
    if len(paths) < 64:
        return [read_header(p, upright) for p in paths]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(partial(read_header, upright=upright), paths, chunksize=32))


def _describe(image: Image.Image, upright: bool) -> Header:
    source = getattr(image, "filename", "")
    orientation = _orientation(image, source)
    width, height = image.size
    turned = image.format == "TIFF"  # Pillow reports the size of a TIFF already turned
    if orientation in _SWAPPED and turned != upright:
        width, height = height, width
    shown = orientation if upright else 1
    return Header(height, width, shown, _kind(image), os.path.getsize(source) if source else 0)


def _kind(image: Image.Image) -> str:
    """The mode of a header."""
    if image.format in _ANIMATED and getattr(image, "is_animated", False):
        return "animated"
    if image.format == "TIFF" and (pages := int(getattr(image, "n_frames", 1))) > 1:
        return f"{pages} pages"
    return image.mode


def _orientation(image: Image.Image, source: str) -> int:
    # Asking a PNG without early metadata for its EXIF would decode the whole picture.
    plain_png = image.format == "PNG" and "exif" not in image.info and not late_metadata(source)
    exif = Image.Image.getexif(image) if plain_png else image.getexif()
    value = exif.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
