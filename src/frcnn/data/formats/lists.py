"""Lists of pictures, one text file for each split: ``ImageSets/Main/train.txt``, or Darknet's of paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from frcnn.data.findings import Finding
from frcnn.data.formats.layout import Tree, base_name, read_lines
from frcnn.data.formats.pairing import PictureFolders, PictureIndex, stated_pictures
from frcnn.data.sample import DataError

ACTION = "add the picture, or take the name off the list"


def read_listed(tree: Tree, file: str) -> list[str]:
    """The lines of a list below the data set's root, without blanks at their ends.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        return [line.strip() for line in read_lines(tree.root / file)]
    except OSError as error:
        raise DataError(
            f"{tree.root / file}: cannot be read ({error.strerror}); check its permissions"
        ) from None


def lists_of_names(
    tree: Tree,
    files: Iterable[str],
    index: PictureIndex,
    skip: Callable[[str, Sequence[str]], bool] | None = None,
) -> tuple[dict[str, list[str]], list[Finding]]:
    """Lists with a picture's name in each line; a list's own name is that of the split.

    Args:
        tree: of the data set.
        files: the lists.
        index: of the pictures.
        skip: told a list and its lines, whether it is something else.

    Returns:
        The pictures of every split; and what is listed and not there.

    Raises:
        DataError: when a list cannot be read.
    """
    splits: dict[str, list[str]] = {}
    missing: dict[str, tuple[str, int, list[str]]] = {}
    for file in files:
        lines = read_listed(tree, file)
        if skip is not None and skip(file, lines):
            continue
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
                ACTION, tuple(names))
        for name, (file, line, names) in missing.items()
    ]  # fmt: skip
    return splits, findings


def list_of_paths(
    tree: Tree, file: str, split: str, known: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[Finding]]:
    """A list with a picture's path in each line.

    Args:
        tree: of the data set.
        file: the list.
        split: that it is of.
        known: the pictures, of ``pairing.by_base_name``.

    Returns:
        The pictures; and what is listed and not there.

    Raises:
        DataError: when the list cannot be read.
    """
    lines = [(number, line) for number, line in enumerate(read_listed(tree, file), 1) if line]
    near = {split, *file.split("/")[:-1]}
    chosen = stated_pictures([line for _, line in lines], known, PictureFolders(tree.pictures), near)
    place, found = str(tree.root / file), list[Finding]()
    for (number, _), (picture, reason) in zip(lines, chosen, strict=True):
        if not picture:
            found.append(Finding("D12", "error", reason, place, number, ACTION, (split,)))
    return list(dict.fromkeys(picture for picture, _ in chosen if picture)), found
