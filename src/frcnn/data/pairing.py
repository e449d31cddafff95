"""Which picture an annotation file belongs to: the same for every format with one file for each picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from frcnn.data.assemble import Record
from frcnn.data.findings import Finding
from frcnn.data.layout import PictureIndex, base_name


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
