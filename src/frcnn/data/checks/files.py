"""Checks of picture files: background, decoding, size, kind, extremes, and repeats between splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from frcnn.config import Config, DataConfig
from frcnn.data.checks.decoded import Decoded
from frcnn.data.findings import Finding
from frcnn.data.formats.assemble import unreadable_policy
from frcnn.data.pictures.channels import holds
from frcnn.data.pictures.image import conversion
from frcnn.data.sample import Dataset, Ints

MANY_BOXES, MANY_PIXELS, LONG_SIDE = 1000, 50_000_000, 5
DISJOINT = [
    p
    for p in combinations(("train", "val", "trainval", "test"), 2)
    if p not in (("train", "trainval"), ("val", "trainval"))
]


def check_background(dataset: Dataset, broken: set[str]) -> Iterator[Finding]:
    """D11: pictures without a box, except those whose annotation (in ``broken``) could not be read."""
    for i in np.flatnonzero(dataset.background()):
        annotation = dataset.annotation_path(int(i))
        if str(annotation) not in broken:
            reason = "its annotation has no usable object" if annotation else "has no annotation"
            yield Finding("D11", "note", reason, str(dataset.picture_path(int(i))), 0, "kept as background")


def check_decoding(dataset: Dataset, data: DataConfig, decoded: Decoded) -> Iterator[Finding]:
    """D13 for pictures whose header could be read, and whose pixels cannot be decoded."""
    severity, action = unreadable_policy(data)
    for i in np.flatnonzero(dataset.pictures.sizes.all(1)):
        if decoded.reasons[i]:
            yield Finding("D13", severity, decoded.reasons[i], str(dataset.picture_path(int(i))), 0, action)


def check_sizes(dataset: Dataset) -> Iterator[Finding]:
    """D14: the size that the annotation states is not the picture's, or leaves its EXIF rotation open."""
    pictures = dataset.pictures
    stated, real = pictures.declared, pictures.sizes
    both = stated.all(1) & real.all(1)
    for i in np.flatnonzero(both & (stated != real).any(1)):
        height, width = stated[i]
        annotation, picture = pictures.annotations[int(i)], pictures.paths[int(i)]
        which = f"{picture}: " if annotation.endswith(".json") else ""  # one file for many pictures
        message = f"{which}states {width} x {height}, the picture has {real[i][1]} x {real[i][0]} pixels"
        action = "annotate the picture again, or correct the stated size if the boxes are right"
        if pictures.orientations[i] >= 5 and (stated[i] == real[i][::-1]).all():
            message += f" after its EXIF rotation ({pictures.orientations[i]})"
            action = (
                "the boxes were drawn on the unrotated picture: use such pictures as they are stored with "
                "--exif ignore, or annotate them again"
            )
        elif (stated[i] == real[i][::-1]).all():
            message += "; width and height are exchanged"
        place, file = str(dataset.annotation_path(int(i))), str(dataset.picture_path(int(i)))
        yield Finding("D14", "error", message, place, 0, action, other=file)
    yield from _check_turned(dataset)


def _check_turned(dataset: Dataset) -> Iterator[Finding]:
    """D14: pictures with an EXIF rotation, where no stated size tells how they were turned when annotated."""
    pictures, turned = dataset.pictures, dataset.pictures.orientations
    said = pictures.declared.all(1)
    unsaid = ~said & ~dataset.background()
    action = (
        "the boxes are taken as drawn on the rotated picture; check one, and use --exif ignore where "
        "they are those of the picture as it is stored"
    )
    for i in np.flatnonzero((turned != 1) & (unsaid | (said & (turned < 5)))):
        why = ", and its annotation states no size" if unsaid[i] else " that leaves the size as it is"
        message = f"carries an EXIF rotation ({turned[i]}){why}"
        yield Finding("D14", "note", message, str(dataset.picture_path(int(i))), 0, action)


def check_channels(dataset: Dataset, config: Config) -> Iterator[Finding]:
    """D13: pictures that do not have as many channels as the network reads."""
    channels, modes = config.preprocess.channels, dataset.pictures.modes
    wrong = np.asarray([not holds(str(mode), channels) for mode in modes], bool)
    severity, action = unreadable_policy(config.data)
    if severity == "error":
        action = (
            "set preprocess.channels to what the pictures have, or leave such out with --on-bad-image skip"
        )
    for i in np.flatnonzero(wrong & (modes != "")):
        message = f"is {conversion(str(modes[i])) or 'RGB'}, and preprocess.channels is {channels}"
        yield Finding("D13", severity, message, str(dataset.picture_path(int(i))), 0, action)


