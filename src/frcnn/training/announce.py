"""What a run prints before its first step: classes, pictures, what is frozen, how pictures are made, anchors.

Letters: K classes, m boxes, B anchors of a cell, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from frcnn.config import Config
from frcnn.data.findings import TITLES, CheckReport
from frcnn.data.naming import shown_names, source_numbers
from frcnn.data.sample import Dataset, Floats
from frcnn.model.anchors import Anchors
from frcnn.model.detector import Network
from frcnn.model.norms import FrozenNorm
from frcnn.model.points import Points
from frcnn.model.preprocess import target_size
from frcnn.model.stem import describe
from frcnn.survey.coverage import LOW_IOU, best_anchor_iou, coverage
from frcnn.survey.lines import coverage_text
from frcnn.survey.sizes import heights_widths, resized_boxes

FEW_BOXES = 20
"""A class with fewer boxes is warned about."""
BATCH_FOR_NORM = 4
"""Trained batch norm with fewer pictures a batch is warned about."""


def class_table(train: Dataset, val: Dataset | None) -> list[str]:
    """Lines ``id  name  source-id  images  boxes`` of the training pictures, and how many of them are
    background. The source id is the number that the files have for the class.
    """
    names, boxes, images = shown_names(train), train.class_counts(), train.class_images()
    numbers = source_numbers(train)
    width = max(len("name"), *(len(name) for name in names))
    wide = max(len("source-id"), *(len(number) for number in numbers))
    lines = [f"{'id':>4}  {'name':<{width}}  {'source-id':>{wide}}  {'images':>7}  {'boxes':>8}"]
    for i, name in enumerate(names):
        few = "  few boxes" if boxes[i] < FEW_BOXES else ""
        counts = f"{numbers[i]:>{wide}}  {images[i]:>7}  {boxes[i]:>8}"
        lines.append(f"{i:>4}  {name:<{width}}  {counts}{few}")
    for title, part in (("train", train), ("val", val)):
        if part is not None:
            empty, ignored = int(part.background().sum()), int(part.objects.ignore.sum())
            text = f"{title} images {len(part)}: {len(part) - empty} with boxes, {empty} background (kept)"
            lines.append(text + (f"; {ignored} boxes ignored" if ignored else ""))
    return lines


def tile_lines(pictures: Dataset, tiles: Dataset, config: Config) -> list[str]:
    """What the training pictures were cut into; nothing where they are whole."""
    if not len(tiles.pictures.windows):
        return []
    spec, empty = config.preprocess, int(tiles.background().sum())
    return [
        f"tiles of {spec.tile} px, overlap {spec.overlap:g}: {len(pictures)} training pictures give "
        f"{len(tiles)} tiles, {empty} of them without a box, {len(tiles.objects.boxes)} boxes "
        f"({int(tiles.objects.ignore.sum())} ignored)"
    ]


def check_notes(report: CheckReport) -> list[str]:
    """What the data check found and what becomes of it, a line for every kind."""
    flags = [f"D20 {line}" for line in report.flag_lines()]
    return flags + [
        f"{group[0].code} {TITLES.get(group[0].code, '')} ({len(group)})"
        + (f": {group[0].action}" if group[0].action else "")
        for group in report.groups()
        if group[0].code != "D20"
    ]


def decoding_line(report: CheckReport, pictures: Dataset) -> str:
    """Whether the data check decoded the pictures, so that damaged ones are known before the first step."""
    count = report.counts.get("images", len(pictures))
    if report.decoded:
        return f"all {count} pictures were decoded before the first step"
    pixels = int(pictures.pictures.sizes.astype(np.int64).prod(1).sum())
    return (
        f"the {count} pictures ({pixels / 1e6:,.0f} million pixels) were not decoded before the first step: "
        "damaged ones show when they are read; --decode or frcnn check DATA --decode finds them"
    )


def model_lines(network: Network, config: Config) -> tuple[str, str]:
    """What is trained and what is frozen; how pictures are prepared."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    places = sorted(
        {".".join(n.split(".")[:3]) for n, p in network.named_parameters() if not p.requires_grad}
    )
    shown = f" ({', '.join(places[:4])}{', ...' if len(places) > 4 else ''})" if places else ""
    spec = config.preprocess
    size = (
        f"{spec.fixed_size[0]}x{spec.fixed_size[1]}"
        if spec.fixed_size
        else f"short side {spec.min_size}, long side at most {spec.max_size}"
    )
    kinds = {1: "gray", 3: "RGB"}.get(spec.channels, f"{spec.channels} channels")
    stages = f"stages frozen: {', '.join(network.frozen)}; " if network.frozen else ""
    return (
        f"trainable {trainable / 1e6:.1f} M / frozen {frozen / 1e6:.1f} M{shown}; {stages}"
        f"backbone norm: {_norm_of(network)}",
        f"pictures: {size}, padded to a multiple of {spec.pad_multiple}, {kinds}, "
        f"mean {_numbers(spec.mean)}, std {_numbers(spec.std)}, {spec.method}; "
        f"varied by {config.data.describe()}"
        + ("" if config.data.augment == "recipe" else f" (preset {config.data.augment})"),
    )


