"""YOLO: one text file for each picture, with a class number and shares of the picture's sides in every row.

Read are Ultralytics' layout (``data.yaml`` with ``names`` and train, val, test as folder, list of folders or
list file), Darknet's (``.data``, ``.names`` and list files), and folders without any such file. The labels of
``images/a.jpg`` are ``labels/a.txt`` (the last folder called images or JPEGImages counts), else ``a.txt``
beside it, else the label file of the same name. A picture without one is background.

A row is class, centre x, centre y, width, height. A row of a polygon (class and at least three points) is
read as its bounding box. Where there is no ``names``, ``classes.txt`` or ``*.names`` has them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from frcnn.data.assemble import Reading, Record
from frcnn.data.findings import Finding, Problem
from frcnn.data.layout import (
    SPLIT_NAMES,
    PictureIndex,
    Tree,
    base_name,
    folder_splits,
    read_lines,
    read_text,
)
from frcnn.data.lists import list_of_paths
from frcnn.data.pairing import by_base_name, picture_of
from frcnn.data.sample import DataError
from frcnn.data.yolotext import (
    Labels,
    Setup,
    looks_like_labels,
    parse_data,
    parse_labels,
    parse_names,
    parse_yaml,
)

_FOLDER = re.compile(r"(.*(?:^|/))(?:images|JPEGImages)(/.*)")
_IN_LABELS = re.compile(r"(?:^|/)labels/")
_NAMES = re.compile(r"^(names|nc)\s*:", re.MULTILINE)
_SPLIT = re.compile(r"^(train|val|valid|validation|test)\s*:", re.MULTILINE)
_DATA = re.compile(r"^\s*(train|valid)\s*=", re.MULTILINE)
_LISTS = {f"{word}.txt": split for word, split in SPLIT_NAMES.items()}
SNIFFED = 50
"""Label files that are looked into to find out whether they are YOLO's."""


@dataclass
class _Names:
    """The classes of a data set: their names by number, and the file that has them ("" for none)."""

    of: dict[int, str] = field(default_factory=dict)
    file: str = ""


def detects(tree: Tree) -> bool:
    """Whether there is a ``data.yaml`` or ``.data`` file, or label files with YOLO's rows."""
    if not tree.pictures:
        return False
    if setup_files(tree):
        return True
    labels = [file for file, owners in _label_files(tree, tree.pictures).items() if owners is not None]
    return any(looks_like_labels(_lines(tree, file)) for file in labels[:SNIFFED])


def setup_files(tree: Tree) -> list[str]:
    """The files that name classes and splits."""
    yamls = [
        f
        for f in tree.with_endings([".yaml", ".yml"])
        if _NAMES.search(text := _text(tree, f)) and _SPLIT.search(text)
    ]
    return yamls or [f for f in tree.with_endings([".data"]) if _DATA.search(_text(tree, f))]


def _text(tree: Tree, file: str) -> str:
    try:
        return read_text(tree.root / file)
    except OSError:
        return ""


def _lines(tree: Tree, file: str) -> list[str]:
    return _text(tree, file).splitlines()


def _label_files(tree: Tree, pictures: Sequence[str]) -> dict[str, list[str]]:
    """The label files, each with the pictures whose label its place says it is."""
    owners = defaultdict[str, list[str]](list)
    texts = tree.with_endings([".txt"])
    for picture in pictures:
        plain = picture.rpartition(".")[0]
        match = _FOLDER.fullmatch(plain)
        for label in {f"{match[1]}labels{match[2]}.txt" if match else "", f"{plain}.txt"}:
            owners[label].append(picture)
    return {
        file: owners.get(file, [])
        for file in texts
        if (file in owners or _IN_LABELS.search(file))
        and base_name(file) != "classes.txt"
        and file not in _LISTS
    }


