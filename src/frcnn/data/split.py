"""Which pictures train and which validate: named splits, or a part of the training pictures held out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from frcnn.data.dealing import groups_of, keep_classes, stratified, stratified_folds
from frcnn.data.sample import DataError, Dataset, Ints

AUTO = "auto"
NONE = "none"


@dataclass(frozen=True)
class TrainVal:
    """How the pictures of a training run are chosen.

    Attributes:
        train: a split of the data set; ``auto``: "train" if there is one, else "trainval", else all pictures.
        val: a split; ``none``: no validation; ``auto``: one of ``folds`` where there are any, else ``share``
            where that was asked for, else "val" if there is one that shares no picture with the training
            pictures, else ``share`` of these is held out.
        share: part that is held out, 0 to 1; 0: no validation.
        seed: decides which pictures are held out.
        group_by: regular expression on paths; pictures of one group (``groups``) are held out together.
        folds: parts of the training pictures; 0: none.
        fold: which of them validates, from 0.
        asked: whether ``share`` was asked for.
    """

    train: str = AUTO
    val: str = AUTO
    share: float = 0.2
    seed: int = 0
    group_by: str = ""
    folds: int = 0
    fold: int = 0
    asked: bool = False


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
    if choice.asked:
        held_out = "this share of the training pictures validates, and no split of the data does"
        lines.append(f"val {choice.share:g}: {held_out}")
    if choice.folds:
        lines.append(f"fold {choice.fold} of 0 to {choice.folds - 1} validates (seed {choice.seed})")
        lines += _only_trained(dataset, choice)
    return lines


def _only_trained(dataset: Dataset, choice: TrainVal) -> list[str]:
    """The classes that this fold does not validate because a single picture, or group, shows them."""
    present, train = dataset.class_presence(), dataset.splits["train"]
    paths = dataset.pictures.paths
    units = groups_of(paths, choice.group_by)[0] if choice.group_by else np.arange(len(dataset))
    lines = []
    for name, shows in zip(dataset.classes, present.T, strict=True):
        if len(np.unique(units[shows])) == 1 and np.isin(np.flatnonzero(shows), train).all():
            where = f"one {'group of pictures' if choice.group_by else 'picture'} only"
            example = paths[int(shows.argmax())]
            lines.append(f'class "{name}" is on {where} ({example}), which trains and does not validate')
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
    if choice.asked and choice.folds:
        both = f"val {choice.share:g} and folds {choice.folds}"
        raise DataError(f"{dataset.root}: {both} both say what is held out; leave one of the two out")
    held_out = choice.val == AUTO and (
        choice.folds > 0 or choice.asked or not len(known) or bool(np.isin(known, train).any())
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
    present = part.class_presence()
    folds = stratified_folds(present, choice.folds, choice.seed, groups)
    folds = keep_classes(folds, present, groups)
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
