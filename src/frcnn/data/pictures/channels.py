"""Picture files as any number of 8-bit channels: Pillow's kinds, pages of a TIFF, and ``.npy`` arrays.

One and three channels come from every kind of file (gray is repeated, colours are made gray). Two, and more
than three, come from files that hold exactly so many: an array (height, width, channels), a TIFF with one
gray page for each, or Pillow's own kinds (RGBA, CMYK, LA), whose channels are kept as stored.

Letters: h, w the size of a picture, C channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frcnn.bands import Bands, Pixels, from_array
from frcnn.data.sample import DataError

ARRAYS = ".npy"
"""The ending of files with an array, in any case."""
_DEPTHS = (8, 10, 12, 14, 16)
AUTO = 0
"""Stands for the least depth that holds a picture's largest value."""
_AS_STORED = {2: ("LA",), 4: ("RGBA", "CMYK", "RGBX")}


def is_array(path: str | Path) -> bool:
    """Whether a file is one of numpy's by its name."""
    return str(path).lower().endswith(ARRAYS)


def array_size(path: str | Path) -> tuple[int, int, int]:
    """(h, w, C) of an array; its values are not read.

    Raises:
        DataError, OSError, ValueError: when it is no picture.
    """
    height, width, *channels = _mapped(path).shape
    return height, width, channels[0] if channels else 1


def read_array(path: str | Path, channels: int | None, bits: int = AUTO) -> Pixels:
    """An array as a picture of C channels; None: of as many as it has. ``bits`` as for ``eight_bits``.

    Raises:
        DataError, OSError, ValueError: when it is no picture, or has another number of channels.
    """
    values = np.asarray(_mapped(path))
    if values.ndim == 2:
        values = values[:, :, None]
    found = values.shape[2]
    if channels is None or channels == found:
        return from_array(eight_bits(values, bits, path))
    if found == 1 and channels == 3:
        return from_array(np.repeat(eight_bits(values, bits, path), 3, 2))
    if found == 3 and channels == 1:
        return Image.fromarray(eight_bits(values, bits, path)).convert("L")
    raise other_number(path, f"{found} channels", found, channels)


def _mapped(path: str | Path) -> NDArray[np.generic]:
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.ndim not in (2, 3) or 0 in values.shape:
        shape = getattr(values, "shape", ())
        raise DataError(f"{path}: an array of shape {shape}; (height, width, channels) is needed")
    if values.dtype.kind not in "iuf":
        raise DataError(f"{path}: an array of {values.dtype}; whole numbers or floats are needed")
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 2**62)
    if values.shape[0] * values.shape[1] > limit:
        raise DataError(f"{path}: {too_large(values.shape[0] * values.shape[1])}")
    return values


def holds(mode: str, channels: int) -> bool:
    """Whether a file with this mode in its header (``image.Header``) can be read as C channels."""
    kind = mode.partition(" ")[2]
    if channels in (1, 3):
        return kind != "bands" or mode in ("1 bands", "3 bands")
    return mode in (f"{channels} bands", f"{channels} pages", *_AS_STORED.get(channels, ()))


def too_large(pixels: int) -> str:
    """Why a picture of so many pixels is refused."""
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return f"{pixels:,} pixels, and Pillow's limit against malicious files is {limit:,}; cut it into tiles"


def other_number(path: str | Path, kind: str, found: int, channels: int) -> DataError:
    """The error for a file that does not hold what ``preprocess.channels`` asks for."""
    return DataError(
        f"{path}: holds {kind}, and preprocess.channels is {channels}; "
        f"use --set preprocess.channels={found}, or other files"
    )


def to_channels(
    image: Image.Image, channels: int, bits: int = AUTO, path: str | Path = "this picture"
) -> Pixels:
    """A loaded picture as C channels; its orientation is not looked at. ``bits`` as for ``eight_bits``.

    Raises:
        DataError: for a picture that does not have so many, where C is neither 1 nor 3, or has more bits.
    """
    if channels == 3:
        return to_rgb(image, bits, path)
    if channels == 1:
        return to_rgb(image, bits, path).convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode not in _AS_STORED.get(channels, ()):
        found = len(image.getbands())
        raise other_number(path, f"{found} channels ({image.mode})", found if found < 4 else 4, channels)
    return Bands(image.split())


def stacked_pages(image: Image.Image, channels: int, bits: int, path: str | Path) -> Pixels:
    """The first C pages of an open TIFF as the channels of one picture, scaled together.

    Raises:
        DataError: when there are more or fewer, or they are not gray pictures of one size, or have more bits.
    """
    count = int(getattr(image, "n_frames", 1))
    if count != channels:
        raise other_number(path, f"{count} pages", count, channels)
    pages: list[NDArray[np.generic]] = []
    for page in range(count):
        image.seek(page)
        values: NDArray[np.generic] = np.asarray(image)
        if values.ndim != 2 or (pages and values.shape != pages[0].shape):
            raise DataError(
                f"{path}: page {page + 1} has shape {values.shape}; the pages of a picture of {channels} "
                "channels must be gray and of one size"
            )
        pages.append(np.where(values, 255, 0).astype(np.uint8) if values.dtype == bool else values)
    return from_array(eight_bits(np.stack(pages, 2), bits, path))


def to_rgb(image: Image.Image, bits: int = AUTO, path: str | Path = "this picture") -> Image.Image:
    """Any kind of picture as 8-bit RGB, by the rules of ``data/pictures/image.py``; it is not turned."""
    mode = image.mode
    if mode == "RGB":
        return image
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(eight_bits(np.asarray(image), bits, path)).convert("RGB")
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    elif mode in ("La", "RGBa"):  # premultiplied: divide by alpha before dropping it
        image = image.convert("LA" if mode == "La" else "RGBA")
    return image.convert("RGB")


def eight_bits(
    values: NDArray[np.generic], bits: int = AUTO, path: str | Path = "this picture"
) -> NDArray[np.uint8]:
    """Scale integers or floats to 0..255 as the head of ``data/pictures/image.py`` states; uint8 stays.

    Args:
        values: any shape.
        bits: the depth by which integers are scaled; ``AUTO``: that of the picture.
        path: for the message.

    Raises:
        DataError: when integers do not fit into ``bits``.
    """
    if values.dtype == np.uint8:
        return values  # type: ignore[return-value]
    whole = values.dtype.kind in "iu"
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    if whole and bits != AUTO:
        if low < 0 or high >= 2**bits:
            raise DataError(
                f"{path}: holds values from {low:.0f} to {high:.0f}, and preprocess.bits is {bits} "
                f"(0 to {2**bits - 1}); use more bits, or --set preprocess.bits=auto"
            )
        low, high = 0.0, float(2**bits - 1)
    elif whole and 0 <= low and high < 2**16:
        low, high = 0.0, float(next(2**bits - 1 for bits in _DEPTHS if high < 2**bits))
    elif not whole and 0 <= low and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    return np.rint((numbers - low) * (255.0 / max(high - low, 1e-12))).clip(0, 255).astype(np.uint8)