def read(tree: Tree) -> Reading:
    """Read all label files; what is wrong in them becomes findings.

    Raises:
        DataError: when several files name classes and splits, or a list cannot be read.
    """
    setup, file, findings = _setup(tree)
    names, more = _names(tree, setup, file)
    findings += more
    splits, used, more = _splits(tree, setup, file)
    findings += more
    owners, index = _label_files(tree, tree.pictures), PictureIndex(tree.pictures)
    of_picture, polygons = dict[str, Record](), 0
    for label, pictures in owners.items():
        found, count = _read_file(tree.root, label, pictures, index, of_picture, names, setup.keypoints, used)
        findings += found
        polygons += count
    pictures = [p for p in tree.pictures if used is None or p in used]
    records = [of_picture.get(p) or Record(p) for p in pictures]
    position = {picture: i for i, picture in enumerate(pictures)}
    root = str(tree.root)
    if len(pictures) < len(tree.pictures):
        message = (
            f"{len(tree.pictures) - len(pictures)} of {len(tree.pictures)} pictures are in no split of {file}"
        )
        findings.append(Finding("D12", "note", message, root, 0, "left out"))
    if polygons:
        findings.append(
            Finding("D16", "note", f"{polygons} rows are polygons", root, 0, "read as their boxes")
        )
    if of_picture and not names.of:
        action = "put a file classes.txt with a name in each line beside the labels"
        findings.append(
            Finding("D07", "warn", "no class has a name: numbers are their names", root, 0, action)
        )
    present = {name for r in records for name in r.names}
    for name in sorted(set(names.of.values()) - present) if present else ():
        findings.append(
            Finding("D08", "note", f'name "{name}" has no box', str(tree.root / names.file), 0, "not a class")
        )
    ids = defaultdict[str, list[str]](list)
    for number, name in sorted(names.of.items()):
        ids[name].append(str(number))
    rows = {name: [position[p] for p in members] for name, members in splits.items()}
    return Reading(tree.root, records, rows, findings, source_ids={k: ", ".join(v) for k, v in ids.items()})


def _setup(tree: Tree) -> tuple[Setup, str, list[Finding]]:
    """What the file with classes and splits says, which file that is, and what is wrong in it."""
    files = setup_files(tree)
    files = [f for f in files if base_name(f) in ("data.yaml", "data.yml")] or files
    if len(files) > 1:
        raise DataError(
            f"{tree.root}: {len(files)} files name classes and splits ({', '.join(files[:4])}); "
            "give the folder of one of them, or move the others away"
        )
    if not files:
        return Setup(), "", []
    (file,) = files
    parse = parse_data if file.endswith(".data") else parse_yaml
    setup = parse(_text(tree, file))
    place, action = str(tree.root / file), "correct the file"
    return setup, file, [Finding("D16", "error", p.reason, place, p.line, action) for p in setup.problems]


def _names(tree: Tree, setup: Setup, file: str) -> tuple[_Names, list[Finding]]:
    """The class names; without any, boxes are called by their numbers."""
    findings: list[Finding] = []
    names = _Names(setup.names, file)
    if not names.of:
        wanted = base_name(setup.names_file)
        files = [f for f in tree.files if base_name(f) == (wanted or "classes.txt")]
        files = files or list(tree.with_endings([".names"]))
        files.sort(key=lambda f: (f.count("/"), f))
        if files:
            names = _Names(parse_names(_lines(tree, files[0])), files[0])
        others = [f for f in files[1:] if parse_names(_lines(tree, f)) != names.of]
        if others:
            message = f"has other class names than {names.file}"
            findings.append(
                Finding("D07", "error", message, str(tree.root / others[0]), 0, "keep one of the two")
            )
    place = str(tree.root / names.file)
    first: dict[str, int] = {}
    for number, name in sorted(names.of.items()):
        if not name:
            message = f"class {number} has an empty name"
            findings.append(Finding("D07", "error", message, place, 0, "give it a name"))
        elif first.setdefault(name, number) != number:
            message = f'class {number} has the name "{name}" of class {first[name]}'
            findings.append(Finding("D07", "warn", message, place, 0, "both are one class"))
    return names, findings


def _splits(
    tree: Tree, setup: Setup, file: str
) -> tuple[dict[str, list[str]], set[str] | None, list[Finding]]:
    """The pictures of every split, the pictures of all of them (None: all there are), and findings."""
    known, findings = by_base_name(tree.pictures), list[Finding]()
    splits: dict[str, list[str]] = {}
    if setup.splits:
        for split, places in setup.splits.items():
            members, found = _members(tree, split, places, setup.base, file, known)
            findings += found
            if members:
                splits[split] = members
        return splits, {p for members in splits.values() for p in members}, findings
    for text in tree.files:
        if text in _LISTS:
            split = _LISTS[text]
            splits[split], found = list_of_paths(tree, text, split, known)
            findings += found
    return splits or folder_splits(tree.pictures), None, findings


