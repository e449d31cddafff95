"""From what a format's reader found to a ``Dataset``: the same for every format.

A reader makes a ``Reading``: one ``Record`` for each picture, splits by name, and its findings. ``assemble``
gives ids, numbers the classes, applies the policy for flagged boxes, and reads the headers of all pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frcnn.config import DataConfig
from frcnn.data.findings import Finding, Severity
from frcnn.data.image import Header, read_headers
from frcnn.data.sample import Bools, DataError, Dataset, Floats, Ints, Objects, Packed, Pictures, did_you_mean


@dataclass(frozen=True, slots=True)
class Record:
    """One picture as a reader found it.

    Attributes:
        picture: path below the root.
        annotation: path below the root, "" where there is none.
        declared: (height, width) that the annotation states, or 0.
        boxes: (g, 4) float32, half-open pixels from 0.
        names: g class names.
        flagged: (g,) bool: difficult, crowd, DontCare or what the format calls it.
        lines: (g,) int32.
    """

    picture: str
    annotation: str = ""
    declared: tuple[int, int] = (0, 0)
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    names: tuple[str, ...] = ()
    flagged: Bools = field(default_factory=lambda: np.zeros(0, bool))
    lines: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))


@dataclass(frozen=True)
class Reading:
    """All that a reader found below ``root``; splits name positions in ``records``."""

    root: Path
    records: Sequence[Record]
    splits: Mapping[str, Sequence[int]] = field(default_factory=dict)
    findings: Sequence[Finding] = ()


def assemble(
    reading: Reading, classes: str | Sequence[str] | None = None, config: DataConfig | None = None
) -> tuple[Dataset, list[Finding]]:
    """Make the data set.

    Args:
        reading: from a reader.
        classes: the class list; None: the sorted names of all annotations, whatever their split. One string
            is one class.
        config: policies for flagged boxes and unreadable pictures; None: the defaults.

    Returns:
        The data set with all pictures, and the findings of reader, class names, flags and headers.

    Raises:
        DataError: for a class list with repeated or empty names.
    """
    config = config or DataConfig()
    records, root = reading.records, reading.root
    counts = Counter(name for r in records for name in r.names)
    names = tuple(sorted(counts)) if classes is None else _class_list(classes)
    findings = list(reading.findings) + _unknown_classes(records, root, names, counts)
    findings += _flagged(records, root, config)
    headers = read_headers([root / r.picture for r in records])
    findings += _unreadable(records, root, headers, config)
    objects = _objects(records, names, config)
    splits = {name: np.asarray(indices, np.int64) for name, indices in reading.splits.items()}
    return Dataset(root, root.resolve().name, names, _pictures(records, headers), objects, splits), findings


def _class_list(classes: str | Sequence[str]) -> tuple[str, ...]:
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    names = tuple(n.strip() for n in names)
    repeated = [n for n, count in Counter(names).items() if count > 1]
    if not names or "" in names or repeated:
        what = f"names {repeated[0]!r} twice" if repeated else "is empty or holds an empty name"
        raise DataError(f"the class list {what}: {', '.join(names)}")
    return names


def _unknown_classes(
    records: Sequence[Record], root: Path, names: Sequence[str], counts: Mapping[str, int]
) -> list[Finding]:
    known, action = set(names), "correct the annotation, or add the name to the class list"
    hints = {name: did_you_mean(name, names) for name in counts if name not in known}
    found = [
        Finding(
            "D07", "error", f'class "{name}" is not in the class list{hints[name]}', place, int(line), action
        )
        for place, r in ((str(root / r.annotation), r) for r in records)
        for name, line in zip(r.names, r.lines, strict=True)
        if name not in known
    ]
    for name in (n for n in names if n not in counts):
        hint = did_you_mean(name, [c for c in counts if c not in known])
        if hint:
            message = f'class "{name}" is in the class list and not in the annotations{hint}'
            found.append(Finding("D07", "error", message, action="correct the class list"))
    return found


def _flagged(records: Sequence[Record], root: Path, config: DataConfig) -> list[Finding]:
    action = {
        "ignore": "kept as ignore regions: neither object nor background",
        "object": "kept as ordinary objects",
        "background": "left out: their pixels count as background",
    }[config.difficult]
    return [
        Finding("D20", "note", f'"{name}" is flagged', str(root / r.annotation), int(line), action)
        for r in records
        if r.flagged.any()
        for name, line, flag in zip(r.names, r.lines, r.flagged, strict=True)
        if flag
    ]


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
        np.asarray([h.mode for h in headers], "U8"),
        np.asarray([h.file_bytes for h in headers], np.int64),
    )


def _objects(records: Sequence[Record], names: Sequence[str], config: DataConfig) -> Objects:
    number = {name: i for i, name in enumerate(names)}
    offsets: Ints = np.cumsum([0, *(len(r.names) for r in records)], dtype=np.int64)
    labels = np.asarray([number.get(name, -1) for r in records for name in r.names], np.int32)
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(r.boxes for r in records)])
    flagged = np.concatenate([np.zeros(0, bool), *(r.flagged for r in records)])
    lines = np.concatenate([np.zeros(0, np.int32), *(r.lines for r in records)])
    ignore = flagged if config.difficult == "ignore" else np.zeros_like(flagged)
    keep = labels >= 0  # boxes of unknown classes are errors, reported above
    if config.difficult == "background":
        keep &= ~flagged
    return Objects(offsets, boxes, labels, ignore, lines).keep(keep)
