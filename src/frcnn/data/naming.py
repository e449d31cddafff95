"""Class names: those of the annotations, those they are renamed to, and those a user lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from frcnn.data.findings import Finding, Severity
from frcnn.data.sample import DataError, Dataset, did_you_mean

ALL_OTHERS = "*"
SHOWN = 8


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


def chosen_names(
    renamed: Mapping[str, str], classes: Sequence[str], counts: Mapping[str, int]
) -> tuple[dict[str, str], list[Finding]]:
    """The names whose boxes are used.

    Args:
        renamed: of ``new_names``.
        classes: ``data.classes``; empty: all.
        counts: boxes of every name as written.

    Returns:
        What is used of ``renamed``, and a note about every class that is left out.
    """
    wanted = {name.strip() for name in classes}
    used = {old: new for old, new in renamed.items() if not wanted or new in wanted}
    action = "left out, their pixels count as background; merge a class into another with data.rename"
    found = [
        Finding(
            "D07", "note", f'class "{old}" with {counts[old]} boxes is not in data.classes', action=action
        )
        for old in renamed
        if old not in used
    ]
    return used, found


def rename_findings(
    written: Iterable[str], rename: Mapping[str, str], absent: Severity = "error"
) -> list[Finding]:
    """D07: names to be changed that the annotations do not have."""
    known = list(written)
    return [
        Finding(
            "D07",
            absent,
            f'data.rename: no class "{old}" in the annotations{did_you_mean(old, known)}',
            action="nothing is renamed; correct the name, or take it out",
        )
        for old in rename
        if old not in known and old != ALL_OTHERS
    ]


def unknown_classes(
    places: Iterable[tuple[str, str, int]],
    names: Sequence[str],
    renamed: Mapping[str, str],
    absent: Severity = "error",
    left_out: Iterable[str] = (),
) -> list[Finding]:
    """D07: boxes of classes that are not in the class list, and what the list names in vain.

    Args:
        places: name as written, file and line of every box.
        names: the class list.
        renamed: of ``new_names``.
        absent: how grave it is that the list names a class in vain.
        left_out: names that the annotations have, too, and that were not chosen.
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
    known = sorted({*renamed.values(), *left_out})
    for name in (n for n in names if n not in known):
        hint = did_you_mean(name, unknown.values()) or did_you_mean(name, known)
        hint = hint or (f"; they have {', '.join(known[:SHOWN])}{', ...' if len(known) > SHOWN else ''}")
        message = f'class "{name}" is in the class list and not in the annotations{hint}'
        found.append(Finding("D07", absent, message, action="correct the class list"))
    return found


def source_numbers(dataset: Dataset) -> list[str]:
    """For every class the numbers that the files have for its names; "-" where the format has none."""
    ids = dataset.source_ids
    names = [[name] if name in ids else [] for name in dataset.classes]
    for own, old in zip(names, sources(dataset), strict=True):
        own += [name for name in old if name in ids and name not in own]
    return [", ".join(ids[name] for name in own) or "-" for own in names]


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
