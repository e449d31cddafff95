"""The files below a data set's folder, and which of them belong together."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from frcnn.data.image import EXTENSIONS
from frcnn.data.sample import DataError

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What folders and files of a split are called, lower case -> the split."""


def base_name(path: str) -> str:
    """Last part of a path written on any system."""
    return re.split(r"[\\/]", path)[-1]


def stem(path: str) -> str:
    """Last part of a path without a picture's or annotation's ending; other dots belong to the name."""
    name, ending = os.path.splitext(base_name(path))
    return name if ending.lower() in EXTENSIONS or ending.lower() == ".xml" else name + ending


@dataclass(frozen=True)
class Tree:
    """All files below ``root``, as sorted paths with "/" between the parts."""

    root: Path
    files: tuple[str, ...]

    @cached_property
    def pictures(self) -> tuple[str, ...]:
        """The files with a picture's ending."""
        return self.with_endings(EXTENSIONS)

    def with_endings(self, endings: Iterable[str]) -> tuple[str, ...]:
        """The files with one of the endings (lower case, with dot)."""
        wanted = frozenset(endings)
        return tuple(f for f in self.files if os.path.splitext(f)[1].lower() in wanted)

    def below(self, folder: str) -> Tree:
        """The part below a folder."""
        prefix = folder + "/"
        return Tree(self.root / folder, tuple(f[len(prefix) :] for f in self.files if f.startswith(prefix)))


def scan(path: str | Path) -> Tree:
    """List a data set's folder with all its subfolders; hidden files and folders are left out.

    Raises:
        DataError: when it is missing, a file, or may not be read.
    """
    root = Path(path)
    if not root.exists():
        parent = next((p for p in root.parents if p.is_dir()), Path())
        raise DataError(f"{path}: no such folder; {parent} exists, check the rest of the path")
    if not root.is_dir():
        raise DataError(f"{path}: is a file; give the folder that holds the pictures and annotations")
    files: list[str] = []
    _walk(root, "", files, frozenset())
    return Tree(root, tuple(sorted(files)))


def _walk(folder: Path, prefix: str, files: list[str], above: frozenset[str]) -> None:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that we are in
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir():
            _walk(folder / entry.name, f"{prefix}{entry.name}/", files, above | {real})
        else:
            files.append(prefix + entry.name)


class PictureIndex:
    """Finds the picture that a name or an annotation file means."""

    def __init__(self, pictures: Iterable[str]) -> None:
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for picture in pictures:
            self._by_stem[stem(picture)].append(picture)
            self._by_name[base_name(picture)].append(picture)

    def candidates(self, path: str, filename: str = "") -> list[str]:
        """Pictures that an annotation may belong to: one, when it is clear.

        Args:
            path: the annotation file, or a name from a list of pictures.
            filename: the file name that the annotation states; its folders mean nothing.
        """
        stated = base_name(filename.strip())
        found = self._by_stem.get(stem(path)) or self._by_name.get(stem(path)) or []
        found = found or self._by_name.get(stated) or self._by_stem.get(stem(stated)) or []
        if len(found) > 1:  # a.jpg beside a.png: the annotation states which
            found = [f for f in found if base_name(f) in (stated, base_name(path))] or found
        if len(found) > 1:  # train/1.jpg and val/1.jpg: the annotation lies in a folder of the same name
            parts = set(path.split("/")[:-1])
            shared = [len(parts.intersection(f.split("/")[:-1])) for f in found]
            found = [f for f, count in zip(found, shared, strict=True) if count == max(shared)]
        return found


def data_set_root(tree: Tree, first: str, second: str) -> Tree:
    """The folder that holds the folders ``first`` and ``second``, if there is one; else the tree as it is.

    Raises:
        DataError: when several folders do.
    """
    above = [
        {f[: match.start(1)] for f in tree.files if (match := re.search(rf"(?:^|/)({name}/)", f))}
        for name in (first, second)
    ]
    roots = sorted(above[0] & above[1])
    if not roots or "" in roots:
        return tree
    if len(roots) > 1:
        names = ", ".join(r.rstrip("/") for r in roots)
        raise DataError(
            f"{tree.root}: holds {len(roots)} data sets ({names}); give the folder of one of them"
        )
    return tree.below(roots[0].rstrip("/"))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file: UTF-8, or else Latin-1, which reads anything.

    Raises:
        OSError: when it cannot be read.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return re.split(r"\r\n|\r|\n", text)
