"""The detector as its users see it: make, load, import, predict, trace, save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from frcnn.bands import Bands, viewable
from frcnn.config import Config
from frcnn.data.pictures.image import Decoding
from frcnn.inputs import Picture, Seen, as_list, collate_targets, cut_pictures, read_picture
from frcnn.model.compiled import Mode, check_compile, compile_detector
from frcnn.model.detector import Network, build_network, detect
from frcnn.model.parts import BoxHeadFactory, LossFunction, Matcher, Parts, RpnHeadFactory, Sampler
from frcnn.model.postprocess import Limits
from frcnn.model.preprocess import Size, least_size, pad_batch, resize_image, target_size
from frcnn.model.proposer import ProposalNetwork
from frcnn.model.seams import Found, Tile, merge_pieces, seam_iou
from frcnn.precision import Requested, choose_precision
from frcnn.recipes import recipe
from frcnn.results import Result
from frcnn.settings import with_settings
from frcnn.structures import ImageBatch, Trace
from frcnn.weights.checkpoint import Checkpoint, load_checkpoint, restore, save_checkpoint
from frcnn.weights.imagenet import load_pretrained
from frcnn.weights.torchvision import import_config, import_state


@dataclass
class Detector:
    """A network with everything that is needed to use it.

    Attributes:
        model: the network, on its device.
        config: the configuration it was made with.
        classes: names; a label is an index into them.
        thresholds: score threshold of each class (where F1 was best in validation), or None.
        metrics: figures stored with the weights.
        notes: what was loaded or frozen when it was made, a line each.
    """

    model: Network
    config: Config
    classes: tuple[str, ...]
    thresholds: tuple[float, ...] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_recipe(
        cls,
        name: str,
        classes: Sequence[str],
        seed: int = 0,
        *,
        matcher: Matcher | None = None,
        sampler: Sampler | None = None,
        rpn_head: RpnHeadFactory | None = None,
        box_head: BoxHeadFactory | None = None,
        loss: LossFunction | None = None,
    ) -> Detector:
        """A fresh detector of a named recipe, its backbone pretrained where the recipe says so.

        Args:
            name: one of ``frcnn recipes``.
            classes: names, in the order of their labels.
            seed: of the random weights.
            matcher: replaces the anchor matcher; this and the other parts: see ``docs/extend.md``.
            sampler: replaces the sampling of anchors and RoIs.
            rpn_head: makes another RPN head.
            box_head: makes another box head.
            loss: replaces the losses.

        Raises:
            ConfigError: for an unknown recipe, naming the nearest.
        """
        return cls.from_config(recipe(name), classes, seed, Parts(matcher, sampler, rpn_head, box_head, loss))

    @classmethod
    def from_config(
        cls, config: Config, classes: Sequence[str], seed: int = 0, parts: Parts | None = None
    ) -> Detector:
        """A fresh detector of any configuration."""
        names = _class_names(classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_network(config, len(names), parts)
        loaded = load_pretrained(model)
        model.eval()
        return cls(model, config, names, notes=(str(loaded),) if loaded else ())

    @classmethod
    def load(cls, path: str | Path, parts: Parts | None = None) -> Detector:
        """A detector from a model file that ``save`` or training wrote, or published weights by name:
        ``torchvision:fasterrcnn_resnet50_fpn_v2`` is fetched where the cache has no copy.

        Raises:
            CheckpointError: when the file cannot be used; weights are never loaded in part.
        """
        stored = load_checkpoint(path)
        model = build_network(stored.config, len(stored.classes), parts)
        restore(model, stored.state, str(path))
        model.eval()
        return cls(model, stored.config, stored.classes, stored.thresholds, stored.metrics)

    @classmethod
    def from_torchvision(
        cls,
        source: nn.Module | Mapping[str, Tensor],
        arch: str,
        classes: Sequence[str],
        bn_eps: float | None = None,
    ) -> Detector:
        """A detector equal to one of torchvision's.

        Args:
            source: the module (its thresholds and sizes are read too) or its state dict.
            arch: ``fasterrcnn_resnet50_fpn``, ``fasterrcnn_resnet50_fpn_v2``, or one of the two
                ``fasterrcnn_mobilenet_v3_large_...``; or our recipes' names.
            classes: names without the background, in torchvision's order.
            bn_eps: epsilon of the batch norm, which a state dict does not hold; None: as torchvision builds
                it around its published weights (0.0 for the frozen one of ``fasterrcnn_resnet50_fpn``, else
                1e-5).
        """
        names = _class_names(classes)
        config = import_config(source, arch, bn_eps)
        model = build_network(config, len(names))
        restore(model, import_state(source, config), f"torchvision's {arch}")
        model.eval()
        eps = config.backbone.norm_eps
        return cls(model, config, names, notes=(f"batch norm: {config.backbone.norm}, epsilon {eps}",))

    def save(self, path: str | Path) -> None:
        """Write a model file (safetensors) with the configuration, classes, thresholds and metrics inside."""
        state = self.model.state_dict()
        save_checkpoint(path, Checkpoint(state, self.config, self.classes, self.thresholds, self.metrics))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Detector:
        """Move the weights."""
        self.model.to(device)
        return self

    def with_tiles(self, tile: int | None, overlap: float | None = None) -> Detector:
        """The same network, which cuts pictures into tiles from now on; ``frcnn.evaluate`` then does, too.

        Args:
            tile: side in pixels of the picture; 0: whole pictures; None: as it is.
            overlap: share of a tile that the next one has in common with it; None: as it is.

        Raises:
            ConfigError: for a value out of range.
        """
        given = {"preprocess.tile": tile, "preprocess.overlap": overlap}
        settings = [f"{key}={value}" for key, value in given.items() if value is not None]
        return replace(self, config=with_settings(self.config, settings, "tiles")) if settings else self

    def compile(
        self, mode: Mode = "regional", sizes: Sequence[Size] | None = None, images: int | None = None
    ) -> Detector:
        """Compile by ``torch.compile``, from the next prediction on; what is found stays the same.

        The first batch of every shape takes the time of compiling; ``self.model.compiled.summary()`` tells
        how long. Batches of other shapes run as without.

        Args:
            mode: ``regional``: backbone, pyramid and RPN head as one graph, the box head as another;
                ``step``: everything as one.
            sizes: at most six padded (height, width) to compile for; None: the first that come, or for
                ``frcnn.evaluate`` those that come most often.
            images: pictures of a batch; None: as many as the first one has.

        Returns:
            The detector itself.

        Raises:
            CompileError: when that does not work here, with what to do.
        """
        check_compile(self.model, mode)
        compile_detector(self.model, mode, images=images, sizes=sizes)
        return self

    def predict(
        self,
        images: Picture | Sequence[Picture],
        score: float | None = None,
        max_dets: int | None = None,
        batch: int | None = None,
        precision: Requested | None = None,
        tile: int | None = None,
        overlap: float | None = None,
    ) -> list[Result]:
        """Find objects.

        Args:
            images: a path, a PIL picture, a uint8 RGB array (h, w, 3), a tensor (3, h, w) of uint8 or of
                floats in 0..1, or a sequence of these; sizes may differ.
            score: least score; None: the thresholds that the checkpoint stores, else those of the
                configuration.
            max_dets: most detections of a picture; None: the configuration's (for tiles: of each tile).
            batch: pictures (or tiles) at a time; None: ``eval.batch`` of the configuration.
            precision: number format; None: ``eval.precision`` of the configuration, which by default is bf16
                where that is faster. With ``fp32`` results equal those of ``trace`` and of an imported model.
            tile: cut pictures that are larger into tiles of this side, in their own pixels, and merge what is
                found (``frcnn.model.seams``); 0: never; None: as the configuration says.
            overlap: share of a tile that the next one has in common with it, 0.05 to 0.75; None: the
                configuration's.

        Returns:
            One result a picture, in order, boxes in original pixels.
        """
        return list(self.predict_each(images, score, max_dets, batch, precision, tile, overlap))

    def predict_each(
        self,
        images: Picture | Sequence[Picture],
        score: float | None = None,
        max_dets: int | None = None,
        batch: int | None = None,
        precision: Requested | None = None,
        tile: int | None = None,
        overlap: float | None = None,
    ) -> Iterator[Result]:
        """As ``predict``, one result after another, so that a large folder never is in memory as a whole."""
        pictures = as_list(images)
        limits = self._limits(score, max_dets)
        step = batch or self.config.eval.batch
        chosen = choose_precision(precision or self.config.eval.precision, self.device)
        spec = self.with_tiles(tile, overlap).config.preprocess
        pieces = cut_pictures(pictures, spec, Decoding.of(self.config))
        most = self.config.max_dets if max_dets is None else max_dets
        tiles: list[Tile] = []
        while part := list(islice(pieces, step)):
            with torch.inference_mode(), chosen.autocast(self.device.type):
                found = detect(self.model, self._batch([piece.part for piece in part]), limits).per_image()
            for piece, values in zip(part, found, strict=True):
                result = Found(*(v.numpy() for v in values))
                if piece.window is None:
                    capped = len(result.scores) >= most
                else:
                    tiles.append(Tile(piece.window, result))
                    if not piece.last:
                        continue
                    result = merge_pieces(tiles, seam_iou(self.config)).take(slice(max_dets))
                    capped = max(len(found.scores) for found in (result, *(t.found for t in tiles))) >= most
                    tiles = []
                yield replace(self._result(pictures[piece.index], piece.picture, result), capped=capped)

    def propose_each(
        self,
        images: Picture | Sequence[Picture],
        batch: int | None = None,
        precision: Requested | None = None,
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """What the region proposal network points at, under the test limits, one picture after another.

        Args:
            images: as for ``predict``.
            batch: pictures at a time; None: ``eval.batch`` of the configuration.
            precision: number format; None: ``eval.precision`` of the configuration.

        Yields:
            Boxes (p, 4) in original pixels and objectness (p,), best first.

        Raises:
            ValueError: when the detector has no region proposal network.
        """
        model = self.model
        if not isinstance(model, ProposalNetwork):
            raise ValueError(f"recipe {self.config.recipe!r} has no region proposal network: no proposals")
        pictures, step = as_list(images), batch or self.config.eval.batch
        chosen = choose_precision(precision or self.config.eval.precision, self.device)
        for start in range(0, len(pictures), step):
            with torch.inference_mode(), chosen.autocast(self.device.type):
                found = model.suggest(self._read(pictures[start : start + step]))
            for boxes, scores, _ in found.per_image():
                yield boxes.float().numpy(), scores.float().numpy()

    def trace(
        self, images: Picture | Sequence[Picture], targets: Sequence[Mapping[str, Any]] | None = None
    ) -> Trace:
        """Every value that passed between the rooms for these pictures: the path that ``predict`` takes.

        Args:
            images: as for ``predict``; they form one batch.
            targets: for each picture ``{"boxes": (g, 4) original pixels, "labels": (g,), "ignore": (g,)
                optional}``; then the trace holds matches, samples and losses too (sampling noise of seed 0).
        """
        batch = self._read(as_list(images))
        if targets is None:
            with torch.no_grad():
                return self.model.trace(batch)
        objects = collate_targets(targets, batch)
        return self.model.trace(batch, objects, self.model.draw_noise(batch, objects, 0), detect=True)

    def _limits(self, score: float | None, max_dets: int | None) -> Limits:
        for name, value, low in (("score", score, 0), ("max_dets", max_dets, 1)):
            if value is not None and value < low:
                raise ValueError(f"{name} must be at least {low}, got {value}")
        floors = None
        if score is None and self.thresholds is not None:
            floors = torch.tensor(self.thresholds, device=self.device)
        return Limits(score, floors, max_dets)

    def _result(self, picture: Picture, read: Seen, found: Found) -> Result:
        if isinstance(picture, str | Path):
            upright = self.config.data.exif == "apply"
            return Result(*found, self.classes, path=Path(picture), size=read.size, upright=upright)
        shown = read.pixels if self.config.preprocess.channels == 3 else viewable(read.pixels)
        assert not isinstance(shown, Bands)
        return Result(*found, self.classes, size=read.size, picture=shown)

    def _read(self, pictures: Sequence[Picture]) -> ImageBatch:
        how, least = Decoding.of(self.config), partial(least_size, spec=self.config.preprocess)
        return self._batch([read_picture(picture, how, least) for picture in pictures])

    def _batch(self, pictures: Sequence[Seen]) -> ImageBatch:
        if any(module.training for module in self.model.modules()):  # else kept weights would be made anew
            self.model.eval()  # dropout and batch norm; the path itself depends on arguments only
        spec = self.config.preprocess
        pixels = [resize_image(p.pixels, spec, target_size(*p.size, spec)) for p in pictures]
        return pad_batch(pixels, [p.size for p in pictures], spec).to(self.device)


def _class_names(classes: Sequence[str]) -> tuple[str, ...]:
    names = (
        (classes,) if isinstance(classes, str) else tuple(classes)
    )  # one name is one class, not its letters
    if len(set(names)) != len(names):
        raise ValueError(f"class names must differ, got {list(names)}")
    return names