def _numbers(values: Sequence[float]) -> str:
    """Of every channel; once where all are equal."""
    return f"{values[0]:.4g} (each)" if len(values) != 3 and len(set(values)) == 1 else f"{tuple(values)}"


def channel_notes(config: Config) -> list[str]:
    """What is different where pictures have another number of channels than three."""
    channels, data = config.preprocess.channels, config.data
    if channels == 3:
        return []
    notes = [f"preprocess.channels {channels}: in the backbone's first convolution {describe(channels)}"]
    if data.saturation or data.hue:
        notes.append(
            f"saturation and hue are not varied, because the pictures have {channels} channel"
            f"{'s' if channels > 1 else ''} and no colours in them; brightness and contrast are"
        )
    return notes


def _norm_of(network: Network) -> str:
    """What stands between the backbone's convolutions, and whether it moves."""
    layers = list(network.backbone.modules())
    if any(isinstance(m, nn.GroupNorm) for m in layers):
        return "group norm"
    moving = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in layers)
    if not moving and not any(isinstance(m, FrozenNorm) for m in layers):
        return "none"
    return "batch norm, trained" if moving and "backbone" not in network.frozen else "batch norm, frozen"


def model_notes(network: Network, config: Config) -> list[str]:
    """Sentences about settings that usually do not go together."""
    notes = channel_notes(config)
    notes += [f"part {name} is replaced: not compiled" for name in network.parts.replaced]
    trained = any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) and m.weight is not None and m.weight.requires_grad
        for m in network.modules()
    )
    if trained and config.train.batch < BATCH_FOR_NORM:
        notes.append(
            f"batch norm is trained with {config.train.batch} pictures a batch, which makes it unsteady; "
            f"use --batch {BATCH_FOR_NORM} or more, or --set backbone.norm=group"
        )
    return notes


