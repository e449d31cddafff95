"""The files below a data set's folder: which there are, what their names say, and how they are read."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from frcnn.data.pictures.channels import ARRAYS
from frcnn.data.pictures.image import EXTENSIONS, NAMED
from frcnn.data.sample import DataError

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What folders and files of a split are called, lower case -> the split."""
WHOLE = {".yaml": "yolo", ".yml": "yolo", ".data": "yolo", ".json": "coco", ".csv": "csv", ".tsv": "csv"}
"""Endings of files that describe a whole data set, and the key of its format."""
ANNOTATIONS = frozenset(".xml .json .txt .csv .yaml .yml .data .names".split())
"""Files with these endings may be annotations."""
SMALL, LARGE = 100_000_000, 2_000_000_000
"""Bytes that the annotations of one picture, and of a whole data set, may have."""


def base_name(path: str) -> str:
    """Last part of a path written on any system."""
    return re.split(r"[\\/]", path)[-1]


def stem(path: str) -> str:
    """Last part of a path without a picture's or annotation's ending; other dots belong to the name."""
    name, ending = os.path.splitext(base_name(path))
    return name if ending.lower() in NAMED or ending.lower() == ".xml" else name + ending


@dataclass(frozen=True)
class Tree:
    """All files below ``root``, as sorted paths with "/" between the parts.

    Attributes:
        root: the folder.
        files: plain files.
        outward: links to pictures, annotations and folders outside ``root``; they are not followed.
        only: the one file that describes the data set, where it was named; "" where the folder was.
    """

    root: Path
    files: tuple[str, ...]
    outward: tuple[str, ...] = ()
    only: str = ""

    @cached_property
    def pictures(self) -> tuple[str, ...]:
        """The files with a picture's ending; arrays only where there are no others."""
        return self.with_endings(EXTENSIONS) or self.with_endings((ARRAYS,))

    def with_endings(self, endings: Iterable[str]) -> tuple[str, ...]:
        """The files with one of the endings (lower case, with dot)."""
        wanted = frozenset(endings)
        return tuple(f for f in self.files if os.path.splitext(f)[1].lower() in wanted)

    def below(self, folder: str) -> Tree:
        """The part below a folder."""
        prefix = folder + "/"
        inside, outward = (
            tuple(f[len(prefix) :] for f in names if f.startswith(prefix))
            for names in (self.files, self.outward)
        )
        return Tree(self.root / folder, inside, outward)

    @cached_property
    def folders(self) -> frozenset[str]:
        """All folders that hold a file, "" for the root itself."""
        above = {f.rpartition("/")[0] for f in self.files}
        for folder in list(above):
            while folder := folder.rpartition("/")[0]:
                above.add(folder)
        return frozenset(above | {""})


def scan(path: str | Path, links: str = "refuse") -> Tree:
    """List a data set's folder with all its subfolders; hidden files and folders are left out, and so is what
    is no plain file.

    Args:
        path: the folder, which may be a link itself; or the file in it that describes the data set, such as
            ``data.yaml``: then others of its kind are left out.
        links: ``refuse``: what is linked from outside the folder is listed as ``outward``; ``follow``: it is
            taken like the rest.

    Raises:
        DataError: when it is missing, another file, or may not be read.
    """
    root, only = Path(path), ""
    if not root.exists():
        parent = next((p for p in root.parents if p.is_dir()), Path())
        what = "file" if root.suffix.lower() in WHOLE else "folder"
        raise DataError(f"{path}: no such {what}; {parent} exists, check the rest of the path")
    if not root.is_dir():
        if root.suffix.lower() not in WHOLE:
            raise DataError(f"{path}: is a file; give the folder that holds the pictures and annotations")
        given, root = root, root.parent
        if root.name == "annotations":  # COCO's, beside the folders of pictures
            root = root.parent
        only = given.relative_to(root).as_posix()
    walk = _Walk(None if links == "follow" else os.path.realpath(root))
    walk.enter(root, "", frozenset())
    files = sorted(walk.files)
    if only:
        others = {ending for ending, kind in WHOLE.items() if kind == WHOLE[Path(only).suffix.lower()]}
        files = [f for f in files if f == only or os.path.splitext(f)[1].lower() not in others]
    return Tree(root, tuple(files), tuple(sorted(walk.outward)), only)


class _Walk:
    """Collects files; ``inside`` is the real path that links may not leave, None where they may."""

    def __init__(self, inside: str | None) -> None:
        self.inside = inside
        self.files: list[str] = []
        self.outward: list[str] = []

    def enter(self, folder: Path, prefix: str, above: frozenset[str]) -> None:
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
            name = prefix + entry.name
            if entry.is_symlink() and self._leads_out(entry.path):
                if entry.is_dir() or os.path.splitext(entry.name)[1].lower() in NAMED | ANNOTATIONS:
                    self.outward.append(name)
            elif entry.is_dir():
                self.enter(folder / entry.name, f"{name}/", above | {real})
            elif entry.is_file() or entry.is_symlink():  # a link to nothing is reported when it is needed
                self.files.append(name)

    def _leads_out(self, path: str) -> bool:
        target = os.path.realpath(path)
        return self.inside is not None and os.path.commonpath([self.inside, target]) != self.inside


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


def folder_splits(pictures: Iterable[str]) -> dict[str, list[str]]:
    """The pictures below folders called train, val, valid, validation or test, by split."""
    splits: dict[str, list[str]] = {}
    for picture in pictures:
        for part in picture.split("/")[:-1]:
            if part.lower() in SPLIT_NAMES:
                splits.setdefault(SPLIT_NAMES[part.lower()], []).append(picture)
                break
    return splits


def split_in_name(file: str) -> str:
    """The split that a file of annotations is about by the words of its name, "" for none."""
    name = os.path.splitext(base_name(file))[0]
    words = {SPLIT_NAMES.get(word, word) for word in re.split(r"[^a-z]+", name.lower())}
    return next((known for known in ("trainval", "train", "val", "test") if known in words), "")


def split_in_folders(file: str) -> str:
    """The split that the innermost folder with the name of one says, "" for none."""
    folders = [part.lower() for part in file.split("/")[:-1]]
    return next((SPLIT_NAMES[part] for part in reversed(folders) if part in SPLIT_NAMES), "")


def read_bytes(path: Path, most: int = LARGE) -> bytes:
    """The content of an annotation file.

    Raises:
        OSError: when it cannot be read, is no plain file, or has more than ``most`` bytes; ``strerror`` says
            which.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file")
    if found.st_size > most:
        size, limit = found.st_size / 1e6, most / 1e6
        raise OSError(errno.EFBIG, f"it has {size:,.0f} MB, and at most {limit:,.0f} MB are read")
    return path.read_bytes()


def read_head(path: Path, count: int = 4096) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError:
        return b""


def read_text(path: Path, most: int = SMALL) -> str:
    """A text file: UTF-8, or else Latin-1, which reads anything.

    Raises:
        OSError: as ``read_bytes``.
    """
    content = read_bytes(path, most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_lines(path: Path, most: int = SMALL) -> list[str]:
    """The lines of such a file.

    Raises:
        OSError: as ``read_bytes``.
    """
    return split_lines(read_text(path, most))


def split_lines(text: str) -> list[str]:
    """The lines of a text, whatever ends them."""
    return re.split(r"\r\n|\r|\n", text)
