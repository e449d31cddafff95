"""What a data set is in memory: flat numpy arrays for all pictures and boxes, and one ``Sample`` at a time.

A data set of millions of boxes must not become millions of Python objects: every loader process that touches
a Python object copies its memory page. Boxes, labels, lines and path names therefore live in a few arrays
with offsets, and a ``Sample`` is made when it is asked for. Pictures are not opened here.

Letters: n pictures, m boxes of all pictures, g boxes of one picture, K classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frcnn.data.packed import Packed

if TYPE_CHECKING:
    from frcnn.data.proposals import GivenProposals

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class DataError(ValueError):
    """Data that cannot be used; the message is one clear sentence, or holds one finding a line."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean "x"?`` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def fill_columns(record: object, count: int) -> None:
    """Give those of the columns below that a frozen record was made without ``count`` zeros."""
    for name in ("truncated", "occluded", "crowd", "written"):
        values = getattr(record, name, None)
        if values is not None and count and not len(values):
            object.__setattr__(record, name, np.zeros(count, values.dtype))


@dataclass(frozen=True, eq=False)
class Pictures:
    """The picture files of a data set.

    Attributes:
        paths: n paths below the root, "/" between the parts.
        annotations: n annotation files below the root, "" for a picture without one.
        ids: (n,) int64, 1..n over the whole data set, kept by subsets.
        sizes: (n, 2) int32, (height, width) with the EXIF rotation applied; 0 where the header cannot be
            read.
        declared: (n, 2) int32, (height, width) that the annotation states; 0 where it states none.
        orientations: (n,) int8, EXIF orientation 1..8.
        modes: (n,) str, Pillow's mode of the file ("RGB", "L", "I;16", ...).
        file_bytes: (n,) int64, size of the file.
        windows: (n, 4) int32, which part of the file each picture is (x1, y1, x2, y2), where pictures are cut
            into tiles; its ``sizes`` and boxes are those of the tile. A row of zeros is a whole file; (0, 4):
            all are.
    """

    paths: Packed
    annotations: Packed
    ids: Ints
    sizes: NDArray[np.int32]
    declared: NDArray[np.int32]
    orientations: NDArray[np.int8]
    modes: NDArray[np.str_]
    file_bytes: Ints
    windows: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 4), np.int32))

    def take(self, indices: Ints) -> Pictures:
        """The chosen pictures, in the given order."""
        return Pictures(
            self.paths.take(indices),
            self.annotations.take(indices),
            self.ids[indices],
            self.sizes[indices],
            self.declared[indices],
            self.orientations[indices],
            self.modes[indices],
            self.file_bytes[indices],
            self.windows[indices] if len(self.windows) else self.windows,
        )


