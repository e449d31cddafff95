"""Pascal VOC: one XML file for each picture.

Read are the devkit (``JPEGImages``, ``Annotations``, ``ImageSets/Main``; also one level down, as in
``VOCdevkit/VOC2012``) and plain folders: pictures and XML side by side or in folders of any name. There,
folders called train, val, valid, validation or test are splits. An XML file belongs to the picture of the
same base name, else to the one its ``<filename>`` names; ``<path>`` and ``<folder>`` are what the labeller's
machine had and mean nothing.

Coordinates may have decimals. They are 1-based and include both ends; ``vocxml.from_one_based`` says how they
become ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frcnn.data import vocxml
from frcnn.data.assemble import Reading, Record
from frcnn.data.findings import Finding, Problem
from frcnn.data.layout import SPLIT_NAMES, PictureIndex, Tree, base_name, data_set_root
from frcnn.data.pairing import picture_of
from frcnn.data.sample import DataError

_CLASS_FILE = re.compile(r".+_(train|val|trainval|test)\.txt$")
_FLAG_LINE = re.compile(r"\S+\s+(-1|0|1)$")


def detects(tree: Tree) -> bool:
    """Whether there are XML files."""
    return bool(tree.with_endings([".xml"]))


def read(tree: Tree) -> Reading:
    """Read all annotations; what is wrong in them becomes findings.

    Raises:
        DataError: when the folder holds several data sets, or no picture.
    """
    tree = data_set_root(tree, "Annotations", "JPEGImages")
    pictures = [p for p in tree.pictures if p.startswith("JPEGImages/")] or list(tree.pictures)
    if not pictures:
        raise DataError(
            f"{tree.root}: holds XML files and no pictures; put the pictures into the same folder"
        )
    files = tree.with_endings([".xml"])
    files = tuple(f for f in files if f.startswith("Annotations/")) or files
    index = PictureIndex(pictures)
    listed, findings = _read_lists(tree, index)
    splits = listed or _folder_splits(pictures)
    of_picture: dict[str, Record] = {}
    for file in files:
        findings += _read_file(tree.root, file, index, of_picture, set(listed))
    position = {picture: i for i, picture in enumerate(pictures)}
    records = [of_picture.get(p) or Record(p) for p in pictures]
    return Reading(
        tree.root,
        records,
        {name: [position[p] for p in members] for name, members in splits.items()},
        findings,
    )


def _read_file(
    root: Path, file: str, index: PictureIndex, of_picture: dict[str, Record], listed: set[str]
) -> list[Finding]:
    """Read one XML file into ``of_picture``."""
    place = str(root / file)
    try:
        content = vocxml.parse((root / file).read_bytes())
    except OSError as error:
        content = vocxml.VocFile(problems=(Problem(0, f"cannot be read ({error.strerror})"),))
    if content.root not in ("", "annotation"):
        known = bool(index.candidates(file, content.filename))
        message = f"is not a VOC annotation: its outermost element is <{content.root}>"
        action = "replace the file" if known else "not used"
        return [Finding("D16", "error" if known else "warn", message, place, 1, action)]
    action = "correct the file, or export it again"
    findings = [Finding("D16", "error", p.reason, place, p.line, action) for p in content.problems]
    picture, problem = picture_of(
        file, place, index, of_picture, stated=content.filename, listed=bool(listed)
    )
    if problem is not None:
        return [*findings, problem]
    boxes = vocxml.from_one_based(content.corners)
    of_picture[picture] = Record(
        picture,
        file,
        content.size,
        boxes,
        content.names,
        content.difficult,
        content.lines,
        content.truncated.astype(np.float32),
    )
    return findings


def _folder_splits(pictures: Sequence[str]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for picture in pictures:
        for part in picture.split("/")[:-1]:
            if part.lower() in SPLIT_NAMES:
                splits.setdefault(SPLIT_NAMES[part.lower()], []).append(picture)
                break
    return splits


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _read_lists(tree: Tree, index: PictureIndex) -> tuple[dict[str, list[str]], list[Finding]]:
    """The lists of ``ImageSets``: pictures of every split, and the names without a picture."""
    texts = [f for f in tree.files if f.endswith(".txt")]
    lists = [f for f in texts if re.fullmatch(r"ImageSets/Main/[^/]+", f)]
    lists = lists or [f for f in texts if re.fullmatch(r"ImageSets/[^/]+", f)]
    splits: dict[str, list[str]] = {}
    missing: dict[str, tuple[str, int, list[str]]] = {}
    for file in lists:
        text = _read_text(tree.root / file)
        lines = [line.strip() for line in text.splitlines()]
        if _CLASS_FILE.match(file) and lines and all(_FLAG_LINE.match(line) for line in lines if line):
            continue  # "aeroplane_train.txt": which pictures show a class; the annotations say that already
        split = base_name(file).removesuffix(".txt")
        splits[split] = []
        for number, name in enumerate(lines, 1):
            matches = index.candidates(name) if name else []
            if len(matches) == 1:
                splits[split].append(matches[0])
            elif name:
                missing.setdefault(name, (file, number, []))[2].append(split)
        splits[split] = list(dict.fromkeys(splits[split]))
    findings = [
        Finding("D12", "error", f'lists "{name}", which is not a picture here', str(tree.root / file), line,
                "add the picture, or take the name off the list", tuple(names))
        for name, (file, line, names) in missing.items()
    ]  # fmt: skip
    return splits, findings
