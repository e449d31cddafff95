"""From what a format's reader found to a ``Dataset``: the same for every format.

A reader makes a ``Reading``: one ``Record`` for each picture, splits by name, and its findings. ``assemble``
gives ids, numbers the classes, applies the policy for flagged boxes, and reads the headers of all pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frcnn.config import DataConfig
from frcnn.data.findings import Finding, Severity
from frcnn.data.flags import Flag, flag_finding, policy, refuse_object, without_effect
from frcnn.data.naming import chosen_names, class_list, new_names, rename_findings, unknown_classes
from frcnn.data.packed import Packed
from frcnn.data.pictures.image import Header, read_headers
from frcnn.data.sample import Bools, Dataset, Floats, Ints, Objects, Pictures, fill_columns

ROUNDING = 2e-6
"""As far as shares with six decimals miss the border of a picture that they mean to reach."""


@dataclass(frozen=True, slots=True)
class Record:
    """One picture as a reader found it.

    Attributes:
        picture: path below the root.
        annotation: path below the root, "" where there is none.
        declared: (height, width) that the annotation states, or 0.
        boxes: (g, 4) float32, half-open pixels from 0.
        names: g class names, as written.
        flagged: (g,) bool: difficult, crowd or DontCare (``Reading.flag``).
        lines: (g,) int32.
        truncated: (g,) float32, 0..1.
        occluded: (g,) int8, 0..3.
        crowd: (g,) bool.
        relative: the boxes are shares of the picture's width and height, not pixels.

    The three before it are as those of ``sample.Objects`` and may be left out: zeros.
    """

    picture: str
    annotation: str = ""
    declared: tuple[int, int] = (0, 0)
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    names: tuple[str, ...] = ()
    flagged: Bools = field(default_factory=lambda: np.zeros(0, bool))
    lines: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    truncated: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    occluded: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    crowd: Bools = field(default_factory=lambda: np.zeros(0, bool))
    relative: bool = False

    def __post_init__(self) -> None:
        fill_columns(self, len(self.names))

    def in_pixels(self, height: int, width: int) -> Record:
        """The same with boxes in pixels; where the size is not known (0) nothing changes. What passes the
        border by no more than shares are rounded ends there.
        """
        if not (self.relative and height and width):
            return self
        shares = self.boxes.astype(np.float64)
        shares = np.where((shares < -ROUNDING) | (shares > 1 + ROUNDING), shares, shares.clip(0, 1))
        boxes = (shares * np.asarray([width, height, width, height])).astype(np.float32)
        return replace(self, boxes=boxes, relative=False)


@dataclass(frozen=True)
class Reading:
    """All that a reader found.

    Attributes:
        root: folder that all paths are below.
        records: the pictures.
        splits: name -> positions in ``records``.
        findings: what could not be read.
        flag: what the format's flagged boxes are called.
        classless: names that are no class: their boxes, which are flagged, are regions (label -1).
        source_ids: name -> the number that the files have for it, as text; empty where the format has none.
    """

    root: Path
    records: Sequence[Record]
    splits: Mapping[str, Sequence[int]] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    flag: Flag = "difficult"
    classless: frozenset[str] = frozenset()
    source_ids: Mapping[str, str] = field(default_factory=dict)


def assemble(
    reading: Reading,
    classes: str | Sequence[str] | None = None,
    config: DataConfig | None = None,
    absent: Severity = "error",
) -> tuple[Dataset, list[Finding]]:
    """Make the data set.

    Args:
        reading: from a reader.
        classes: the class list; None: ``data.classes``, or the sorted names of all annotations, whatever
            their split. One string is one class.
        config: names to choose and change, policies for flagged boxes and unreadable pictures; None: the
            defaults.
        absent: how grave a class is that is asked for and that the annotations do not have.

    Returns:
        The data set with all pictures, and the findings of reader, class names, flags and headers.

    Raises:
        DataError: for a class list with repeated or empty names, and for regions without a class that are to
            be objects.
    """
    config = config or DataConfig()
    records, root = reading.records, reading.root
    written = tuple(sorted({name for r in records for name in r.names}))
    if not reading.classless.isdisjoint(written):
        refuse_object(config, reading.flag, str(root))
    names, renamed, findings = _class_names(reading, written, classes, config, absent)
    findings = [*_with_policy(reading.findings, config), *findings, *_flagged(reading, config)]
    headers = read_headers([root / r.picture for r in records], config.exif == "apply")
    records = [r.in_pixels(h.height, h.width) for r, h in zip(records, headers, strict=True)]
    findings += _unreadable(records, root, headers, config)
    splits = {name: np.asarray(indices, np.int64) for name, indices in reading.splits.items()}
    number = {name: i for i, name in enumerate(names)}
    dataset = Dataset(
        root,
        root.resolve().name,
        names,
        _pictures(records, headers),
        _objects(
            replace(reading, records=records),
            written,
            [number.get(renamed.get(name, ""), -1) for name in written],
            config,
        ),
        splits,
        written,
        source_ids=reading.source_ids,
        upright=config.exif == "apply",
    )
    return dataset, findings


def _class_names(
    reading: Reading,
    written: Sequence[str],
    classes: str | Sequence[str] | None,
    config: DataConfig,
    absent: Severity,
) -> tuple[tuple[str, ...], dict[str, str], list[Finding]]:
    """The class list, the class of every name whose boxes are used, and what is wrong with the names."""
    every = new_names(set(written) - reading.classless, config.rename)
    counts = Counter(name for r in reading.records for name in r.names)
    renamed, left_out = chosen_names(every, config.classes, counts)
    asked = config.classes or None if classes is None else classes
    names = tuple(sorted(set(renamed.values()))) if asked is None else class_list(asked)
    findings = [*rename_findings(written, config.rename, absent), *left_out]
    return (
        names,
        renamed,
        findings + unknown_classes(_places(reading), names, renamed, absent, every.values()),
    )


def _places(reading: Reading) -> Iterator[tuple[str, str, int]]:
    """Name, file and line of every box."""
    for r in reading.records:
        place = str(reading.root / r.annotation) if r.names else ""
        for name, line in zip(r.names, r.lines, strict=True):
            yield name, place, int(line)


def _flagged(reading: Reading, config: DataConfig) -> list[Finding]:
    found = [
        flag_finding(config, reading.flag, name, str(reading.root / r.annotation), int(line))
        for r in reading.records
        if r.flagged.any()
        for name, line, flag in zip(r.names, r.lines, r.flagged, strict=True)
        if flag
    ]
    return found + without_effect(config, reading.flag, len(found))


def _with_policy(findings: Sequence[Finding], config: DataConfig) -> list[Finding]:
    """Boxes that no picture can have (D04) are left out where unusable boxes are."""
    if config.bad_boxes != "drop":
        return list(findings)
    action = "left out (--bad-boxes drop)"
    return [replace(f, severity="warn", action=action) if f.code == "D04" else f for f in findings]


def _unreadable(
    records: Sequence[Record], root: Path, headers: Sequence[Header], config: DataConfig
) -> list[Finding]:
    severity, action = unreadable_policy(config)
    return [
        Finding("D13", severity, header.error, str(root / record.picture), 0, action)
        for record, header in zip(records, headers, strict=True)
        if header.error
    ]


def unreadable_policy(config: DataConfig) -> tuple[Severity, str]:
    """How grave an unreadable picture is, and what becomes of it."""
    if config.on_bad_image == "skip":
        return "warn", "left out (--on-bad-image skip)"
    return "error", "replace or remove the file, or leave such pictures out with --on-bad-image skip"


def _pictures(records: Sequence[Record], headers: Sequence[Header]) -> Pictures:
    n = len(records)
    return Pictures(
        Packed(r.picture for r in records),
        Packed(r.annotation for r in records),
        np.arange(1, n + 1),
        np.asarray([(h.height, h.width) for h in headers], np.int32).reshape(n, 2),
        np.asarray([r.declared for r in records], np.int32).reshape(n, 2),
        np.asarray([h.orientation for h in headers], np.int8),
        np.asarray([h.mode for h in headers], "U12"),
        np.asarray([h.file_bytes for h in headers], np.int64),
    )


def _objects(reading: Reading, written: Sequence[str], labels: Sequence[int], config: DataConfig) -> Objects:
    """The boxes; ``labels`` are those of the names ``written``, -1 for what is no class."""
    records, chosen = reading.records, policy(config, reading.flag)
    place = {name: i for i, name in enumerate(written)}
    index = np.asarray([place[name] for r in records for name in r.names], np.int32)
    label = np.asarray(labels, np.int32)[index]
    region = np.asarray([name in reading.classless for name in written], bool)[index]
    boxes, flagged, lines, truncated, occluded, crowd = (
        np.concatenate([getattr(Record(""), name), *(getattr(r, name) for r in records)])
        for name in ("boxes", "flagged", "lines", "truncated", "occluded", "crowd")
    )
    ignore = flagged & (chosen == "ignore")
    keep = (label >= 0) | region  # boxes of unknown classes are errors, reported above
    if chosen == "background":
        keep &= ~flagged
    offsets: Ints = np.cumsum([0, *(len(r.names) for r in records)], dtype=np.int64)
    return Objects(offsets, boxes, label, ignore, lines, truncated, occluded, crowd & ignore, index).keep(
        keep
    )
