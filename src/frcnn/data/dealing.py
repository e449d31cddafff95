"""Pictures dealt out into parts, with every class in proportion and scenes left whole.

``stratified`` follows Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data" (2011):
the rarest class is dealt out first.

Letters: n pictures, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from frcnn.data.sample import Bools, DataError, Ints


def stratified(present: Bools, share: float, seed: int = 0, groups: Ints | None = None) -> tuple[Ints, Ints]:
    """Divide pictures so that each class has about the same share in both parts; the same for the same
    arguments.

    Args:
        present: (n, K), which classes a picture shows.
        share: of the pictures, for the second part; at least one picture, if there are two, stays in each
            part.
        seed: breaks ties.
        groups: (n,) numbers from 0; pictures of one number stay together, whatever that does to the shares.

    Returns:
        Sorted positions of the first and of the second part.
    """
    if share <= 0:
        return np.arange(len(present)), np.arange(0)
    part = _deal(present, (1 - share, share), seed, groups)
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1)


def stratified_folds(present: Bools, count: int, seed: int = 0, groups: Ints | None = None) -> Ints:
    """(n,) int64: which of ``count`` parts, as equal as can be in pictures and classes, a picture is in.

    The arguments are those of ``stratified``; a part is empty only where there are fewer pictures (or groups)
    than parts.
    """
    return _deal(present, (1 / count,) * count, seed, groups)


def keep_classes(folds: Ints, present: Bools, groups: Ints | None = None) -> Ints:
    """The same parts, with -1 for pictures that train whichever part validates: without them a class would be
    in one part alone, and could not be learnt while that validates.

    Args:
        folds: (n,) of ``stratified_folds``; no part becomes empty.
        present: (n, K), which classes a picture shows.
        groups: (n,) as there.
    """
    folds = folds.copy()
    units = np.arange(len(folds)) if groups is None else groups
    for shows in present.T:
        parts = np.unique(folds[shows])
        if len(parts) != 1:
            continue
        moved = units == units[shows.argmax()]
        if ((folds == parts[0]) & ~moved).any():
            folds[moved] = -1
    return folds


def _deal(present: Bools, shares: Sequence[float], seed: int, groups: Ints | None) -> Ints:
    """The part of every picture; whole groups are dealt, the rarest class first, to whom it lacks most."""
    # pictures without objects are one more class
    shown = np.concatenate([present, ~present.any(1, keepdims=True)], 1).astype(np.int64)
    groups = np.arange(len(present)) if groups is None else groups
    count = int(groups.max(initial=-1)) + 1
    if count < 2:
        return np.zeros(len(present), np.int64)
    counts = np.zeros((count, shown.shape[1]), np.int64)  # pictures of a group that show a class
    np.add.at(counts, groups, shown)
    sizes = np.bincount(groups, minlength=count)
    order = np.random.default_rng(seed).permutation(count)
    room = np.asarray(shares) * len(present)
    wanted = np.asarray(shares)[:, None] * counts.sum(0)  # (parts, K + 1): what a part still lacks
    part = np.full(count, -1)
    while (part < 0).any():
        left = counts[part < 0].sum(0)
        rarest = int(np.where(left > 0, left, len(present) + 1).argmin())
        members = order[(part[order] < 0) & (counts[order, rarest] > 0)]
        for i in members[np.argsort(-counts[members, rarest], kind="stable")]:  # large groups first
            # on a tie the first part gains
            chosen = max(range(len(shares)), key=lambda p: (wanted[p, rarest], room[p]))
            part[i] = chosen
            wanted[chosen] -= counts[i]
            room[chosen] -= sizes[i]
    if len(shares) == 2:
        for empty in (0, 1):
            if not (part == empty).any():
                part[order[0]] = empty
    return part[groups]


def groups_of(paths: Iterable[str], pattern: str) -> tuple[Ints, Bools]:
    """The groups that a regular expression makes of pictures.

    Args:
        paths: of n pictures, below the data set's folder.
        pattern: searched in each; its first group, or else what it matches, is the group's name. A picture
            in which it is not found is a group of its own.

    Returns:
        (n,) numbers from 0, in order of appearance; and (n,) bool, where it was found.

    Raises:
        DataError: when it is found in no picture, or is no regular expression.
    """
    try:
        find = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"group_by {pattern!r} is not a regular expression ({error}); give one such as '^[^_]+'"
        ) from None
    numbers: dict[tuple[bool, str], int] = {}
    groups: list[int] = []
    found: list[bool] = []
    for path in paths:
        match = find.search(path)
        name = path if match is None else (match[1] if find.groups and match[1] is not None else match[0])
        found.append(match is not None)
        groups.append(numbers.setdefault((match is not None, name), len(numbers)))
    if groups and not any(found):
        raise DataError(
            f"group_by {pattern!r} is found in no path of a picture; one of them is {path!r}, from which "
            "'^[^_]+' takes what stands before the first underscore"
        )
    return np.asarray(groups, np.int64), np.asarray(found, bool)
