"""frcnn: a Faster R-CNN toolkit. Train, evaluate and predict with two-stage detectors on your own pictures.

The names below are loaded when they are first used, so that ``import frcnn`` takes milliseconds, not the
seconds that PyTorch needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frcnn.config import Config
    from frcnn.data.open import open_dataset
    from frcnn.evaluation.run import evaluate
    from frcnn.model.detector import Parts
    from frcnn.predict import Detector
    from frcnn.recipes import RECIPES, recipe
    from frcnn.results import Result
    from frcnn.structures import Detections
    from frcnn.training.run import train

__version__ = "0.1.0"

__all__ = [
    "RECIPES",
    "Config",
    "Detections",
    "Detector",
    "Parts",
    "Result",
    "evaluate",
    "open_dataset",
    "recipe",
    "train",
]

_HOMES = {
    "RECIPES": "frcnn.recipes",
    "Config": "frcnn.config",
    "Detections": "frcnn.structures",
    "Detector": "frcnn.predict",
    "Parts": "frcnn.model.detector",
    "Result": "frcnn.results",
    "evaluate": "frcnn.evaluation.run",
    "open_dataset": "frcnn.data.open",
    "recipe": "frcnn.recipes",
    "train": "frcnn.training.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        known = ", ".join(__all__)
        raise AttributeError(f"module 'frcnn' has no attribute {name!r}; public names are {known}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