def check_kinds(dataset: Dataset, channels: int = 3, bits: int | str = "auto") -> Iterator[Finding]:
    """D15: pictures that are converted; a warning where the kinds are mixed."""
    modes = dataset.pictures.modes
    if channels not in (1, 3):
        return  # such pictures are used as they are
    mixed = len(set(modes[dataset.pictures.sizes.all(1)].tolist())) > 1
    converted = f"converted to 8-bit {'gray' if channels == 1 else 'RGB'} in every command"
    becomes = {mode: conversion(mode, channels) for mode in set(modes.tolist()) - {""}}
    for i in np.flatnonzero([bool(becomes.get(mode)) for mode in modes.tolist()]):
        place, action = str(dataset.picture_path(int(i))), converted
        if str(modes[i]).startswith("I") and bits == "auto":
            action += "; --set preprocess.bits=N scales all alike, N the camera's depth"
        yield Finding("D15", "warn" if mixed else "note", f"is {becomes[str(modes[i])]}", place, 0, action)


def check_extremes(dataset: Dataset) -> Iterator[Finding]:
    """D19: very many boxes, very many pixels, very long pictures."""
    counts = np.diff(dataset.objects.offsets)
    sizes = dataset.pictures.sizes.astype(np.int64)
    pixels = sizes.prod(1)
    for i in np.flatnonzero(counts > MANY_BOXES):
        action = "training needs more memory; cutting the pictures into tiles helps"
        yield Finding("D19", "note", f"has {counts[i]} boxes", str(dataset.picture_path(int(i))), 0, action)
    for i in np.flatnonzero(pixels > MANY_PIXELS):
        message = f"has {pixels[i] / 1e6:.0f} million pixels ({3 * pixels[i] / 2**20:.0f} MB decoded)"
        action = "objects shrink with it when it is resized; cut it into tiles"
        yield Finding("D19", "note", message, str(dataset.picture_path(int(i))), 0, action)
    for i in np.flatnonzero(sizes.max(1) > LONG_SIDE * sizes.min(1)):
        message = f"is {sizes[i][1]} x {sizes[i][0]}, more than {LONG_SIDE} times as long as wide"
        action = "it is padded with much empty space; cut it into tiles"
        yield Finding("D19", "note", message, str(dataset.picture_path(int(i))), 0, action)


def check_leaks(dataset: Dataset) -> Iterator[Finding]:
    """D18: the same picture, by name or by content, in two splits that should share none."""
    action = "take it out of one of the two; the measured AP is too good otherwise"
    for one, two in DISJOINT:
        if one not in dataset.splits or two not in dataset.splits:
            continue
        first, second = dataset.splits[one], dataset.splits[two]
        listed = np.intersect1d(first, second)
        for i in listed:
            yield Finding(
                "D18", "warn", f"is in {one} and in {two}", str(dataset.picture_path(int(i))), 0, action
            )
        for i, j in _same_files(dataset, np.setdiff1d(first, listed), np.setdiff1d(second, listed)):
            message = f"in {two} is the same file as {dataset.pictures.paths[i]} in {one}"
            first_path, second_path = str(dataset.picture_path(i)), str(dataset.picture_path(j))
            yield Finding("D18", "warn", message, second_path, 0, action, other=first_path)


def _same_files(dataset: Dataset, first: Ints, second: Ints) -> Iterator[tuple[int, int]]:
    """Positions of equal files; only those of equal length are read."""
    lengths = dataset.pictures.file_bytes
    common = np.intersect1d(lengths[first], lengths[second])
    common = common[common > 0]
    known: dict[bytes, int] = {}
    for i in first[np.isin(lengths[first], common)]:
        known.setdefault(_digest(dataset.picture_path(int(i))), int(i))
    for j in second[np.isin(lengths[second], common)]:
        match = known.get(_digest(dataset.picture_path(int(j))))
        if match is not None:
            yield match, int(j)


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
