"""What a user may say to ``frcnn.train``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from frcnn.config import Config
from frcnn.model.parts import Parts


@dataclass(frozen=True)
class TrainOptions:
    """The options of a run beside its data and recipe; None leaves a value to the recipe.

    Attributes:
        epochs: passes over the training pictures.
        steps: length in optimizer steps instead; with ``resume`` the step to go on to.
        save_every: keep a model file of every so many epochs.
        freeze: stages that keep their weights, "backbone", "rpn", "roi"; None: the configuration's.
        batch: pictures of a step on one device.
        seed: of the weights, the order and the variation of pictures.
        config: a whole configuration instead of a recipe's.
        settings: ``("train.lr=0.01", ...)`` on top of everything.
        name: of the run folder; None: the recipe's. A number is added where the folder exists.
        runs: folder of the run folders.
        train: split to train on; None: "train", else "trainval", else all pictures.
        val: split to validate on, "none", or a share of the training pictures to hold out, whatever splits
            the data set has; None: "val" if there is one, else the configuration's share (``data.val``).
        splits: ``splits.json`` of another run, or a file like it, whose pictures are used.
        time: "90s", "30m", "1h30m": fit the number of epochs to this much time, evaluation included.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        devices: number of devices; more than one trains with DDP.
        resume: run folder to go on with; everything else is read from it.
        bad_boxes: "error" or "drop" for boxes that cannot be used.
        decode: decode all pictures before the first step, and look for those that look alike; None: decode
            them where that takes seconds (``frcnn.data.check.DECODED``), and compare nothing.
        weights: model file or ``torchvision:NAME`` to start from; layers of other classes are begun anew.
        backbone_weights: file of backbone weights in torchvision's or timm's naming, or a model file, whose
            backbone and pyramid are taken.
        rpn_weights: model file whose region proposal network is taken.
        proposals: proposals file that the second stage learns from; the RPN is not trained then.
        parts: replaced parts of the detector.
        progress: whether to show a bar; None: on a terminal.
        compile: "regional" or "step" (``train.compile``); True is "regional", False "none".
        forecast: whether to measure a few steps first.
    """

    epochs: int | None = None
    steps: int | None = None
    save_every: int | None = None
    freeze: tuple[str, ...] | None = None
    batch: int | None = None
    seed: int | None = None
    config: Config | None = None
    settings: tuple[str, ...] = ()
    name: str | None = None
    runs: str | Path = "runs"
    train: str | None = None
    val: str | float | None = None
    splits: str | Path | None = None
    time: str | None = None
    device: str = "auto"
    devices: int = 1
    resume: str | Path | None = None
    bad_boxes: Literal["error", "drop"] | None = None
    decode: bool | None = None
    weights: str | Path | None = None
    backbone_weights: str | Path | None = None
    rpn_weights: str | Path | None = None
    proposals: str | Path | None = None
    parts: Parts | None = None
    progress: bool | None = None
    compile: Literal["none", "regional", "step"] | bool | None = None
    forecast: bool = True


def make_options(values: dict[str, Any]) -> TrainOptions:
    """Options from keyword arguments.

    Raises:
        TypeError: for a name that is no option, with the nearest one.
    """
    known = [f.name for f in fields(TrainOptions)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; options are {', '.join(known)}"
            raise TypeError(f"train() has no option {name!r}{hint}")
    values = dict(values)
    for name in ("settings", "freeze"):
        if isinstance(values.get(name), str):
            values[name] = (values[name],)  # one setting is one, not its letters
    return TrainOptions(**values)
