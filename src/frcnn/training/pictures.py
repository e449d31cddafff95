"""The pictures of a run: read, checked, divided, and cut into tiles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from frcnn.config import Config
from frcnn.data.check import apply_policies, check_dataset, check_upright, load_checked
from frcnn.data.feed.tiles import tiled
from frcnn.data.findings import CheckReport
from frcnn.data.proposals import attach
from frcnn.data.sample import DataError, Dataset
from frcnn.data.split import AUTO, NONE, TrainVal, choose_training, read_splits, with_splits
from frcnn.model.proposer import CLASS
from frcnn.training.division import choose_pictures, splits_file
from frcnn.training.options import TrainOptions
from frcnn.training.stages import proposals_of
from frcnn.training.state import TrainState
from frcnn.training.tiling import tile_notes


@dataclass(frozen=True)
class TrainData:
    """The pictures of a run.

    Attributes:
        train: to learn from, cut into tiles where the configuration says so.
        val: to validate on, or None.
        both: the two together, with splits "train" and "val".
        report: of the data check.
        source: what a resumed run needs to find them again.
        notes: what else there is to say about them.
    """

    train: Dataset
    val: Dataset | None
    both: Dataset
    report: CheckReport
    source: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of the pictures' names and boxes in both parts."""
        state = hashlib.sha256()
        for part in (self.train, self.val):
            if part is not None:
                arrays = (part.pictures.paths.text, part.objects.offsets, part.objects.boxes)
                for array in (*arrays, part.objects.labels, part.objects.ignore):
                    state.update(np.ascontiguousarray(array).tobytes())
        return state.hexdigest()


def choose_data(
    data: str | Path | Dataset | None,
    options: TrainOptions,
    config: Config,
    run: Path | None,
    state: TrainState | None,
) -> TrainData:
    """Read, check and divide the pictures.

    Args:
        data: a folder, a data set, or None for that of the resumed run.
        options: splits and policies.
        config: the policies of the data check.
        run: folder of the resumed run, or None.
        state: of the resumed run, or None.

    Raises:
        DataError: listing everything that was found.
    """
    if state is not None:
        choice = TrainVal(**state.source["choice"])
        data = state.source["path"] if data is None else data
    else:
        choice = choose_pictures(options, config)
    if data is None:
        raise DataError("no data: give the folder of a data set")
    splits, choice = splits_file(options, run, choice)
    decode = options.decode if state is None else bool(options.decode)  # they were when the run began
    if isinstance(data, Dataset) and splits is not None and run is None:
        data = with_splits(data, read_splits(splits), splits)
    chosen, report = _checked(data, choice, splits, config, decode)
    if config.detector == "rpn":  # proposals have no class
        chosen = chosen.as_one_class(CLASS)
    path = str(data.root) if isinstance(data, Dataset) else str(Path(data).absolute())
    source: dict[str, Any] = {"path": path, "choice": vars(choice)}
    proposals = proposals_of(options, state)
    if proposals is not None:
        chosen = attach(chosen, proposals)
        source["proposals"] = {"path": str(proposals.path), "digest": proposals.digest}
    whole = chosen.subset("train")
    notes = tile_notes(whole, config)
    train = tiled(whole, config, seed=config.train.seed)
    val = chosen.subset("val") if "val" in chosen.splits else None
    if not len(train):
        raise DataError(f"{path}: no picture is left to train on")
    return TrainData(train, val, chosen, report, source, tuple(notes))


def _checked(
    data: str | Path | Dataset, choice: TrainVal, splits: Path | None, config: Config, decode: bool | None
) -> tuple[Dataset, CheckReport]:
    """The chosen pictures, fit for use, and what was found; what nobody asked to decode is not cached."""
    cache = bool(decode)
    if isinstance(data, Dataset):
        check_upright(data, config.data)
        chosen = choose_training(data, choice)
        report = check_dataset(chosen, config, decode=decode, cache=cache)
        return apply_policies(chosen, report, config), report
    if splits is not None:
        val = choice.val if choice.val in (NONE, "val") else AUTO
        choice = replace(choice, train="train", val=val, share=0.0, asked=False, group_by="", folds=0)
    return load_checked(data, choice, config=config, splits=splits, decode=decode, cache=cache)
