"""One picture on its way to the network: read, varied, resized, with its boxes; runs inside the workers.

Letters: g objects of a picture, p given proposals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from frcnn.bands import Pixels, blank
from frcnn.config import Config, PreprocessConfig
from frcnn.data.feed.batching import Draw
from frcnn.data.feed.mixing import composes, mixes, varied_view
from frcnn.data.feed.transforms import (
    Variation,
    draw_variation,
    orient_boxes,
    orient_image,
    resize_boxes,
    sample_generator,
    vary_image,
    vary_light,
)
from frcnn.data.feed.views import View, finished, paint, plain_view
from frcnn.data.pictures.image import Decoding, read_pixels
from frcnn.data.sample import DataError, Dataset, Floats, Sample

Size = tuple[int, int]
Prepare = Callable[[Size, PreprocessConfig, float, Callable[[Size | None], Pixels]], Tensor]
"""(original size, specification, scale, read) -> (C, h, w): ``frcnn.model.preprocess.prepare``."""


class Example(NamedTuple):
    """One picture as a worker made it: (C, h, w), objects and given proposals (p, 4) in resized pixels."""

    pixels: Tensor
    sample: Sample
    skipped: bool
    given: Floats | None = None


class Failure(NamedTuple):
    """An unreadable picture on its way out of a worker: an exception would arrive wrapped in a traceback."""

    message: str


class Examples(TorchDataset[Example | Failure]):
    """Reads, varies and resizes one picture."""

    def __init__(self, dataset: Dataset, config: Config, prepare: Prepare, seed: int | None) -> None:
        """``seed`` None: no variation.

        Raises:
            ValueError: when pictures are to be mixed that have given proposals.
        """
        if seed is not None and dataset.proposals is not None and mixes(config.data):
            raise ValueError(
                f"data.mosaic {config.data.mosaic:g} and data.copy_paste {config.data.copy_paste:g} mix "
                "pictures, whose given proposals cannot be mixed; set both to 0, or leave out --proposals"
            )
        self._dataset, self._config, self._prepare, self._seed = dataset, config, prepare, seed
        self._last: tuple[Path, Pixels] | None = None
        self._how = Decoding.of(config)

    def __len__(self) -> int:
        return len(self._dataset)

    def size(self, draw: Draw) -> Size:
        """(height, width) of a picture as it is drawn; (0, 0) where its header could not be read."""
        height, width = self._dataset.pictures.sizes[draw.index].tolist()
        return _turned((height, width), draw.turned)

    def __getitem__(self, draw: Draw) -> Example | Failure:  # type: ignore[override]
        sample = self._dataset[draw.index]
        try:
            return self._read(sample, draw)
        except DataError as error:
            if self._config.data.on_bad_image == "error":
                return Failure(str(error))
        if self._seed is not None and mixes(self._config.data):
            try:
                return self._read(sample, draw, mix=False)  # it may have been another one that is bad
            except DataError:
                pass
        return self._blank(sample, draw)

    def _read(self, sample: Sample, draw: Draw, mix: bool = True) -> Example:
        if 0 in sample.size:  # the header could not be read then: say why, or read it now
            sample = replace(sample, size=read_pixels(sample.path, None, self._how)[1])
        variation, view = Variation(), None
        proposals = self._dataset.proposals
        given = None if proposals is None else proposals.boxes(draw.index)
        frame = sample.size
        if self._seed is not None:
            data = self._config.data
            generator = sample_generator(self._seed, draw.epoch, draw.index)
            variation = draw_variation(data, generator, draw.turned)
            view = self._view(sample, given, draw, mix) if composes(data) else None
        if view is not None:
            sample, given = finished(view, self._config.data.min_visible)
        pixels = self._pixels(sample, frame, view, variation, draw.scale)
        size = (pixels.shape[1], pixels.shape[2])

        def carried(boxes: Floats, ignore: np.ndarray) -> tuple[Floats, np.ndarray]:
            boxes = orient_boxes(boxes, frame, variation.flip, variation.turns)
            return resize_boxes(boxes, ignore, _turned(frame, draw.turned), size)

        boxes, ignore = carried(sample.boxes, sample.ignore)
        if given is not None:
            given = carried(given, np.zeros(len(given), bool))[0]
            given = given.clip(0, np.array([size[1], size[0]] * 2, np.float32))
        shown = _turned(frame, draw.turned)
        return Example(pixels, replace(sample, boxes=boxes, ignore=ignore, size=shown), False, given)

    def _view(self, sample: Sample, given: Floats | None, draw: Draw, mix: bool) -> View | None:
        """What is seen instead of the whole picture; None: the whole picture."""
        assert self._seed is not None
        plain = plain_view(draw.index, sample, given)
        stream = partial(sample_generator, self._seed, draw.epoch, draw.index)
        data = self._config.data
        view = varied_view(plain, data, len(self), self._dataset.__getitem__, stream, mix)
        return None if view is plain else view

    def _pixels(
        self, sample: Sample, frame: Size, view: View | None, variation: Variation, scale: float
    ) -> Tensor:
        """(C, h, w) of a picture of size ``frame`` before it is turned."""
        turned = variation.turns % 2 == 1
        spec = self._config.preprocess

        def read(least: Size | None) -> Pixels:
            wanted = None if least is None else _turned(least, turned)
            if view is None:
                return vary_image(self._decoded(sample, wanted), variation, least)
            ground = [round(255 * mean) for mean in spec.mean]
            colour = partial(vary_light, variation=variation)
            image = paint(view, wanted or frame, self._other, ground, colour)
            return orient_image(image, variation.flip, variation.turns)

        return self._prepare(_turned(frame, turned), spec, scale, read)

    def _other(self, index: int, least: Size) -> Pixels:
        return self._decoded(self._dataset[index], least)

    def _decoded(self, sample: Sample, least: Size | None) -> Pixels:
        """A picture, or a tile of one, from its file."""
        if sample.window is not None:
            return self._tile(sample.path, sample.window)
        image, size = read_pixels(sample.path, least, self._how)
        if size != sample.size and 0 not in sample.size:
            raise DataError(
                f"{sample.path}: the picture has {size[0]}x{size[1]} pixels (height x width), "
                f"{sample.size[0]}x{sample.size[1]} when the data set was opened; open it again"
            )
        return image

    def _tile(self, path: Path, window: tuple[int, int, int, int]) -> Pixels:
        if self._last is None or self._last[0] != path:  # tiles of one file come one after another
            self._last = None
            self._last = path, read_pixels(path, None, self._how)[0]
        image = self._last[1]
        if window[2] > image.width or window[3] > image.height:
            raise DataError(
                f"{path}: the picture has {image.height}x{image.width} pixels (height x width), fewer than "
                "when the data set was opened; open it again"
            )
        return image.crop(window)

    def _blank(self, sample: Sample, draw: Draw) -> Example:
        side = self._config.preprocess.min_size
        size = _turned(sample.size if 0 not in sample.size else (side, side), draw.turned)
        black = blank((size[1], size[0]), [0] * self._config.preprocess.channels)
        pixels = self._prepare(size, self._config.preprocess, draw.scale, lambda _: black)
        everything = np.array([[0, 0, pixels.shape[2], pixels.shape[1]]], np.float32)
        yes = np.array([True])
        nothing = Sample(sample.path, sample.image_id, size, everything, np.array([-1]), yes, crowd=yes)
        none = None if self._dataset.proposals is None else np.zeros((0, 4), np.float32)
        return Example(pixels, nothing, True, none)


def _turned(size: Size, turned: bool) -> Size:
    return (size[1], size[0]) if turned else size
