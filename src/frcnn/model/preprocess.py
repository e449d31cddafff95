"""Room 2: a picture becomes the network's pixels: resize, pad, normalise, by one specification.

Letters: N images, C channels, H, W padded size; h, w the size of one picture. Sizes are (height, width).

The specification (``PreprocessConfig``) is stored in the checkpoint and used by every command, so that
training, evaluation and prediction see the same pixels of a file, to the bit. Its two methods differ in what
they promise:

* ``pillow``: JPEG files may be decoded at reduced size, an antialiased 8-bit resize, uint8 up to the device,
  where ``normalise`` makes floats and sets the padding to 0.
* ``torchvision``: floats are normalised first, then resized bilinearly without antialias, and padded with 0:
  exactly what torchvision's detectors do (``GeneralizedRCNNTransform``), so their weights work unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frcnn.bands import Bands, channels_of, from_array, to_array, viewable
from frcnn.config import PreprocessConfig
from frcnn.structures import ImageBatch

Size = tuple[int, int]
Picture = Image.Image | Bands | np.ndarray


def target_size(height: int, width: int, spec: PreprocessConfig, scale: float = 1.0) -> Size:
    """The (height, width) that a picture of ``height`` x ``width`` pixels is resized to.

    The short side becomes ``min_size`` unless the long side would pass ``max_size``. ``torchvision`` rounds
    down, as its detectors do, ``pillow`` to the nearest pixel; both give at least 1. ``scale`` multiplies
    both limits (jitter). ``spec.fixed_size`` wins over everything.

    Raises:
        ValueError: when a side or the scale is not positive.
    """
    if height <= 0 or width <= 0 or scale <= 0:
        raise ValueError(f"a picture of {height}x{width} at scale {scale} has no pixels; all must be above 0")
    if spec.fixed_size is not None:
        return spec.fixed_size
    factor = min(spec.min_size * scale / min(height, width), spec.max_size * scale / max(height, width))
    if spec.method == "torchvision":
        return max(int(height * factor), 1), max(int(width * factor), 1)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def least_size(original_size: Size, spec: PreprocessConfig, scale: float = 1.0) -> Size | None:
    """The least (height, width) that a picture file of ``original_size`` may be decoded at; None: its own.

    ``torchvision`` always wants all of it, because a reduced decode changes the pixels.
    """
    return None if spec.method == "torchvision" else target_size(*original_size, spec, scale)


def resize_image(image: Picture, spec: PreprocessConfig, size: Size) -> Tensor:
    """Resize one picture to ``size``.

    Args:
        image: an 8-bit picture of ``spec.channels`` channels, or uint8 (h, w, C).
        spec: the method, and for ``torchvision`` mean and standard deviation.
        size: (height, width) wanted, from ``target_size``.

    Returns:
        (C, height, width): uint8 for ``pillow``, normalised float32 for ``torchvision``. Never shares memory
        with the input.

    Raises:
        ValueError: when the picture has other channels, or not 8 bits.
    """
    _check(image, spec.channels)
    if spec.method == "torchvision":
        # (h, w, C) -> (C, h, w), contiguous: the layout that torchvision resizes
        values = np.array(image) if isinstance(image, np.ndarray) else to_array(image)
        pixels = torch.from_numpy(values).permute(2, 0, 1).contiguous()
        floats = (pixels.float() / 255 - _channels(spec.mean, pixels)) / _channels(spec.std, pixels)
        return torch.nn.functional.interpolate(floats[None], size, mode="bilinear", align_corners=False)[0]
    picture = from_array(image) if isinstance(image, np.ndarray) else image
    if picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=None)
    return torch.from_numpy(to_array(picture)).permute(2, 0, 1)


def prepare(
    original_size: Size, spec: PreprocessConfig, scale: float, read: Callable[[Size | None], Picture]
) -> Tensor:
    """Choose the size, read the picture no larger than needed, resize it.

    Args:
        original_size: (height, width) of the picture file.
        spec: the specification.
        scale: factor on the limits of the size, 1 outside training.
        read: gives the picture; its argument is what ``least_size`` returns.

    Returns:
        What ``resize_image`` returns.
    """
    size = target_size(*original_size, spec, scale)
    return resize_image(read(least_size(original_size, spec, scale)), spec, size)


def pad_batch(
    images: Sequence[Tensor],
    original_sizes: Sequence[Size],
    spec: PreprocessConfig,
    padded_size: Size | None = None,
) -> ImageBatch:
    """Put pictures of different sizes into one batch, each at the top left, the rest 0.

    Args:
        images: N tensors (C, h, w) of one dtype, from ``resize_image``.
        original_sizes: (height, width) of each picture file.
        spec: ``pad_multiple`` rounds the largest height and width up.
        padded_size: exactly this (H, W) instead, for a run with few shapes.

    Returns:
        A batch in channels-last memory, not yet normalised where the pictures are uint8.

    Raises:
        ValueError: for no pictures, differing counts, or a ``padded_size`` that is too small.
    """
    if not images or len(images) != len(original_sizes):
        raise ValueError(
            f"{len(images)} pictures with {len(original_sizes)} original sizes; give one of each"
        )
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    largest = max(h for h, _ in sizes), max(w for _, w in sizes)
    height, width = padded_size or [-(-side // spec.pad_multiple) * spec.pad_multiple for side in largest]
    if height < largest[0] or width < largest[1]:
        raise ValueError(f"padded_size {(height, width)} is smaller than a resized picture, {largest}")
    pixels = torch.zeros((len(images), height, width, images[0].shape[0]), dtype=images[0].dtype)
    pixels = pixels.permute(0, 3, 1, 2)  # (N, C, H, W), channels-last in memory
    for row, image in zip(pixels, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    resized = torch.tensor(sizes, dtype=torch.float32)
    original = torch.tensor(list(original_sizes), dtype=torch.float32)
    return ImageBatch(pixels, resized, resized / original, original)


def normalise(batch: ImageBatch, spec: PreprocessConfig) -> ImageBatch:
    """Turn uint8 pixels into (pixel / 255 - mean) / std as float32 on their device, the padding into 0.

    A batch of floats is returned as it is: its pictures were normalised before they were resized.
    """
    pixels = batch.pixels
    if pixels.is_floating_point():
        return batch
    factor = _channels([1 / (255 * std) for std in spec.std], pixels)
    offset = _channels([-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)], pixels)
    floats = torch.addcmul(offset, pixels.float(), factor)  # (N, C, H, W)
    rows = torch.arange(pixels.shape[2], device=pixels.device) < batch.sizes[:, :1]  # (N, H)
    columns = torch.arange(pixels.shape[3], device=pixels.device) < batch.sizes[:, 1:]  # (N, W)
    inside = rows[:, None, :, None] & columns[:, None, None, :]  # (N, 1, H, W)
    return replace(batch, pixels=floats.masked_fill_(~inside, 0.0))


def to_uint8(images: ImageBatch, index: int, spec: PreprocessConfig) -> np.ndarray:
    """One picture of a batch as the network sees it, without padding and normalisation -> (h, w, 3) uint8.

    Of more than three channels the first three are shown.
    """
    height, width = (int(side) for side in images.sizes[index].tolist())
    pixels = images.pixels[index, :, :height, :width].permute(1, 2, 0).cpu()
    if not pixels.is_floating_point():
        return _shown(pixels.numpy())
    restored = pixels * pixels.new_tensor(spec.std) + pixels.new_tensor(spec.mean)
    return _shown(np.asarray((restored * 255).round().clamp(0, 255).byte().numpy()))


def _shown(values: np.ndarray) -> np.ndarray:
    return values if values.shape[2] == 3 else np.asarray(viewable(values))


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    """(C, 1, 1) float32, filled on the device of ``like``: a copy from the host would wait for the device."""
    return torch.cat([torch.full((1, 1, 1), v, dtype=torch.float32, device=like.device) for v in values])


def _check(image: Picture, channels: int) -> None:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
            order = " in RGB order" if channels == 3 else ""
            raise ValueError(
                f"an array of {image.dtype} {image.shape}; uint8 (height, width, {channels}){order} needed"
            )
        return
    mode = {1: "L", 3: "RGB"}.get(channels, "")
    if mode and isinstance(image, Image.Image) and image.mode != mode:
        raise ValueError(f"a picture of mode {image.mode!r}; use image.convert({mode!r}) first")
    if channels_of(image) != channels:
        raise ValueError(
            f"a picture of {channels_of(image)} channels, and preprocess.channels is {channels}; "
            "give the pictures that the model was made for"
        )
