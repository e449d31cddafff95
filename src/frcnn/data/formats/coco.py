"""COCO detection: JSON files that list pictures, categories and annotations.

Read are COCO's own layout (``annotations/instances_train2017.json`` beside ``train2017/``) and any COCO file
beside or above a folder of pictures, such as ``train/_annotations.coco.json``. Where there are files called
``instances_*.json``, only those count. A file's split is in its name, else in that of its folder; one that
names none, alone, has no splits.

A picture is found by the end of its path: ``file_name`` may hold folders. Pictures that no file lists are
left out; listed ones without annotations are background. Categories become classes by their names, whatever
their ids. Boxes are x, y, width, height from 0, so x2 = x + width. ``iscrowd`` and ``ignore`` are the flag
``crowd``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from frcnn.data.findings import Finding, Problem
from frcnn.data.formats import cocojson
from frcnn.data.formats.assemble import Reading, Record
from frcnn.data.formats.cocojson import CocoFile
from frcnn.data.formats.layout import LARGE, Tree, read_bytes, read_head, split_in_folders, split_in_name
from frcnn.data.formats.pairing import PictureFolders, by_base_name, stated_pictures
from frcnn.data.sample import DataError, Ints

_INSTANCES = re.compile(r"(?:^|.*/)instances_([^/]+)\.json$")
_USUAL = re.compile(r"(?:^|.*/)_?annotations(\.coco)?\.json$", re.IGNORECASE)
_SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
_KEYS = (b'"images"', b'"annotations"', b'"categories"')
ACTION = "correct the file, or export it again"


def detects(tree: Tree) -> bool:
    """Whether there are files that look like COCO's."""
    return bool(annotation_files(tree))


def annotation_files(tree: Tree) -> list[str]:
    """The files to read: ``instances_*.json``; else those whose name or content is that of COCO files."""
    files = tree.with_endings([".json"])
    return [f for f in files if _INSTANCES.match(f)] or [
        f for f in files if _USUAL.match(f) or _looks_like_coco(tree, f)
    ]


def _looks_like_coco(tree: Tree, file: str) -> bool:
    if _SHAPES.search(read_head(tree.root / file)):  # LabelMe's, which may hold a whole picture
        return False
    try:
        content = read_bytes(tree.root / file)
    except OSError:
        return False
    return all(key in content for key in _KEYS)


@dataclass
class _Found:
    """What the files gave so far.

    Attributes:
        records: by picture.
        splits: pictures by name.
        findings: what is wrong.
        ids: the category ids of every name, in the order met.
        first: the file that names a category first.
        used: names that have a box.
    """

    records: dict[str, Record] = field(default_factory=dict)
    splits: dict[str, list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    ids: dict[str, list[str]] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)


def read(tree: Tree) -> Reading:
    """Read all files; what is wrong in them becomes findings.

    Raises:
        DataError: when there is no picture.
    """
    if not tree.pictures:
        raise DataError(f"{tree.root}: holds COCO annotations and no pictures; put both into one folder")
    files, found = annotation_files(tree), _Found()
    here = by_base_name(tree.pictures), PictureFolders(tree.pictures)
    for file in files:
        split = split_said(file, alone=len(files) == 1)
        try:
            content = cocojson.parse(read_bytes(tree.root / file, LARGE))
        except OSError as error:
            content = CocoFile(problems=[Problem(0, f"cannot be read ({error.strerror})")])
        _take_file(content, file, split, here, tree, found)
    pictures = sorted(found.records)
    position = {picture: i for i, picture in enumerate(pictures)}
    splits = {name: [position[p] for p in sorted(set(members))] for name, members in found.splits.items()}
    records = [found.records[p] for p in pictures]
    found.findings += [*_without_box(tree, found), *_left_out(tree, files, len(records))]
    ids = {name: ", ".join(found_ids) for name, found_ids in found.ids.items()}
    return Reading(tree.root, records, splits, found.findings, "crowd", source_ids=ids)


