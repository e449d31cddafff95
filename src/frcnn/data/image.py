"""Picture files to 8-bit RGB, the same way in every command.

The EXIF orientation is always applied. What becomes of other kinds of pictures:

- gray is repeated to three channels; palettes are looked up; an alpha channel is dropped (the colours are
  kept as stored);
- CMYK, YCbCr, LAB and HSV are converted by Pillow;
- 16-bit and 32-bit integers are scaled by their bit depth, the smallest of 8, 10, 12, 14, 16 that holds the
  picture's largest value: v / (2**bits - 1) * 255, rounded. Values below 0 or above 65535: the picture's own
  least and greatest value become 0 and 255;
- floats are scaled from 0..1 or, if larger, from 0..255; otherwise from the picture's own range. Values that
  are not finite become 0.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from frcnn.data.sample import DataError

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .tif .tiff .webp .gif .ppm .pgm .pbm .pnm .jp2 .tga .avif".split()
)
"""Files with these endings (in any case) are pictures."""
_ORIENTATION = 0x0112
_SWAPPED = (5, 6, 7, 8)
_DEPTHS = (8, 10, 12, 14, 16)
_TAIL = 64


class Header(NamedTuple):
    """What is known of a picture without decoding it.

    ``height`` and ``width`` have the EXIF orientation applied; all numbers are 0 where ``error`` says why the
    file cannot be read.
    """

    height: int
    width: int
    orientation: int
    mode: str
    file_bytes: int
    error: str = ""


def conversion(mode: str) -> str:
    """In words, what ``read_image`` does with a picture of Pillow's ``mode``; "" for RGB."""
    if mode == "RGB":
        return ""
    if mode in ("1", "L"):
        return "gray, repeated to three channels"
    if mode == "P":
        return "palette, looked up"
    if mode in ("RGBA", "LA", "La", "PA", "RGBa", "RGBX"):
        return "with alpha channel, which is dropped"
    if mode.startswith("I"):
        return "more than 8 bits, scaled by its bit depth (8, 10, 12, 14 or 16)"
    if mode == "F":
        return "floating point, scaled from 0..1, 0..255 or its own range"
    return f"{mode}, converted to RGB"


def read_image(
    path: str | Path, at_least: tuple[int, int] | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a picture as 8-bit RGB with its EXIF orientation applied.

    Args:
        path: the file.
        at_least: (height, width) that will be needed; a JPEG may then be decoded at 1/2, 1/4 or 1/8, but
            never below it.

    Returns:
        The picture (possibly reduced), and the (height, width) of the file at full size.

    Raises:
        DataError: naming the file and the reason, when it is missing, broken, truncated or too large.
    """
    try:
        with Image.open(path) as image:
            head = _describe(image)
            if at_least is not None and image.format == "JPEG":
                high, wide = at_least[::-1] if head.orientation in _SWAPPED else at_least
                image.draft(image.mode, (max(wide, 1), max(high, 1)))
            image.load()
            upright = ImageOps.exif_transpose(image)
            return to_rgb(upright), (head.height, head.width)
    except MemoryError:
        raise DataError(f"{path}: not enough memory to decode this picture; cut it into tiles") from None
    except Exception as error:  # decoders raise many types: SyntaxError, struct.error, zlib.error ...
        raise DataError(f"{path}: {_reason(error)}") from None


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) with the EXIF orientation applied, from the header alone.

    Raises:
        DataError: naming the file and the reason.
    """
    head = read_header(path)
    if head.error:
        raise DataError(f"{path}: {head.error}")
    return head.height, head.width


def read_header(path: str | Path) -> Header:
    """The header of a picture; a file that ends too early is noticed too. Never raises for a bad file."""
    try:
        with Image.open(path) as image:
            head = _describe(image)
            ends_early = _ends_early(path, image.format or "")
        if ends_early:
            read_image(path)  # the ending is unusual: only decoding tells whether pixels are missing
        return head
    except DataError as error:
        return Header(0, 0, 1, "", 0, str(error).removeprefix(f"{path}: "))
    except Exception as error:  # as in read_image
        return Header(0, 0, 1, "", 0, _reason(error))


def read_headers(paths: Sequence[str | Path]) -> list[Header]:
    """``read_header`` for each file, in threads where there are many: a network disk answers slowly."""
    if len(paths) < 64:
        return [read_header(p) for p in paths]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(read_header, paths, chunksize=32))


def decode_errors(paths: Sequence[str | Path]) -> list[str]:
    """Decode every file completely, in threads; "" or the reason why it cannot be decoded, for each."""

    def reason(path: str | Path) -> str:
        try:
            read_image(path)
        except DataError as error:
            return str(error).removeprefix(f"{path}: ")
        return ""

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(reason, paths))


def _describe(image: Image.Image) -> Header:
    source = getattr(image, "filename", "")
    orientation = _orientation(image, source)
    width, height = image.size
    if orientation in _SWAPPED and image.format != "TIFF":  # Pillow reports the size of a TIFF already turned
        width, height = height, width
    return Header(height, width, orientation, image.mode, os.path.getsize(source) if source else 0)


def _orientation(image: Image.Image, source: str) -> int:
    # Asking a PNG without early metadata for its EXIF would decode the whole picture.
    plain_png = image.format == "PNG" and "exif" not in image.info and not _late_metadata(source)
    exif = Image.Image.getexif(image) if plain_png else image.getexif()
    value = exif.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _late_metadata(path: str) -> bool:
    """Whether a PNG has EXIF or XMP after its pixels."""
    if not path:
        return False
    with open(path, "rb") as file:
        file.seek(8)
        pixels_seen = False
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            pixels_seen |= kind == b"IDAT"
            if pixels_seen and kind in (b"eXIf", b"iTXt", b"zTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def _ends_early(path: str | Path, kind: str) -> bool:
    with open(path, "rb") as file:
        start = file.read(12)
        total = file.seek(0, os.SEEK_END)
        file.seek(max(total - _TAIL, 0))
        tail = file.read()
    if kind in ("JPEG", "MPO"):
        return b"\xff\xd9" not in tail  # cannot occur inside the coded pixels
    if kind == "PNG":
        return b"IEND" not in tail
    if kind == "WEBP":
        return total < int.from_bytes(start[4:8], "little") + 8
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a picture"
    if isinstance(error, PermissionError):
        return "may not be read; check its permissions"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow can read (empty, damaged or of another type)"
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return (
            f"more than {limit:.0f} million pixels, Pillow's limit against malicious files; cut it into tiles"
        )
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, OSError) and "truncated" in text else f"cannot be decoded ({text})"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any kind of picture as 8-bit RGB, by the rules at the top; its orientation is not looked at."""
    mode = image.mode
    if mode == "RGB":
        return image
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    elif mode in ("La", "RGBa"):  # premultiplied: divide by alpha before dropping it
        image = image.convert("LA" if mode == "La" else "RGBA")
    return image.convert("RGB")


def _eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale a (h, w) array of integers or floats to 0..255 as the head of this file states."""
    whole = values.dtype.kind in "iu"
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    if whole and 0 <= low and high < 2**16:
        low, high = 0.0, float(next(2**bits - 1 for bits in _DEPTHS if high < 2**bits))
    elif not whole and 0 <= low and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    return np.rint((numbers - low) * (255.0 / max(high - low, 1e-12))).clip(0, 255).astype(np.uint8)
