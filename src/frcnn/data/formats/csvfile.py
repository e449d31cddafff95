"""CSV: a table with a row for every box: path, box, class.

Columns are found by their names, in any order (``csvtext.COLUMNS``): a path or file name; a box as xmin,
ymin, xmax, ymax or as x, y, width, height (also from the centre); a class. A file without names has six
columns, as keras-retinanet's: path, x1, y1, x2, y2, class. A row without box and class is a picture without
objects. Boxes are half-open pixels from 0, taken as they are; where those of a file are shares of 0 to 1, as
OpenImages has them, they are read as such, and one above 1 is an error. Columns called difficult, ignore,
iscrowd, truncated or occluded are the flags.

Pictures that no row names are left out. The split is in a column called split, else in the file's name, else
in that of its folder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from frcnn.data.findings import Finding, Problem
from frcnn.data.formats.assemble import Reading, Record
from frcnn.data.formats.csvtext import Table, find_header, parse
from frcnn.data.formats.layout import (
    LARGE,
    Tree,
    read_head,
    read_text,
    split_in_folders,
    split_in_name,
)
from frcnn.data.formats.pairing import PictureFolders, by_base_name, stated_pictures
from frcnn.data.sample import DataError

ACTION = "correct the row, or export the table again"
HEAD = 65536


@dataclass
class _Found:
    """What the files gave so far: records and splits by picture, class numbers by name, findings."""

    records: dict[str, Record] = field(default_factory=dict)
    splits: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def detects(tree: Tree) -> bool:
    """Whether there are tables with columns for path, box and class."""
    return bool(annotation_files(tree))


def annotation_files(tree: Tree) -> list[str]:
    """The tables to read."""
    heads = {f: read_head(tree.root / f, HEAD) for f in tree.with_endings([".csv", ".tsv"])}
    return [f for f, head in heads.items() if find_header(head.decode("utf-8-sig", "replace"))]


def read(tree: Tree) -> Reading:
    """Read all tables; what is wrong in them becomes findings.

    Raises:
        DataError: when there is no picture.
    """
    if not tree.pictures:
        raise DataError(f"{tree.root}: holds tables of boxes and no pictures; put both into one folder")
    files, known, found = annotation_files(tree), by_base_name(tree.pictures), _Found()
    folders = PictureFolders(tree.pictures)
    known = {**_by_stem(known), **known}
    for file in files:
        try:
            table = parse(read_text(tree.root / file, LARGE))
        except OSError as error:
            table = Table(problems=[Problem(0, f"cannot be read ({error.strerror})")])
        _take_file(table, file, (known, folders), tree, found)
    pictures = sorted(found.records)
    position = {picture: i for i, picture in enumerate(pictures)}
    splits = {name: sorted(position[p] for p in members) for name, members in found.splits.items()}
    records = [found.records[p] for p in pictures]
    if len(records) < len(tree.pictures):
        message = f"{len(tree.pictures) - len(records)} of {len(tree.pictures)} pictures are in no table"
        found.findings.append(Finding("D12", "note", message, str(tree.root), 0, "left out"))
    others = sorted(set(tree.with_endings([".csv", ".tsv"])) - set(files))
    if others:
        message = f"{len(others)} other tables: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
        found.findings.append(Finding("D12", "note", message, str(tree.root), 0, "not read"))
    ids = {name: ", ".join(numbers) for name, numbers in found.numbers.items()}
    flag = "crowd" if any(r.crowd.any() for r in records) else "difficult"
    return Reading(tree.root, records, splits, found.findings, flag, source_ids=ids)


def _by_stem(known: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The pictures by their names without an ending, as some tables have them."""
    found = defaultdict[str, list[str]](list)
    for name, pictures in known.items():
        found[name.rpartition(".")[0]] += pictures
    return dict(found)


def _take_file(
    table: Table,
    file: str,
    here: tuple[Mapping[str, Sequence[str]], PictureFolders],
    tree: Tree,
    found: _Found,
) -> None:
    """Add the pictures of a table and their boxes to ``found``; ``here`` are the pictures by name, and their
    folders.
    """
    place, say = str(tree.root / file), found.findings.append
    of_file = split_in_name(file) or split_in_folders(file)
    splits = (of_file,) if of_file else ()
    found.findings += _of_table(table, place, splits)
    for name, numbers in table.numbers.items():
        known_numbers = found.numbers.setdefault(name, [])
        known_numbers += [n for n in numbers if n not in known_numbers]
    rows = np.split(
        np.argsort(table.image, kind="stable"),
        np.cumsum(np.bincount(table.image, minlength=len(table.pictures)))[:-1],
    )
    near = [part for part in file.split("/")[:-1]] + list(splits)
    repeats = defaultdict[str, list[str]](list)
    for i, (picture, reason) in enumerate(stated_pictures(table.pictures, *here, near, file)):
        if not picture:
            action = "add the picture, or take its rows out"
            say(Finding("D12", "error", reason, place, table.first_lines[i], action, splits))
            continue
        if picture in found.records:
            repeats[found.records[picture].annotation].append(picture)
            continue
        found.records[picture] = _record(table, i, rows[i], picture, file)
        split = table.splits[i] or of_file
        if split:
            found.splits.setdefault(split, []).append(picture)
    for other, again in repeats.items():
        message = f"annotates {len(again)} pictures that {other} has already, the first is {again[0]}"
        say(Finding("D09", "error", message, place, 0, "list every picture in one table", splits))


def _of_table(table: Table, place: str, splits: tuple[str, ...]) -> Iterator[Finding]:
    """What is wrong with the rows of a table, and how its boxes are read."""
    for problem in table.problems:
        yield Finding(problem.code, "error", problem.reason, place, problem.line, ACTION, splits)
    for (_, code), problem in table.contradictions.items():
        if code == "D18":
            action = "it is in the first of them only; give all rows of a picture one split"
            yield Finding(code, "warn", problem.reason, place, problem.line, action, splits)
        else:
            yield Finding(code, "error", problem.reason, place, problem.line, ACTION, splits)
    if table.relative:
        action = "read as shares of the picture"
        yield Finding("D16", "note", "its boxes are numbers from 0 to 1", place, 0, action)


def _record(table: Table, i: int, rows: Sequence[int] | np.ndarray, picture: str, file: str) -> Record:
    """The boxes ``rows`` of picture ``i``."""
    with np.errstate(over="ignore"):  # 1e300 becomes inf, which the check reports
        boxes = table.boxes[rows].astype(np.float32)
    flags = table.flags
    return Record(
        picture,
        file,
        table.sizes[i],
        boxes,
        tuple(table.names[k] for k in rows),
        flags.flagged[rows],
        table.lines[rows],
        flags.truncated[rows],
        flags.occluded[rows],
        flags.crowd[rows],
        table.relative,
    )