def _without_box(tree: Tree, found: _Found) -> list[Finding]:
    """Notes about categories without a box in any file; none where no file has one."""
    return [
        Finding("D08", "note", f'category "{name}" has no box', str(tree.root / file), 0, "not a class")
        for name, file in sorted(found.first.items())
        if found.used and name not in found.used
    ]


def _left_out(tree: Tree, files: Sequence[str], used: int) -> list[Finding]:
    """Notes about pictures and files that play no part."""
    found, root = list[Finding](), str(tree.root)
    if used < len(tree.pictures):
        message = f"{len(tree.pictures) - used} of {len(tree.pictures)} pictures are in no annotation file"
        found.append(Finding("D12", "note", message, root, 0, "left out"))
    others = [f for f in tree.with_endings([".json"]) if f not in set(files)]
    if others:
        names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        found.append(Finding("D12", "note", f"{len(others)} other JSON files: {names}", root, 0, "not read"))
    return found


def _take_file(
    content: CocoFile,
    file: str,
    split: str,
    here: tuple[Mapping[str, Sequence[str]], PictureFolders],
    tree: Tree,
    found: _Found,
) -> None:
    """Add the pictures of a file and their boxes to ``found``; ``here`` are the pictures by name, and their
    folders.
    """
    place, say = str(tree.root / file), found.findings.append
    splits = (split,) if split else ()
    for problem in content.problems:
        say(Finding(problem.code, "error", problem.reason, place, problem.line, ACTION, splits))
    for doubt in content.doubts:
        say(Finding(doubt.code, "warn", doubt.reason, place, doubt.line, "both are kept", splits))
    found.used.update(content.categories[k] for k in np.unique(content.category))
    for name, key in zip(content.categories, content.category_ids, strict=True):
        found.first.setdefault(name, file)
        if str(key) not in found.ids.setdefault(name, []):
            found.ids[name].append(str(key))
    rows = np.split(
        np.argsort(content.image, kind="stable"),
        np.cumsum(np.bincount(content.image, minlength=len(content.file_names)))[:-1],
    )
    near = {*file.split("/")[:-1]}  # folders that this file's pictures are likely to be in
    if match := _INSTANCES.match(file):
        near |= {match[1], split_said(file, alone=False)}
    chosen = stated_pictures(content.file_names, *here, near, file)
    missing: list[str] = []
    repeats = defaultdict[str, list[str]](list)
    for i, (picture, reason) in enumerate(chosen):
        if not picture:
            missing.append(f"images[{i}]: {reason}")
        elif picture in found.records:
            repeats[found.records[picture].annotation].append(picture)
        else:
            found.records[picture] = _record(content, i, rows[i], picture, file)
            found.splits.setdefault(split, []).append(picture)
    found.splits.pop("", None)
    if missing and len(missing) == len(chosen):
        missing = [f"none of its {len(chosen)} pictures is here"]
    for message in missing:
        action = "add the picture, or take it out of the file"
        say(Finding("D12", "error", message, place, 0, action, splits))
    for other, again in repeats.items():
        message = f"annotates {len(again)} pictures that {other} has already, the first is {again[0]}"
        say(Finding("D09", "error", message, place, 0, "list every picture once", splits))


def _record(content: CocoFile, i: int, rows: Ints, picture: str, file: str) -> Record:
    """The boxes ``rows`` of picture ``i``."""
    corners = content.boxes[rows]
    corners = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], 1)
    with np.errstate(over="ignore"):  # 1e300 becomes inf, which the check reports
        boxes = corners.astype(np.float32)
    return Record(
        picture,
        file,
        content.sizes[i],
        boxes,
        tuple(content.categories[k] for k in content.category[rows]),
        content.crowd[rows] | content.ignore[rows],
        content.lines[rows],
        crowd=content.crowd[rows],
    )


def split_said(file: str, *, alone: bool) -> str:
    """The split that a file is about, "" for none."""
    match = _INSTANCES.match(file)
    known = split_in_name(file) or split_in_folders(file)
    if known:
        return known
    return "" if alone or not match else re.sub(r"[_-]?\d{4}$", "", match[1])