def anchor_lines(train: Dataset, network: Network, config: Config) -> tuple[str, bool]:
    """How well the anchors cover the objects at training size.

    Returns:
        One line, and whether it is a warning.
    """
    boxes = resized_boxes(train, config.preprocess)
    if not len(boxes):
        return "anchors: no object to compare them with", False
    if isinstance(network.anchors, Points):
        return point_line(train, network.anchors, config)
    assert isinstance(network.anchors, Anchors)
    if config.rpn.inside_only and not _an_anchor_fits(train, config):
        smallest = min(size for level in config.anchors.sizes for size in level)
        return (
            "no anchor lies inside any picture, and rpn.inside_only trains no other: the smallest has "
            f"{smallest:g} px; use larger pictures (--min-size), smaller anchors.sizes, or "
            "--set rpn.inside_only=false",
            True,
        )
    sizes = heights_widths(boxes)
    best = best_anchor_iou(sizes, network.anchors.config, network.anchors.strides)
    low, found = best < LOW_IOU, coverage(best, sizes, np.zeros(len(best), np.int64), ("all",))
    text = coverage_text(found.total)
    if found.total.low < 0.1:
        return text, False
    side = np.sqrt(sizes.prod(1))
    small, smallest = side[low], float(min(size for level in config.anchors.sizes for size in level))
    if np.median(small) < smallest:
        scale = smallest / max(float(np.median(small)), 1.0)
        wish = round(config.preprocess.min_size * min(scale, 4.0) / 32) * 32
        return (
            f"{text} (mostly < {np.quantile(small, 0.9):.0f} px); try --set preprocess.min_size={wish}",
            True,
        )
    return f"{text}; frcnn check DATA --anchors auto fits anchors to the data", True


def _an_anchor_fits(train: Dataset, config: Config) -> bool:
    """Whether one anchor shape is no larger than one of the resized pictures."""
    shapes = [
        (size * ratio**0.5, size / ratio**0.5)
        for level in config.anchors.sizes
        for size in level
        for ratio in config.anchors.ratios
    ]
    originals = np.unique(train.pictures.sizes, axis=0).tolist()
    pictures = {target_size(height, width, config.preprocess) for height, width in originals}
    return any(h <= height and w <= width for h, w in shapes for height, width in pictures)


def point_line(train: Dataset, points: Points, config: Config) -> tuple[str, bool]:
    """How many objects have points to learn them at each level of FCOS, and how many have none.

    Returns:
        One line, and whether it is a warning.
    """
    found = levels_with_points(resized_boxes(train, config.preprocess), points)
    none = int((~found.any(1)).sum())
    counts = ", ".join(f"{n} at stride {s}" for n, s in zip(found.sum(0), points.strides, strict=True))
    text = f"points: of {len(found)} boxes {counts}; {none} have no point ({none / len(found):.0%})"
    if none < 0.1 * len(found):
        return text, False
    return f"{text}; try a larger --set preprocess.min_size, or other --set fcos.size_ranges", True


def levels_with_points(boxes: Floats, points: Points, chunk: int = 1024) -> NDArray[np.bool_]:
    """(m, L) whether any point of a level is positive for a box (m, 4), were it alone in its picture.

    The largest distance from a point to the sides is the larger of that along x and that along y; each axis
    is looked at by itself, so that no grid of points is needed.
    """
    found = np.zeros((len(boxes), len(points.strides)), np.bool_)
    levels = zip(points.strides, points.config.size_ranges, strict=True)
    for level, (stride, (low, top)) in enumerate(levels):
        high = np.finfo(np.float32).max if top is None else top
        for start in range(0, len(boxes), chunk):
            part = boxes[start : start + chunk]
            reach = points.config.centre_radius * stride or np.inf
            across, down = (_axis_distances(part[:, [i, i + 2]], stride, reach) for i in (0, 1))
            near = (across <= high).any(1) & (down <= high).any(1)
            fits = [((far >= low) & (far <= high)).any(1) for far in (across, down)]
            found[start : start + chunk, level] = near & (fits[0] | fits[1])
    return found


def _axis_distances(sides: Floats, stride: int, reach: float) -> Floats:
    """(m, c) the larger distance from each cell's centre to the two sides (m, 2) of one axis; infinite where
    the centre is not between them, or not within ``reach`` of their middle.
    """
    cells = int(np.ceil(sides.max(initial=0) / stride))
    centres = (np.arange(cells, dtype=np.float32) + 0.5) * stride
    low, high = centres - sides[:, :1], sides[:, 1:] - centres
    between = (np.minimum(low, high) > 0) & (np.abs(low - high) / 2 < reach)
    return np.where(between, np.maximum(low, high), np.float32(np.inf))
