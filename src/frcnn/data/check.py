"""The data check: everything that is found, before anything is trained.

``frcnn check``, ``train`` and ``eval`` all call ``load_checked``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from frcnn.config import Config, DataConfig
from frcnn.data.checks.boxes import BoxFaults, check_boxes, clip_to_pictures, find_box_faults
from frcnn.data.checks.classes import check_names, check_split_contents, lost_boxes
from frcnn.data.checks.counts import check_counts
from frcnn.data.checks.decoded import decode_all
from frcnn.data.checks.files import (
    check_background,
    check_channels,
    check_decoding,
    check_extremes,
    check_kinds,
    check_leaks,
    check_sizes,
)
from frcnn.data.checks.looks import check_looks
from frcnn.data.checks.masks import check_masks
from frcnn.data.checks.repeats import check_repeats, duplicates
from frcnn.data.findings import CheckReport, Finding, Severity
from frcnn.data.flags import unused_rules
from frcnn.data.open import pick_split, read_dataset, relevant
from frcnn.data.pictures.image import Decoding
from frcnn.data.sample import Bools, DataError, Dataset
from frcnn.data.split import AUTO, NONE, TrainVal, choose_training, read_splits, with_splits

DECODED = 1_000_000_000
"""Pixels: where all pictures together have no more, training decodes each of them before its first step."""


def load_checked(
    path: str | Path,
    pick: str | TrainVal | None = None,
    *,
    classes: str | Sequence[str] | None = None,
    config: Config | None = None,
    decode: bool | None = False,
    splits: str | Path | None = None,
    clean: bool = True,
    absent: Severity = "error",
    cache: bool = False,
) -> tuple[Dataset, CheckReport]:
    """Read a data set, choose pictures, check them, and make them fit for use.

    Args:
        path: the data set's folder.
        pick: None: all pictures. A name: one split. ``TrainVal``: splits "train" and "val" of the result.
        classes: the class list; None: the names in the annotations of all splits.
        config: ``data`` for the policies, ``preprocess`` for the size in training; None: the defaults.
        decode: decode every picture completely, not only its header, and compare what they look like. None:
            decode them where they have few pixels (``DECODED``), and compare nothing.
        splits: a ``splits.json`` of an earlier run, whose splits replace those of the data set.
        clean: raise if there are errors, else apply the policies. False: only report.
        absent: how grave a class is that is asked for and that the annotations do not have, or that
            cannot be learnt from the training pictures.
        cache: with ``decode``, leave out pictures that an earlier check decoded.

    Returns:
        The chosen pictures, and what was found.

    Raises:
        DataError: when there is nothing to check; with ``clean``, for errors, listing all.
    """
    config = config or Config()
    whole, found = read_dataset(path, classes, config.data, absent)
    if splits is not None:
        names = read_splits(splits)
        whole = with_splits(whole, {name: members for name, members in names.items() if members}, splits)
        if isinstance(pick, TrainVal) and pick.val == AUTO and not names.get("val"):
            pick = replace(pick, val=NONE)
    dataset, used = _pick(whole, pick)
    found = relevant(found, whole, dataset, used)
    report = check_dataset(dataset, config, found=found, decode=decode, cache=cache, absent=absent)
    if clean:
        dataset = apply_policies(dataset, report, config, training=isinstance(pick, TrainVal))
    return dataset, report


def _pick(whole: Dataset, pick: str | TrainVal | None) -> tuple[Dataset, list[str] | None]:
    """The chosen pictures, and the names of the splits they come from; None: all."""
    if pick is None:
        return whole, None
    if isinstance(pick, str):
        part = pick_split(whole, pick)
        return replace(part, splits={pick: np.arange(len(part))}), [pick]
    train = pick.train
    if train == AUTO:
        train = "train" if "train" in whole.splits else "trainval"
    return choose_training(whole, pick), [train, "val" if pick.val == AUTO else pick.val]


def check_dataset(
    dataset: Dataset,
    config: Config | None = None,
    *,
    found: Iterable[Finding] = (),
    decode: bool | None = False,
    cache: bool = False,
    absent: Severity = "error",
) -> CheckReport:
    """Look at everything; nothing is changed and nothing raised.

    Args:
        dataset: its splits called train, val, trainval and test are compared.
        config: policies decide what is an error, ``preprocess`` what is too small; None: the defaults.
        found: what reading found.
        decode: decode every picture and mask, and compare what pictures look like; None: as ``load_checked``.
        cache: leave out pictures that an earlier check decoded (``decoded.decode_all``).
        absent: how grave it is that a class cannot be learnt from the training pictures.

    Returns:
        The report.
    """
    config = config or Config()
    faults = find_box_faults(dataset, config.preprocess)
    findings = list(found)
    broken = {f.path for f in findings if f.code in ("D04", "D07", "D10", "D16")}
    findings += check_boxes(dataset, faults, config.data, config.preprocess)
    findings += check_repeats(dataset, ~faults.wrong, config.data.dedupe)
    findings += check_names(dataset)
    findings += check_background(dataset, broken)
    findings += check_counts(dataset, broken)
    decoded = None
    findings += check_channels(dataset, config)
    if decode or (decode is None and _few_pixels(dataset)):
        decoded = decode_all(dataset.root, list(dataset.pictures.paths), Decoding.of(config), cache)
        named = {f.path for f in findings if f.code == "D13"}
        findings += [f for f in check_decoding(dataset, config.data, decoded) if f.path not in named]
    findings += _check_contents(dataset, faults, config.data, findings, absent)
    findings += check_sizes(dataset)
    findings += check_kinds(dataset, config.preprocess.channels, config.preprocess.bits)
    same = list(check_leaks(dataset))
    findings += same
    if decode and decoded is not None:
        findings += check_looks(dataset, decoded.thumbs, {f.path for f in same})
        findings += check_masks(dataset, ~faults.wrong)
    findings += check_extremes(dataset)
    findings += unused_rules(dataset, config)
    empty = int(dataset.background().sum())
    counts = {
        "images": len(dataset),
        "with_boxes": len(dataset) - empty,
        "background": empty,
        "boxes": len(dataset.objects.boxes),
        "ignored": int(dataset.objects.ignore.sum()),
    }
    ordered = tuple(sorted(findings, key=lambda f: f.code))
    return CheckReport(str(dataset.root), ordered, counts, decoded is not None)


def _few_pixels(dataset: Dataset) -> bool:
    return int(dataset.pictures.sizes.astype(np.int64).prod(1).sum()) <= DECODED


def _check_contents(
    dataset: Dataset, faults: BoxFaults, data: DataConfig, found: Sequence[Finding], absent: Severity
) -> Iterator[Finding]:
    """D08 and D17, as what was found so far leaves boxes and pictures."""
    unread = {f.path for f in found if f.code == "D13"}
    left_out = [f.message for f in found if f.code == "D07" and f.severity == "note"]
    lost = lost_boxes(dataset, faults, data, unread)
    return check_split_contents(dataset, lost, absent, left_out)


def apply_policies(
    dataset: Dataset, report: CheckReport, config: Config | None = None, *, training: bool = True
) -> Dataset:
    """What training and evaluation work with.

    Unreadable pictures and unusable boxes are left out (where the policies allow it; otherwise they are
    errors of the report), and so are duplicates where ``data.dedupe`` says so; boxes are cut at the border of
    their picture, and for training those too small to see become ignore regions.

    Args:
        dataset: that was checked.
        report: of ``check_dataset`` with the same configuration.
        config: the policies; None: the defaults.
        training: whether boxes too small to see are ignored in the training pictures.

    Raises:
        DataError: with all errors of the report; or when a split has no picture left.
    """
    config = config or Config()
    report.raise_errors()
    faults = find_box_faults(dataset, config.preprocess)
    objects = dataset.objects
    ignore = objects.ignore | (faults.tiny & _in_training(dataset)) if training else objects.ignore
    left_out = faults.unusable
    if config.data.dedupe:
        left_out = left_out | duplicates(dataset, ~faults.wrong)
    cut = replace(objects, boxes=clip_to_pictures(dataset), ignore=ignore).keep(~left_out)
    result = replace(dataset, objects=cut)
    unreadable = {f.path for f in report.with_code("D13")}
    if not unreadable:
        return result
    keep = [i for i in range(len(dataset)) if str(dataset.picture_path(i)) not in unreadable]
    result = result.subset(keep)
    for name, rows in dataset.splits.items():
        if name not in result.splits:
            raise DataError(
                f'D17 {dataset.root}: no pictures left in split "{name}": all {len(rows)} cannot be read and '
                "were left out (--on-bad-image skip); replace these files"
            )
    if not len(result):
        raise DataError(
            f"D17 {dataset.root}: no pictures left: all {len(dataset)} cannot be read; replace these files"
        )
    return result


def _in_training(dataset: Dataset) -> Bools:
    """(m,) bool: boxes of the training pictures; all, where no split is called train."""
    if "train" not in dataset.splits:
        return np.ones(len(dataset.objects.boxes), bool)
    return np.isin(dataset.objects.owners(), dataset.splits["train"])


def check_upright(dataset: Dataset, data: DataConfig) -> None:
    """Make sure that pictures are decoded the way round in which their boxes were read.

    Raises:
        DataError: when the data set was opened with another ``data.exif``; if with ``apply``, only where one
            of its pictures carries an orientation.
    """
    turned = np.flatnonzero(dataset.pictures.orientations > 1)
    if dataset.upright == (data.exif == "apply") or not len(dataset) or (dataset.upright and not len(turned)):
        return
    opened = "apply" if dataset.upright else "ignore"
    which = f"; {dataset.picture_path(int(turned[0]))} has one" if len(turned) else ""
    raise DataError(
        f"{dataset.root}: was opened with data.exif={opened}, and data.exif={data.exif} is wanted now: "
        f"pictures with an EXIF orientation would not fit their boxes{which}; open it with "
        "frcnn.open_dataset(path, config=config.data), or give the path"
    )
