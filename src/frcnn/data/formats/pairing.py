"""Which picture an annotation file belongs to, and which one a stated path means: the same for every format.

Nothing here opens a file: a stated path is only compared with the pictures of the data set's folder, so that
none can lead out of it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from frcnn.data.findings import Finding
from frcnn.data.formats.assemble import Record
from frcnn.data.formats.layout import PictureIndex, base_name


def picture_of(
    file: str,
    place: str,
    index: PictureIndex,
    taken: Mapping[str, Record],
    *,
    stated: str = "",
    listed: bool = False,
) -> tuple[str, Finding | None]:
    """The picture that an annotation file belongs to.

    Args:
        file: the annotation file below the data set's root.
        place: the same file for findings.
        index: of the pictures.
        taken: records by picture of the files that were read before.
        stated: the picture's name in the file.
        listed: lists decide which pictures are used, so a missing picture is no error here.

    Returns:
        The picture, or "" and what is wrong.
    """
    matches = index.candidates(file, stated)
    if len(matches) != 1:
        return "", _no_single_picture(place, stated, matches, listed)
    if matches[0] in taken:
        message = f"annotates {matches[0]}, as {taken[matches[0]].annotation} does"
        return "", Finding("D09", "error", message, place, 0, "remove one of the two files")
    return matches[0], None


def _no_single_picture(place: str, filename: str, matches: Sequence[str], listed: bool) -> Finding:
    if matches:
        names = ", ".join(matches[:3])
        message = f"may belong to {len(matches)} pictures: {names}"
        return Finding("D12", "error", message, place, 0, "give every picture its own name")
    stated = f" (it names '{base_name(filename)}')" if filename else ""
    if listed:  # the lists of pictures decide what is used, and say so if they name this one
        return Finding("D12", "warn", f"has no picture{stated}", place, 0, "not used")
    return Finding(
        "D12", "error", f"has no picture{stated}", place, 0, "add the picture, or remove the annotation"
    )


def by_base_name(pictures: Iterable[str]) -> dict[str, list[str]]:
    """The pictures of every file name."""
    found = defaultdict[str, list[str]](list)
    for picture in pictures:
        found[base_name(picture)].append(picture)
    return dict(found)


def stated_pictures(
    names: Sequence[str], known: Mapping[str, Sequence[str]], near: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """For every path that a file states its picture, or "" and the reason why it has none.

    Folders count as far as they are there; those of another machine do not, where the file name is clear.

    Args:
        names: the paths, written on any system.
        known: of ``by_base_name``.
        near: folders that the pictures are likely to be in, where several have a name.
    """
    around = set(near)
    parts = [[p for p in re.split(r"[\\/]", name.strip()) if p not in ("", ".", "..")] for name in names]
    times = Counter(tuple(p[-1:]) for p in dict.fromkeys(map(tuple, parts)))
    chosen: list[tuple[str, str]] = []
    for name, path in zip(names, parts, strict=True):
        among = known.get(path[-1], ()) if path else ()
        found = [p for p in among if f"/{p}".endswith("/" + "/".join(path))]
        if not found and path and times[tuple(path[-1:])] == 1:  # folders of another machine
            found = list(among)
        if len(found) > 1:
            shared = [len(around.intersection(p.split("/")[:-1])) for p in found]
            found = [p for p, count in zip(found, shared, strict=True) if count == max(shared)]
        if len(found) == 1:
            chosen.append((found[0], ""))
        elif found:
            chosen.append(("", f'"{name}" may be {len(found)} pictures: {", ".join(found[:3])}'))
        else:
            chosen.append(("", f'"{name}" is not a picture here'))
    return chosen
