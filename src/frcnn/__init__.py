"""frcnn: a Faster R-CNN toolkit. Train, evaluate and predict with two-stage detectors on your own pictures.

Names are loaded when they are first used, so that ``import frcnn`` and the command line start at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from frcnn.model import host

__version__ = "0.1.0"
host.prepare()  # before any module of ours makes a tensor

if TYPE_CHECKING:
    from frcnn.config import Config
    from frcnn.conversion.run import convert
    from frcnn.data.open import open_dataset
    from frcnn.data.sample import DataError, Dataset, Sample
    from frcnn.evaluation.report import Report
    from frcnn.evaluation.run import evaluate
    from frcnn.model.parts import Parts
    from frcnn.predict import Detector
    from frcnn.recipes import RECIPES, recipe
    from frcnn.results import Result
    from frcnn.settings import ConfigError
    from frcnn.structures import Detections
    from frcnn.training.run import Run, train
    from frcnn.weights.checkpoint import CheckpointError

_HOMES = {
    "RECIPES": "frcnn.recipes",
    "CheckpointError": "frcnn.weights.checkpoint",
    "Config": "frcnn.config",
    "ConfigError": "frcnn.settings",
    "DataError": "frcnn.data.sample",
    "Dataset": "frcnn.data.sample",
    "Detections": "frcnn.structures",
    "Detector": "frcnn.predict",
    "Parts": "frcnn.model.parts",
    "Report": "frcnn.evaluation.report",
    "Result": "frcnn.results",
    "Run": "frcnn.training.run",
    "Sample": "frcnn.data.sample",
    "convert": "frcnn.conversion.run",
    "evaluate": "frcnn.evaluation.run",
    "open_dataset": "frcnn.data.open",
    "recipe": "frcnn.recipes",
    "train": "frcnn.training.run",
}

__all__ = [
    "RECIPES",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataError",
    "Dataset",
    "Detections",
    "Detector",
    "Parts",
    "Report",
    "Result",
    "Run",
    "Sample",
    "__version__",
    "convert",
    "evaluate",
    "open_dataset",
    "recipe",
    "train",
]


def __getattr__(name: str) -> object:
    """The public name, imported from its room."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, also those not used yet."""
    return sorted({*globals(), *__all__})
