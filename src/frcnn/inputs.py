"""What users hand in as a picture, and as targets, brought into one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from frcnn.bands import Pixels
from frcnn.config import PreprocessConfig
from frcnn.data.feed.tiles import tile_windows
from frcnn.data.pictures.channels import to_channels
from frcnn.data.pictures.image import RGB, AtLeast, Decoding, read_pixels
from frcnn.model.preprocess import Size, least_size
from frcnn.structures import ImageBatch, Targets

Picture: TypeAlias = "str | Path | Image.Image | np.ndarray | Tensor"


class Seen(NamedTuple):
    """A picture in memory: 8-bit channels, and its (height, width) as the user knows it. A file may have been
    decoded at a smaller one.
    """

    pixels: Pixels | np.ndarray
    size: Size


class Piece(NamedTuple):
    """A picture, or a tile of one, on its way to the network.

    Attributes:
        index: of the picture.
        picture: all of it.
        part: the piece.
        window: where the piece lies, (x1, y1, x2, y2); None: it is the whole picture.
        last: whether it is the picture's last one.
    """

    index: int
    picture: Seen
    part: Seen
    window: tuple[int, int, int, int] | None
    last: bool


def cut_pictures(pictures: Sequence[Picture], spec: PreprocessConfig, how: Decoding = RGB) -> Iterator[Piece]:
    """Read pictures one after another as evaluation does, and cut those that are larger than a tile.

    Args:
        pictures: what users hand in.
        spec: size of the network's pictures, tiles and their overlap.
        how: channels and orientation.

    Raises:
        DataError, ValueError: as ``read_picture``.
    """

    def needed(size: Size) -> Size | None:
        return None if 0 < spec.tile < max(size) else least_size(size, spec)

    for index, picture in enumerate(pictures):
        whole = read_picture(picture, how, needed)
        windows = tile_windows(whole.size, spec.tile, spec.overlap).tolist()
        if len(windows) == 1:
            yield Piece(index, whole, whole, None, True)
            continue
        for k, (x1, y1, x2, y2) in enumerate(windows):
            pixels = whole.pixels
            array = isinstance(pixels, np.ndarray)
            part = Seen(pixels[y1:y2, x1:x2] if array else pixels.crop((x1, y1, x2, y2)), (y2 - y1, x2 - x1))
            yield Piece(index, whole, part, (x1, y1, x2, y2), k == len(windows) - 1)


def read_picture(picture: Picture, how: Decoding = RGB, at_least: AtLeast = None) -> Seen:
    """A file, PIL picture, array or tensor with the channels and orientation that ``how`` says.

    Args:
        picture: what a user hands in.
        how: channels and orientation.
        at_least: as of ``read_pixels``, for a file.

    Raises:
        DataError: naming a file that cannot be read.
        ValueError: naming the shape, type or range of an array that cannot be understood.
    """
    if isinstance(picture, str | Path):
        return Seen(*read_pixels(picture, at_least, how))
    pixels = as_pixels(picture, how)
    size = pixels.shape[:2] if isinstance(pixels, np.ndarray) else (pixels.height, pixels.width)
    return Seen(pixels, (int(size[0]), int(size[1])))


def as_pixels(picture: Image.Image | np.ndarray | Tensor, how: Decoding = RGB) -> Pixels | np.ndarray:
    """A picture in memory with 8-bit channels.

    Raises:
        DataError: when a PIL picture has another number of channels.
        ValueError: naming the shape, type or range that cannot be understood.
    """
    if isinstance(picture, Image.Image):
        turned = ImageOps.exif_transpose(picture) if how.upright else picture
        return to_channels(turned, how.channels, how.bits)
    values = (
        picture.detach().cpu().permute(1, 2, 0).numpy()
        if isinstance(picture, Tensor)
        else np.asarray(picture)
    )
    count = how.channels
    if values.ndim != 3 or values.shape[2] != count:
        want = f"({count}, h, w)" if isinstance(picture, Tensor) else f"(h, w, {count})"
        order = " in RGB order" if count == 3 else ""
        raise ValueError(
            f"a picture of shape {tuple(picture.shape)} cannot be used; {want}{order} is expected"
        )
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"a picture of {values.dtype} cannot be used; give uint8, or floats between 0 and 1")
    if values.size and not (values.min() >= 0 and values.max() <= 1.5):
        raise ValueError(
            f"a float picture must lie in 0..1, this one in {values.min():.3g}..{values.max():.3g}; "
            "divide by 255, or give uint8 (pixels are normalised here, not by the caller)"
        )
    return np.round(values.clip(0, 1) * 255).astype(np.uint8)


def collate_targets(targets: Sequence[Mapping[str, Any]], batch: ImageBatch) -> Targets:
    """Plain per-picture targets in original pixels -> padded ``Targets`` in pixels of the batch."""
    if len(targets) != len(batch):
        raise ValueError(f"{len(targets)} targets for {len(batch)} pictures; give one for each")
    most = max([len(t["labels"]) for t in targets], default=0)
    n, g = len(batch), -(-max(most, 1) // 8) * 8
    boxes, labels = torch.zeros(n, g, 4), torch.full((n, g), -1)
    ignore = torch.zeros(n, g, dtype=torch.bool)
    for i, target in enumerate(targets):  # on the host, before the step
        count = len(target["labels"])
        boxes[i, :count] = torch.as_tensor(target["boxes"], dtype=torch.float32).reshape(-1, 4)
        labels[i, :count] = torch.as_tensor(target["labels"], dtype=torch.int64)
        if "ignore" in target:
            ignore[i, :count] = torch.as_tensor(target["ignore"], dtype=torch.bool)
    scales = batch.scales.cpu()[:, None, [1, 0, 1, 0]]
    return Targets(boxes * scales, labels, ignore).to(batch.pixels.device)


def as_list(images: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture or many -> a list."""
    if isinstance(images, str | Path | Image.Image):
        return [images]
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 3:
        return [images]
    return list(images)
