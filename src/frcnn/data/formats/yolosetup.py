"""The files that say what a YOLO data set is: classes and splits, from ``data.yaml``, Darknet's ``.data``,
``classes.txt`` and lists of pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from frcnn.data.findings import Finding, Problem
from frcnn.data.formats.layout import (
    SPLIT_NAMES,
    Tree,
    base_name,
    folder_splits,
    read_head,
    read_lines,
    read_text,
)
from frcnn.data.formats.lists import list_of_paths
from frcnn.data.formats.pairing import by_base_name
from frcnn.data.formats.yolotext import Setup, parse_data, parse_names, parse_yaml
from frcnn.data.sample import DataError

LISTS = {f"{word}.txt": split for word, split in SPLIT_NAMES.items()}
"""Lists of pictures beside the folders, and their splits."""
LONGEST = 1_000_000
"""Bytes of a file with classes and splits: to understand YAML takes much longer than to read it."""
IN_LABELS = re.compile(r"(?:^|/)labels/")
_NAMES, _SPLIT = "names|nc", "train|val|valid|validation|test"
_FLOW = re.compile(r"(?:\s|#[^\n]*\n|---)*\{")
"""How YAML begins that is written in braces, on as few lines as one likes."""
_DATA = re.compile(r"^\s*(train|valid)\s*=", re.MULTILINE)


@dataclass
class ClassNames:
    """The classes of a data set: their names by number, and the file that has them ("" for none)."""

    of: dict[int, str] = field(default_factory=dict)
    file: str = ""


def setup_files(tree: Tree) -> list[str]:
    """The files that name classes and splits."""
    yamls = [
        f
        for f in tree.with_endings([".yaml", ".yml"])
        if _has_key(head := _head(tree, f), _NAMES) and _has_key(head, _SPLIT)
    ]
    return yamls or [f for f in tree.with_endings([".data"]) if _DATA.search(_head(tree, f))]


def _has_key(text: str, words: str) -> bool:
    """Whether YAML has one of the keys, not below another one."""
    begin = r"(?:^|[{,]\s*)" if _FLOW.match(text) else "^"
    return bool(re.search(rf"""{begin}["']?({words})["']?\s*:""", text, re.MULTILINE))


def _head(tree: Tree, file: str) -> str:
    return read_head(tree.root / file, LONGEST).decode("utf-8-sig", "replace")


def lines_of(tree: Tree, file: str) -> list[str]:
    """The lines of a text file; none where it cannot be read."""
    try:
        return read_lines(tree.root / file)
    except OSError:
        return []


def read_setup(tree: Tree) -> tuple[Setup, str, list[Finding]]:
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
    try:
        setup = parse(read_text(tree.root / file, LONGEST))
    except OSError as error:
        setup = Setup(problems=[Problem(0, f"cannot be read ({error.strerror})")])
    place, action = str(tree.root / file), "correct the file"
    return setup, file, [Finding("D16", "error", p.reason, place, p.line, action) for p in setup.problems]


def class_names(tree: Tree, setup: Setup, file: str) -> tuple[ClassNames, list[Finding]]:
    """The class names; without any, boxes are called by their numbers."""
    findings: list[Finding] = []
    names = ClassNames(setup.names, file)
    if not names.of:
        wanted = base_name(setup.names_file)
        files = [f for f in tree.files if base_name(f) == (wanted or "classes.txt")]
        files = files or list(tree.with_endings([".names"]))
        files.sort(key=lambda f: (f.count("/"), f))
        if files:
            names = ClassNames(parse_names(lines_of(tree, files[0])), files[0])
        others = [f for f in files[1:] if parse_names(lines_of(tree, f)) != names.of]
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


def splits_of(
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
        if text in LISTS:
            split = LISTS[text]
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
            if name in tree.folders or (name.lower().endswith(".txt") and name in tree.files):
                return name
    return None
