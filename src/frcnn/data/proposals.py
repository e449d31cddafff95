"""Proposals in a file: boxes that one network found, for another network's second stage to learn from.

The file is safetensors with ``boxes`` (M, 4) float32 in pixels of the original pictures, ``scores`` (M,)
float32, ``offsets`` (n + 1,) int64 (picture i owns the rows ``offsets[i]:offsets[i + 1]``), and the n picture
paths as JSON in its metadata. Nothing is ever unpickled.

Pictures are found again by the end of their path, since the same data may lie elsewhere: the entry with the
most equal last parts is taken.

Letters: n pictures, M proposals of all pictures, p proposals of one picture.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

import frcnn
from frcnn.config import Config
from frcnn.data.packed import Packed
from frcnn.data.sample import DataError, Dataset, Floats, Ints
from frcnn.files import write_atomic

FORMAT = 1
KEY = "frcnn_proposals"
"""Of the metadata."""
SHOWN = 5
KINDS = {"boxes": ("F32", np.float32, 2), "scores": ("F32", np.float32, 1), "offsets": ("I64", np.int64, 1)}
"""Tensor -> its type in the file and in memory, and its dimensions."""


@dataclass(frozen=True, eq=False)
class ProposalFile:
    """A proposals file, opened but not read: boxes come from the disk when they are asked for.

    Attributes:
        path: the file.
        paths: n pictures, as they were named where the proposals were made.
        offsets: (n + 1,) int64.
    """

    path: Path
    paths: Packed
    offsets: Ints

    def __len__(self) -> int:
        return len(self.paths)

    def __getstate__(self) -> dict[str, Any]:
        """A process that gets a copy maps the file itself."""
        return {k: v for k, v in vars(self).items() if k not in ("boxes", "scores")}

    @cached_property
    def boxes(self) -> Floats:
        """(M, 4) float32, mapped."""
        return _mapped(self.path, "boxes")

    @cached_property
    def scores(self) -> Floats:
        """(M,) float32, mapped."""
        return _mapped(self.path, "scores")

    def of(self, index: int) -> tuple[Floats, Floats]:
        """The boxes (p, 4) and scores (p,) of picture ``index``, best first.

        Raises:
            DataError: when one is not a number.
        """
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        boxes, scores = np.array(self.boxes[rows]), np.array(self.scores[rows])
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise DataError(f"{self.path}: a proposal of {self.paths[index]} is no number; make it anew")
        order = np.argsort(-scores, kind="stable")
        return boxes[order], scores[order]

    @cached_property
    def digest(self) -> str:
        """Of the whole content."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class GivenProposals:
    """The proposals of a data set's pictures.

    Attributes:
        file: where they are.
        rows: (n,) int64, for every picture of the data set its position in the file.
    """

    file: ProposalFile
    rows: Ints

    def boxes(self, index: int) -> Floats:
        """(p, 4) float32 of picture ``index``, best first, in pixels of the original picture."""
        return self.file.of(int(self.rows[index]))[0]

    def take(self, indices: Ints) -> GivenProposals:
        """Those of the chosen pictures."""
        return replace(self, rows=self.rows[indices])


def write(
    path: str | Path, pictures: Sequence[str | Path], found: Iterable[tuple[NDArray[Any], NDArray[Any]]]
) -> int:
    """Write a proposals file in one piece.

    Args:
        path: of the file.
        pictures: n picture files.
        found: for each of them boxes (p, 4) in its pixels and scores (p,).

    Returns:
        The number of proposals.

    Raises:
        ValueError: when there are not as many results as pictures, or boxes and scores do not go together.
    """
    boxes: list[Floats] = [np.zeros((0, 4), np.float32)]
    scores: list[Floats] = [np.zeros(0, np.float32)]
    for corners, values in found:
        boxes.append(np.asarray(corners, np.float32).reshape(-1, 4))
        scores.append(np.asarray(values, np.float32).reshape(-1))
        if len(boxes[-1]) != len(scores[-1]):
            raise ValueError(f"{len(boxes[-1])} boxes with {len(scores[-1])} scores; give one of each")
    if len(boxes) - 1 != len(pictures):
        raise ValueError(f"results of {len(boxes) - 1} for {len(pictures)} pictures; give one of each")
    offsets = np.cumsum([0, *map(len, boxes[1:])], dtype=np.int64)
    content = {"boxes": np.concatenate(boxes), "scores": np.concatenate(scores), "offsets": offsets}
    header = {"format": FORMAT, "version": frcnn.__version__, "pictures": [str(p) for p in pictures]}

    def save(temporary: Path) -> None:
        safetensors.numpy.save_file(content, temporary, metadata={KEY: json.dumps(header)})

    write_atomic(Path(path), save)
    return int(offsets[-1])