@dataclass(frozen=True, eq=False)
class Objects:
    """The boxes of all pictures, one after the other; picture i owns ``offsets[i]:offsets[i + 1]``.

    Attributes:
        offsets: (n + 1,) int64.
        boxes: (m, 4) float32, (x1, y1, x2, y2), half-open, pixels of the picture with its EXIF rotation
            applied.
        labels: (m,) int32, 0..K-1; -1 for a region without a class.
        ignore: (m,) bool, boxes that are neither object nor background.
        lines: (m,) int32, line of the annotation file where the object begins; 0: not known; below 0:
            ``annotations[-1 - line]`` of a COCO file.
        truncated: (m,) float32, share of the object beyond the picture's border, 0..1; where the format has
            a flag only, 0 or 1.
        occluded: (m,) int8, 0 fully visible, 1 partly, 2 largely hidden, 3 not known.
        crowd: (m,) bool, regions that may hold any number of objects: a detection is inside by the share of
            its own area.
        written: (m,) int32, the class as the annotation has it: a position in ``Dataset.written``.

    The last four may be left out: zeros.
    """

    offsets: Ints
    boxes: Floats
    labels: NDArray[np.int32]
    ignore: Bools
    lines: NDArray[np.int32]
    truncated: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    occluded: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    crowd: Bools = field(default_factory=lambda: np.zeros(0, bool))
    written: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    def __post_init__(self) -> None:
        fill_columns(self, len(self.boxes))

    def owners(self) -> Ints:
        """(m,) int64: the picture of every box."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def take(self, indices: Ints) -> Objects:
        """The boxes of the chosen pictures."""
        counts = np.diff(self.offsets)[indices]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return self._rows(
            offsets, np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], counts)
        )

    def keep(self, mask: Bools) -> Objects:
        """The boxes (m,) where ``mask`` is true; the pictures stay."""
        offsets = np.concatenate([[0], np.cumsum(mask)])[self.offsets].astype(np.int64)
        return self._rows(offsets, mask)

    def _rows(self, offsets: Ints, rows: Ints | Bools) -> Objects:
        return Objects(offsets, *(getattr(self, column.name)[rows] for column in fields(self)[1:]))


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture and its boxes.

    Attributes:
        path: the picture file.
        image_id: 1..n over the whole data set.
        size: (height, width) with the EXIF rotation applied.
        boxes: (g, 4) float32, (x1, y1, x2, y2), half-open pixels from 0.
        labels: (g,) int64, 0..K-1; -1 for a region without a class.
        ignore: (g,) bool.
        truncated: (g,) float32, 0..1.
        occluded: (g,) int8, 0..3.
        crowd: (g,) bool.
        window: the part of the file that this picture is, (x1, y1, x2, y2); None: all of it.

    The three before it are as those of ``Objects`` and may be left out: zeros.
    """

    path: Path
    image_id: int
    size: tuple[int, int]
    boxes: Floats
    labels: Ints
    ignore: Bools
    truncated: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    occluded: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    crowd: Bools = field(default_factory=lambda: np.zeros(0, bool))
    window: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        fill_columns(self, len(self.boxes))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures with boxes; ``len(d)`` pictures, ``d[i]`` a ``Sample``.

    Attributes:
        root: folder that all paths are below.
        name: of the data set, for reports.
        classes: K names; the label of a box is a position in it.
        pictures: the picture files.
        objects: the boxes.
        splits: name -> (k,) int64 positions in this data set.
        written: the class names of the annotations, before any were renamed or left out.
        proposals: boxes from elsewhere for a second stage, or None.
        source_ids: for names of ``written`` the number that the files have for them; empty where they have
            none.
        format: of the files, in words; "" where it is not known.
        upright: whether the EXIF orientation of pictures is applied.
    """

    root: Path
    name: str
    classes: tuple[str, ...]
    pictures: Pictures
    objects: Objects
    splits: Mapping[str, Ints] = field(default_factory=dict)
    written: tuple[str, ...] = ()
    proposals: GivenProposals | None = None
    source_ids: Mapping[str, str] = field(default_factory=dict)
    format: str = ""
    upright: bool = True

    def __repr__(self) -> str:
        counts = f"{len(self)} pictures, {len(self.objects.boxes)} boxes, {len(self.classes)} classes"
        return f"<Dataset {self.name} ({self.format or 'format not known'}): {counts}>"

    def __len__(self) -> int:
        return len(self.pictures.ids)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"picture {index} of a data set with {len(self)}")
        i = index % len(self)
        rows = slice(int(self.objects.offsets[i]), int(self.objects.offsets[i + 1]))
        height, width = self.pictures.sizes[i]
        return Sample(
            self.picture_path(i),
            int(self.pictures.ids[i]),
            (int(height), int(width)),
            self.objects.boxes[rows].copy(),  # the caller may change its copy, never the data set
            self.objects.labels[rows].astype(np.int64),
            self.objects.ignore[rows].copy(),
            self.objects.truncated[rows].copy(),
            self.objects.occluded[rows].copy(),
            self.objects.crowd[rows].copy(),
            self._window(i),
        )

    def _window(self, index: int) -> tuple[int, int, int, int] | None:
        if not len(self.pictures.windows):
            return None
        x1, y1, x2, y2 = self.pictures.windows[index].tolist()
        return (x1, y1, x2, y2) if x2 else None

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def picture_path(self, index: int) -> Path:
        """The picture file of position ``index``."""
        return self.root / self.pictures.paths[index]

    def annotation_path(self, index: int) -> Path | None:
        """The annotation file of position ``index``; None for a picture without one."""
        name = self.pictures.annotations[index]
        return self.root / name if name else None

    def subset(self, which: str | Sequence[int] | NDArray[Any]) -> Dataset:
        """The named split, or the pictures at the given positions.

        Ids and the class list stay; a split without a picture left is dropped.

        Raises:
            DataError: for a split that does not exist, naming those that do.
        """
        indices = (
            self.split_indices(which) if isinstance(which, str) else np.asarray(which, np.int64).reshape(-1)
        )
        place = np.full(len(self), -1, np.int64)
        place[indices] = np.arange(len(indices))
        splits = {name: place[old][place[old] >= 0] for name, old in self.splits.items()}
        splits = {name: rows for name, rows in splits.items() if len(rows)}
        return replace(
            self,
            pictures=self.pictures.take(indices),
            objects=self.objects.take(indices),
            splits=splits,
            proposals=None if self.proposals is None else self.proposals.take(indices),
        )

    def as_one_class(self, name: str) -> Dataset:
        """The same boxes, all of one class; regions without a class stay what they are."""
        labels = np.minimum(self.objects.labels, 0)
        return replace(self, classes=(name,), objects=replace(self.objects, labels=labels))

    def split_indices(self, name: str) -> Ints:
        """The positions of a named split.

        Raises:
            DataError: when there is no such split.
        """
        if name in self.splits:
            return self.splits[name]
        if not self.splits:
            raise DataError(
                f'{self.root}: no split "{name}", because this data set has no splits; leave the name out'
            )
        names = ", ".join(f"{n} ({len(i)})" for n, i in self.splits.items())
        raise DataError(
            f'{self.root}: no split "{name}"{did_you_mean(name, self.splits) or ";"} splits here: {names}'
        )

    def class_counts(self) -> Ints:
        """(K,) int64: boxes of every class, ignored ones left out."""
        real = self.objects.labels[~self.objects.ignore]
        return np.bincount(real, minlength=len(self.classes)).astype(np.int64)

    def class_presence(self) -> Bools:
        """(n, K) bool: which classes a picture shows, ignored boxes left out."""
        present = np.zeros((len(self), len(self.classes)), bool)
        real = ~self.objects.ignore
        present[self.objects.owners()[real], self.objects.labels[real]] = True
        return present

    def class_images(self) -> Ints:
        """(K,) int64: pictures that show a class."""
        return self.class_presence().sum(0).astype(np.int64)

    def written_name(self, row: int) -> str:
        """The class of box ``row`` as the annotation has it; "" where that is not known and it has none."""
        if self.written:
            return self.written[self.objects.written[row]]
        label = self.objects.labels[row]
        return self.classes[label] if label >= 0 else ""

    def background(self) -> Bools:
        """(n,) bool: pictures without any box."""
        return np.diff(self.objects.offsets) == 0

    def bytes_used(self) -> int:
        """Memory of all arrays."""
        arrays = [v for part in (self.pictures, self.objects) for v in vars(part).values()]
        return sum(a.bytes_used() if isinstance(a, Packed) else a.nbytes for a in arrays)
