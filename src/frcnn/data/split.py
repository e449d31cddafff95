"""Which pictures train and which validate: named splits, or a part held out with every class in proportion.

``stratified`` follows Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data" (2011):
the rarest class is dealt out first.

Letters: n pictures, K classes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from frcnn.data.sample import Bools, DataError, Dataset, Ints

AUTO = "auto"
NONE = "none"


@dataclass(frozen=True)
class TrainVal:
    """How the pictures of a training run are chosen.

    Attributes:
        train: a split of the data set; ``auto``: "train" if there is one, else "trainval", else all pictures.
        val: a split; ``none``: no validation; ``auto``: one of ``folds`` where there are any, else "val" if
            there is one that shares no picture with the training pictures, else ``share`` of these is held
            out.
        share: part that is held out, 0 to 1; 0: no validation.
        seed: decides which pictures are held out.
        group_by: regular expression on paths; pictures of one group (``groups``) are held out together.
        folds: parts of the training pictures; 0: none.
        fold: which of them validates, from 0.
    """

    train: str = AUTO
    val: str = AUTO
    share: float = 0.2
    seed: int = 0
    group_by: str = ""
    folds: int = 0
    fold: int = 0


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


def split_lines(dataset: Dataset, choice: TrainVal) -> list[str]:
    """What there is to say about how pictures were held out: groups and folds."""
    lines: list[str] = []
    if choice.group_by:
        groups, found = groups_of(dataset.pictures.paths, choice.group_by)
        sizes = np.bincount(groups)
        alone = int((~found).sum())
        lines.append(
            f"group-by {choice.group_by!r}: {len(groups)} pictures in {len(sizes)} groups, the largest of "
            f"{sizes.max(initial=0)}; {alone} do not match, each of them a group of its own"
        )
    if choice.folds:
        lines.append(f"fold {choice.fold} of 0 to {choice.folds - 1} validates (seed {choice.seed})")
    return lines


def choose_training(dataset: Dataset, choice: TrainVal) -> Dataset:
    """The training and validation pictures, as splits "train" and "val" (absent without validation) of the
    result.

    Raises:
        DataError: for a split that does not exist or is empty, and for groups or folds where nothing is held
            out.
    """
    train = _train_indices(dataset, choice.train)
    val = np.arange(0)
    known = dataset.splits.get("val", val)
    held_out = choice.val == AUTO and (
        choice.folds > 0 or not len(known) or bool(np.isin(known, train).any())
    )
    if not held_out and (choice.folds or choice.group_by):
        what = f"folds {choice.folds}" if choice.folds else f"group_by {choice.group_by!r}"
        named = choice.val if choice.val != AUTO else "val"
        reason = "there is no validation" if named == NONE else f'split "{named}" validates'
        raise DataError(f"{dataset.root}: {what} changes nothing, because {reason}; leave one of the two out")
    if held_out:
        train, val = _hold_out(dataset, train, choice)
    elif choice.val == AUTO:
        val = known
    elif choice.val != NONE:
        val = _not_empty(dataset, choice.val)
    used = np.union1d(train, val)
    splits = {"train": np.searchsorted(used, train)}
    if len(val):
        splits["val"] = np.searchsorted(used, val)
    return replace(dataset.subset(used), splits=splits)


def _hold_out(dataset: Dataset, train: Ints, choice: TrainVal) -> tuple[Ints, Ints]:
    """Part of the training pictures validates."""
    part = dataset.subset(train)
    groups = groups_of(part.pictures.paths, choice.group_by)[0] if choice.group_by else None
    if not choice.folds:
        first, second = stratified(part.class_presence(), choice.share, choice.seed, groups)
        return train[first], train[second]
    count = len(train) if groups is None else int(groups.max(initial=-1)) + 1
    if count < choice.folds:
        what = "pictures" if groups is None else f"groups of pictures (group_by {choice.group_by!r})"
        raise DataError(f"{dataset.root}: {count} {what} do not make {choice.folds} folds; ask for fewer")
    folds = stratified_folds(part.class_presence(), choice.folds, choice.seed, groups)
    return train[folds != choice.fold], train[folds == choice.fold]


def _train_indices(dataset: Dataset, name: str) -> Ints:
    if name == NONE:
        raise DataError(f'{dataset.root}: the training pictures cannot be "none"; name a split, or "{AUTO}"')
    if name != AUTO:
        return _not_empty(dataset, name)
    for usual in ("train", "trainval"):
        if usual in dataset.splits:
            return _not_empty(dataset, usual)
    if not dataset.splits:
        return np.arange(len(dataset))
    rest = np.setdiff1d(np.arange(len(dataset)), np.concatenate(list(dataset.splits.values())))
    if not len(rest):
        names = ", ".join(dataset.splits)
        raise DataError(f"{dataset.root}: no split is called train; name one of {names} for training")
    return rest  # for example all pictures outside a folder called test


def _not_empty(dataset: Dataset, name: str) -> Ints:
    indices = np.sort(dataset.split_indices(name))
    if not len(indices):
        raise DataError(
            f'D17 {dataset.root}: split "{name}" is empty; list pictures in it or name another split'
        )
    return indices


def write_splits(path: str | Path, dataset: Dataset, choice: Mapping[str, object] | None = None) -> None:
    """Write the splits as JSON, replacing the file at once: picture names below the root, by split.

    ``choice`` tells people how they were made (the values of a ``TrainVal``); nobody reads it again.
    """
    content = {
        "format": 1,
        "data": dataset.name,
        "choice": dict(choice or {}),
        "splits": {n: [dataset.pictures.paths[int(i)] for i in rows] for n, rows in dataset.splits.items()},
    }
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, target)


def read_splits(path: str | Path) -> dict[str, list[str]]:
    """The picture names by split that ``write_splits`` wrote.

    Raises:
        DataError: when the file is missing or of another kind.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {str(name): [str(p) for p in members] for name, members in content["splits"].items()}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the splits.json of a run") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: is not a file of splits; give the splits.json of a run") from None


def with_splits(
    dataset: Dataset, names: Mapping[str, Sequence[str]], source: str | Path = "splits.json"
) -> Dataset:
    """The same data set with the splits of a file in the place of its own of the same name.

    Raises:
        DataError: when pictures of the file are not in the data set.
    """
    position = {path: i for i, path in enumerate(dataset.pictures.paths)}
    missing = [p for members in names.values() for p in members if p not in position]
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of its pictures are not in {dataset.root}: {', '.join(missing[:5])}; "
            "use the data the run was made with"
        )
    splits = {name: np.asarray([position[p] for p in members], np.int64) for name, members in names.items()}
    return replace(dataset, splits={**dataset.splits, **splits})