def _members(
    tree: Tree,
    split: str,
    places: Sequence[tuple[str, int]],
    base: str,
    file: str,
    known: dict[str, list[str]],
) -> tuple[list[str], list[Finding]]:
    """The pictures at the places that a split names."""
    members, findings, place = list[str](), list[Finding](), str(tree.root / file)
    for stated, line in places:
        found = _locate(tree, stated, base, file.rpartition("/")[0])
        if found is None:
            message = f'{split}: "{stated}" is no folder and no list here'
            action = "correct the path; only what is below the data set's folder is read"
            findings.append(Finding("D12", "error", message, place, line, action, (split,)))
        elif found in tree.files:
            listed, more = list_of_paths(tree, found, split, known)
            members += listed
            findings += more
        else:
            members += [p for p in tree.pictures if not found or p.startswith(f"{found}/")]
    return list(dict.fromkeys(members)), findings


def _locate(tree: Tree, stated: str, base: str, folder: str) -> str | None:
    """The folder or list file below the root that a path means; folders of another machine do not count.

    A plain relative path must be there in full; one that is absolute, leads upwards or has a ``path`` before
    it may lose folders at its beginning.
    """
    before, own = (
        [p for p in re.split(r"[\\/]", text) if p not in ("", ".", "..")] for text in (base, stated)
    )
    elsewhere = ".." in stated or bool(re.match(r"[\\/]|\w:", stated))
    if elsewhere and not own:
        return None
    most = len(before)
    while elsewhere and most < len(before + own) - 1 and own[most - len(before)].lower() not in SPLIT_NAMES:
        most += 1  # "train" in ../train/images is no folder of another machine
    for lost in range(most + 1):
        end = "/".join((before + own)[lost:])
        for prefix in (folder, ""):
            name = f"{prefix}/{end}".strip("/")
            if name in tree.folders or name in tree.files:
                return name
    return None


def _read_file(
    root: Path,
    file: str,
    owners: Sequence[str],
    index: PictureIndex,
    of_picture: dict[str, Record],
    names: _Names,
    keypoints: int,
    used: set[str] | None,
) -> tuple[list[Finding], int]:
    """Read one label file into ``of_picture``; its findings, and how many of its rows were polygons."""
    place = str(root / file)
    picture, problem = (
        (owners[0], None)
        if len(owners) == 1 and owners[0] not in of_picture
        else (picture_of(file.removesuffix(".txt"), place, index, of_picture))
    )
    if used is not None and picture and picture not in used:
        return [], 0
    try:
        content = parse_labels(read_lines(root / file), keypoints)
    except OSError as error:
        content = Labels(problems=(Problem(0, f"cannot be read ({error.strerror})"),))
    action = "correct the label file, or get it again"
    findings = [Finding(p.code, "error", p.reason, place, p.line, action) for p in content.problems]
    if problem is not None:
        return [*findings, problem], 0
    known = np.asarray([not names.of or bool(names.of.get(k)) for k in content.ids.tolist()], bool)
    known &= content.ids >= 0
    for number, line in zip(content.ids[~known].tolist(), content.lines[~known].tolist(), strict=True):
        message = f"class {number} has no name: {_range(names)}"
        findings.append(Finding("D07", "error", message, place, line, "correct the row, or add the name"))
    called = tuple(names.of.get(k, str(k)) for k in content.ids[known].tolist())
    of_picture[picture] = Record(
        picture,
        file,
        boxes=content.boxes[known].astype(np.float32),
        names=called,
        flagged=np.zeros(len(called), bool),
        lines=content.lines[known],
        relative=True,
    )
    return findings, content.polygons


def _range(names: _Names) -> str:
    if not names.of:
        return "classes are counted from 0"
    return f"{names.file} has {len(names.of)}, {min(names.of)} to {max(names.of)}"
