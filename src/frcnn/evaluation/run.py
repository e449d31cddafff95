"""From a detector and a data set to a report."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from frcnn.config import Config
from frcnn.data.check import check_upright, load_checked
from frcnn.data.feed.loader import eval_loader
from frcnn.data.feed.tiles import picture_limit, tiled
from frcnn.data.sample import DataError, Dataset, did_you_mean
from frcnn.evaluation.collect import Progress, collect_detections
from frcnn.evaluation.protocols import RECALL, choose_protocol, default_max_dets
from frcnn.evaluation.report import Report, measure
from frcnn.model.buckets import padded_sizes
from frcnn.model.detector import Network, build_network
from frcnn.model.postprocess import Limits
from frcnn.model.preprocess import pad_batch, prepare
from frcnn.precision import Requested, choose_precision
from frcnn.weights.checkpoint import load_checkpoint, restore

NAMES_SHOWN = 10
"""Of the pictures that could not be read."""


class DetectorLike(Protocol):
    """What ``evaluate`` needs of a detector; ``frcnn.Detector`` has it."""

    @property
    def model(self) -> Network:
        """The network, on its device."""
        ...

    @property
    def config(self) -> Config:
        """Its configuration."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; a label is an index into them."""
        ...


def ground_truth(dataset: Dataset, classes: Sequence[str] | None = None) -> dict[str, Any]:
    """The objects of a data set as a COCO dictionary; ids count from 1, ``category_id`` is the label.

    Ignored objects are flagged ``ignore``, and so are boxes without area, which nothing can match. Ignored
    crowds are regions (``iscrowd``), and a region without a class becomes one of every class. ``truncated``
    and ``occluded`` are handed on.

    Args:
        dataset: its pictures are not opened.
        classes: the model's names, where labels are to be the model's; None: the data set's.

    Raises:
        ValueError: when the data has a class that the model does not know.
    """
    names = dataset.classes if classes is None else tuple(classes)
    to_label = class_map(dataset.classes, names)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(len(dataset)):
        sample = dataset[i]
        height, width = sample.size
        images.append(
            {"id": sample.image_id, "height": height, "width": width, "file_name": str(sample.path)}
        )
        columns = (sample.boxes, sample.labels, sample.ignore, sample.crowd)
        columns += (sample.truncated, sample.occluded)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for (x1, y1, x2, y2), label, ignore, crowd, truncated, occluded in rows:
            area = max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
            for category in range(len(names)) if label < 0 else (to_label[label],):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": sample.image_id,
                        "category_id": category,
                        "bbox": [x1, y1, max(x2 - x1, 0.0), max(y2 - y1, 0.0)],
                        "area": area,
                        "iscrowd": int(label < 0 or (crowd and ignore)),
                        "ignore": int(ignore or area <= 0),
                        "truncated": truncated,
                        "occluded": occluded,
                    }
                )
    categories = [{"id": k, "name": name} for k, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def class_map(data: Sequence[str], model: Sequence[str]) -> tuple[int, ...]:
    """For every class of the data its label in the model, by name.

    Raises:
        ValueError: listing both, when the data has a class that the model does not know.
    """
    unknown = [name for name in data if name not in model]
    if unknown:
        missing = ", ".join(f'"{name}"{did_you_mean(name, model)}' for name in unknown)
        raise ValueError(
            f"the model does not know these classes of the data: {missing} "
            f"(data: {', '.join(data)}; model: {', '.join(model)}); use data with the model's names"
        )
    return tuple(list(model).index(name) for name in data)


def evaluate(
    model: DetectorLike | str | Path,
    data: Dataset | str | Path,
    split: str | None = None,
    protocol: str | None = None,
    *,
    score: float | None = None,
    max_dets: int | None = None,
    precision: Requested | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a detector on a data set.

    Args:
        model: a ``frcnn.Detector``, or the path of a model file.
        data: a folder, which is checked first as ``frcnn eval`` does; or a data set, which is taken as it is.
        split: one of its splits; None: all of it.
        protocol: ``coco``, ``voc07``, ``voc12``, ``kitti``, ``kitti11`` or ``recall``; None: ``recall`` for a
            model of proposals alone, else ``coco``.
        score: lowest score that enters; None: the configuration's ``eval.score_threshold``, for ``recall`` 0.
        max_dets: detections that the model may give for a picture; None: the configuration's, for ``recall``
            1000.
        precision: number format; None: ``eval.precision`` of the configuration.
        progress: called with the number of pictures done.

    Where ``preprocess.tile`` of the model's configuration says so (``Detector.with_tiles``), pictures are cut
    into tiles and what is found in them is merged; ``max_dets`` is then a tile's limit.
    With ``data.on_bad_image: skip`` pictures that cannot be read are left out, and the report names them.

    Returns:
        The protocol's numbers, the table by class, curves and thresholds.

    Raises:
        ValueError: when the data has classes that the model does not know (for ``recall`` they may differ),
            the split is missing or empty, the data cannot be used as they are, or the protocol is unknown or
            not for this model.
    """
    detector = _detector(model)
    rule = choose_protocol(detector.config.detector, protocol)
    dataset, unread = _pictures(data, split, detector.config)
    names = None if rule == RECALL else detector.classes
    truth = ground_truth(dataset, names)  # before the work, because it may find an unknown class
    config, settings = detector.config, detector.config.eval
    floor, most = default_limits(config, rule)
    floor, most = floor if score is None else score, most if max_dets is None else max_dets
    device = next(detector.model.parameters()).device
    tiles = tiled(dataset, config, seed=None)
    batches = eval_loader(tiles, config, prepare, pad_batch, settings.batch)
    if detector.model.compiled is not None:
        sizes = padded_sizes(batches.plan(), config.preprocess)
        detector.model.compiled.expect(sizes, min(settings.batch, len(tiles)))
    chosen = choose_precision(precision or settings.precision, device)
    limits = Limits(score=floor, max_dets=most)
    show = None if progress is None else _by_picture(progress, len(dataset) / len(tiles))
    found = collect_detections(detector.model, batches, device, chosen, limits, show)
    left = readable(dataset, found.unread)
    if len(left) < len(dataset):
        truth = ground_truth(_not_empty(left, found.unread), names)
    known, most = set(left.pictures.ids.tolist()), picture_limit(left, config, most)
    results = [result for result in found.results if result["image_id"] in known]
    report = measure(truth, results, most, floor, rule, counts=found.counts)
    return _naming(report, [*unread, *found.unread])


def readable(dataset: Dataset, unread: Container[str]) -> Dataset:
    """The pictures whose files are not among ``unread``."""
    keep = [i for i in range(len(dataset)) if str(dataset.picture_path(i)) not in unread]
    return dataset if len(keep) == len(dataset) else dataset.subset(keep)


def _pictures(data: Dataset | str | Path, split: str | None, config: Config) -> tuple[Dataset, list[str]]:
    """What is measured on, at least one picture; and the files left out because they cannot be read."""
    unread: list[str] = []
    if isinstance(data, Dataset):
        dataset = data if split is None else data.subset(split)
        check_upright(dataset, config.data)
    else:
        dataset, report = load_checked(data, split, config=config, absent="warn")
        unread = [finding.path for finding in report.with_code("D13")]
    if not len(dataset):
        raise DataError(
            f"{dataset.root}: no pictures to evaluate on{f' in split {split!r}' if split else ''}"
        )
    return dataset, unread


def _not_empty(left: Dataset, unread: Iterable[str]) -> Dataset:
    if not len(left):
        raise DataError(
            f"{left.root}: no picture can be read, the first is {next(iter(unread))}; replace them"
        )
    return left


def _naming(report: Report, unread: Sequence[str]) -> Report:
    """The report with a note of the files that could not be read."""
    if not unread:
        return report
    names = ", ".join(unread[:NAMES_SHOWN]) + (", ..." if len(unread) > NAMES_SHOWN else "")
    note = f"{len(unread)} pictures could not be read and were left out: {names}"
    return replace(report, notes=(*report.notes, note))


def _by_picture(progress: Progress, share: float) -> Progress:
    """Progress in pictures from a number of tiles."""
    return lambda tiles: progress(round(tiles * share))


def default_limits(config: Config, protocol: str) -> tuple[float, int]:
    """Lowest score, and detections of a picture, with which a model is measured where nobody says otherwise.

    Average recall is about rank, not score: every proposal enters, as many as its largest limit.
    """
    if protocol == RECALL:
        return 0.0, default_max_dets(RECALL)
    own = config.fcos.max_dets if config.detector == "fcos" else config.roi.max_dets
    return config.eval.score_threshold, max(config.eval.max_dets, own)


@dataclass(frozen=True)
class _Stored:
    """What ``evaluate`` needs of a model file."""

    model: Network
    config: Config
    classes: tuple[str, ...]


def _detector(model: DetectorLike | str | Path) -> DetectorLike:
    if not isinstance(model, str | Path):
        return model
    stored = load_checkpoint(model)
    network = build_network(stored.config, len(stored.classes))
    restore(network, stored.state, str(model))
    return _Stored(network, stored.config, stored.classes)
