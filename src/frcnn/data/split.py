"""Which pictures train and which validate: named splits, or a part held out with every class in proportion.

``stratified`` follows Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data" (2011):
the rarest class is dealt out first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
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
        val: a split; ``none``: no validation; ``auto``: "val" if there is one that shares no picture with the
            training pictures, else ``share`` of them is held out.
        share: part that is held out, 0 to 1; 0: no validation.
        seed: decides which pictures are held out.
    """

    train: str = AUTO
    val: str = AUTO
    share: float = 0.2
    seed: int = 0


def stratified(present: Bools, share: float, seed: int = 0) -> tuple[Ints, Ints]:
    """Divide pictures so that each class has about the same share in both parts; the same for the same
    arguments.

    Args:
        present: (n, K), which classes a picture shows.
        share: of the pictures, for the second part; at least one picture, if there are two, stays in each
            part.
        seed: breaks ties.

    Returns:
        Sorted positions of the first and of the second part.
    """
    count = len(present)
    if count < 2 or share <= 0:
        return np.arange(count), np.arange(0)
    # pictures without objects are one more class
    present = np.concatenate([present, ~present.any(1, keepdims=True)], 1)
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    shares = np.asarray([1 - share, share])
    wanted = shares[:, None] * present.sum(0)  # (2, K + 1): pictures of a class that a part still lacks
    room = shares * count
    part = np.full(count, -1)
    while (part < 0).any():
        left = present[part < 0].sum(0)
        rarest = int(np.where(left > 0, left, count + 1).argmin())
        for i in order[(part[order] < 0) & present[order, rarest]]:
            lack, spare = wanted[:, rarest], room
            chosen = int((lack[1], spare[1]) > (lack[0], spare[0]))  # on a tie the training pictures gain
            part[i] = chosen
            wanted[chosen, present[i]] -= 1
            room[chosen] -= 1
    for empty in (0, 1):
        if not (part == empty).any():
            part[order[0]] = empty
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1)


def choose_training(dataset: Dataset, choice: TrainVal) -> Dataset:
    """The training and validation pictures, as splits "train" and "val" (absent without validation) of the
    result.

    Raises:
        DataError: for a split that does not exist or is empty.
    """
    train = _train_indices(dataset, choice.train)
    val = np.arange(0)
    if choice.val == AUTO:
        known = dataset.splits.get("val", val)
        if len(known) and not np.isin(known, train).any():
            val = known
        elif choice.share > 0:
            first, second = stratified(dataset.subset(train).class_presence(), choice.share, choice.seed)
            train, val = train[first], train[second]
    elif choice.val != NONE:
        val = _not_empty(dataset, choice.val)
    used = np.union1d(train, val)
    splits = {"train": np.searchsorted(used, train)}
    if len(val):
        splits["val"] = np.searchsorted(used, val)
    return replace(dataset.subset(used), splits=splits)


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


def write_splits(path: str | Path, dataset: Dataset) -> None:
    """Write the splits as JSON, replacing the file at once: picture names below the root, by split."""
    content = {
        "format": 1,
        "data": dataset.name,
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
