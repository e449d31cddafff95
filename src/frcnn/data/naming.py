"""Class names: those of the annotations, those they are renamed to, and those a user lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from frcnn.data.findings import Finding
from frcnn.data.sample import DataError, Dataset, did_you_mean

ALL_OTHERS = "*"


def class_list(classes: str | Sequence[str]) -> tuple[str, ...]:
    """The names that a user lists; one string is one class.

    Raises:
        DataError: for repeated or empty names.
    """
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    names = tuple(n.strip() for n in names)
    repeated = [n for n, count in Counter(names).items() if count > 1]
    if not names or "" in names or repeated:
        what = f"names {repeated[0]!r} twice" if repeated else "is empty or holds an empty name"
        raise DataError(f"the class list {what}: {', '.join(names)}")
    return names


def new_names(written: Iterable[str], rename: Mapping[str, str]) -> dict[str, str]:
    """The class of every name that the annotations have.

    Args:
        written: those names.
        rename: ``data.rename``; ``*`` stands for all names that it does not hold.

    Raises:
        DataError: for an empty new name.
    """
    for old, new in rename.items():
        if not new.strip():
            raise DataError(f'data.rename: "{old}" has the new name {new!r}; give it a name')
    return {name: rename.get(name, rename.get(ALL_OTHERS, name)).strip() for name in sorted(written)}


def rename_findings(written: Iterable[str], rename: Mapping[str, str]) -> list[Finding]:
    """D07: names to be changed that the annotations do not have."""
    known = list(written)
    return [
        Finding(
            "D07",
            "warn",
            f'data.rename: no class "{old}" in the annotations{did_you_mean(old, known)}',
            action="nothing is renamed; correct the name where one was meant",
        )
        for old in rename
        if old not in known and old != ALL_OTHERS
    ]


def unknown_classes(
    places: Iterable[tuple[str, str, int]], names: Sequence[str], renamed: Mapping[str, str]
) -> list[Finding]:
    """D07: boxes of classes that are not in the class list, and what the list names in vain.

    Args:
        places: name as written, file and line of every box.
        names: the class list.
        renamed: of ``new_names``.
    """
    action = "correct the annotation, or add the name to the class list"
    unknown = {old: new for old, new in renamed.items() if new not in set(names)}
    texts = {
        old: f'class "{old}"'
        + (f' (renamed to "{new}")' if new != old else "")
        + f" is not in the class list{did_you_mean(new, names)}"
        for old, new in unknown.items()
    }
    found = [
        Finding("D07", "error", texts[name], path, line, action)
        for name, path, line in (places if texts else ())
        if name in texts
    ]
    for name in (n for n in names if n not in renamed.values()):
        hint = did_you_mean(name, unknown.values())
        if hint:
            message = f'class "{name}" is in the class list and not in the annotations{hint}'
            found.append(Finding("D07", "error", message, action="correct the class list"))
    return found


def sources(dataset: Dataset) -> list[list[str]]:
    """For every class the names in the annotations that were renamed to it; none where nothing was."""
    objects = dataset.objects
    pairs = np.unique(np.stack([objects.labels, objects.written], 1), axis=0)
    found: list[list[str]] = [[] for _ in dataset.classes]
    for label, written in pairs[pairs[:, 0] >= 0].tolist() if dataset.written else []:
        if dataset.written[written] != dataset.classes[label]:
            found[label].append(dataset.written[written])
    return found


def shown_names(dataset: Dataset) -> list[str]:
    """The class names for a table; beside a new name stand those it replaces: ``person (adult, child)``."""
    return [
        f"{name} ({', '.join(old)})" if old else name
        for name, old in zip(dataset.classes, sources(dataset), strict=True)
    ]