def read(path: str | Path) -> ProposalFile:
    """Open a proposals file.

    Raises:
        DataError: when it is missing, no proposals file, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such proposals file; frcnn predict MODEL PICTURES --proposals-out FILE makes one"
        )
    try:
        with safetensors.safe_open(str(path), framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
            names = set(file.keys())
            offsets: Ints | None = file.get_tensor("offsets") if "offsets" in names else None
    except safetensors.SafetensorError as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None
    if text is None:
        raise DataError(f"{path}: safetensors without proposals; frcnn predict --proposals-out makes them")
    damaged = DataError(f"{path}: a damaged proposals file; make it anew with frcnn predict --proposals-out")
    try:
        header = json.loads(text)
        pictures, version = header["pictures"], header["format"]
    except (ValueError, TypeError, KeyError):
        raise damaged from None
    if not isinstance(pictures, list) or not all(isinstance(p, str) for p in pictures):
        raise damaged
    if version != FORMAT:
        raise DataError(f"{path}: proposals written by frcnn {header.get('version')}, not known here; update")
    if offsets is None or not _consistent(path, offsets, len(pictures)):
        raise damaged
    return ProposalFile(path.absolute(), Packed(pictures), offsets)


def check_second_stage(config: Config) -> None:
    """Make sure that a detector can use given proposals.

    Raises:
        ValueError: when it has no second stage.
    """
    if config.detector != "two_stage":
        raise ValueError(
            f"proposals are for a second stage, and recipe {config.recipe!r} (detector {config.detector}) "
            "has none; leave out --proposals"
        )


def attach(dataset: Dataset, file: ProposalFile) -> Dataset:
    """The data set with the proposals of its pictures, which the loader then puts into its batches.

    Raises:
        DataError: naming pictures that the file does not have, or has more than once.
    """
    return replace(dataset, proposals=GivenProposals(file, match(dataset, file)))


def match(dataset: Dataset, file: ProposalFile) -> Ints:
    """(n,) for every picture of the data set its position in the file, by the longest equal end of the path.

    Raises:
        DataError: naming pictures that the file does not have, or has more than once.
    """
    by_name: defaultdict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(file.paths):
        by_name[PurePath(name).name].append(i)
    rows, lengths = np.full(len(dataset), -1, np.int64), np.zeros(len(dataset), np.int64)
    unclear: list[str] = []
    for k, name in enumerate(dataset.pictures.paths):
        mine = os.path.abspath(dataset.root / name)
        ends = [(_common_end(mine, file.paths[i]), i) for i in by_name.get(PurePath(name).name, ())]
        lengths[k] = max((length for length, _ in ends), default=0)
        best = [i for length, i in ends if length == lengths[k]]
        if len(best) == 1:
            rows[k] = best[0]
        elif best:
            unclear.append(name)
    if unclear:
        raise DataError(_sentence(file, unclear, "are in it more than once", "name them by longer paths"))
    missing = _without_own(rows, lengths)
    if len(missing):
        names = [dataset.pictures.paths[int(k)] for k in missing]
        raise DataError(_sentence(file, names, "have no proposals in it", "make them for all pictures"))
    return rows


def _without_own(rows: Ints, lengths: Ints) -> Ints:
    """Pictures without an entry, and those whose entry another picture has a longer (or equal) claim to."""
    order = np.lexsort((-lengths, rows))  # by entry, the longest claim first
    again = np.concatenate([[False], rows[order][1:] == rows[order][:-1]]) if len(rows) else np.zeros(0, bool)
    return np.flatnonzero((rows < 0) | np.isin(np.arange(len(rows)), order[again]))


def _common_end(a: str, b: str) -> int:
    """How many last parts of two paths are equal; more than there are parts where all are."""
    mine, theirs = PurePath(a).parts[::-1], PurePath(b).parts[::-1]
    equal = 0
    while equal < min(len(mine), len(theirs)) and mine[equal] == theirs[equal]:
        equal += 1
    return equal


def _sentence(file: ProposalFile, names: Sequence[str], what: str, advice: str) -> str:
    first = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{file.path}: {len(names)} pictures of the data set {what} ({first}); {advice}"


def _consistent(path: Path, offsets: Ints, pictures: int) -> bool:
    header = _header(path)[0]
    for name, (kind, _, dimensions) in KINDS.items():
        entry = header.get(name)
        if entry is None or entry["dtype"] != kind or len(entry["shape"]) != dimensions:
            return False
    rows = header["boxes"]["shape"][0]
    whole = len(offsets) == pictures + 1 and offsets[0] == 0 and offsets[-1] == rows
    same = header["boxes"]["shape"][1] == 4 and header["scores"]["shape"][0] == rows
    return bool(whole and same and (np.diff(offsets) >= 0).all())


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The description of the tensors, which safetensors has already checked, and where they begin."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size)), 8 + size


def _mapped(path: Path, name: str) -> NDArray[Any]:
    header, start = _header(path)
    kind, shape = KINDS[name][1], tuple(header[name]["shape"])
    if 0 in shape:
        return np.zeros(shape, kind)  # nothing cannot be mapped
    return np.memmap(path, kind, "r", start + header[name]["data_offsets"][0], shape)
