"""frcnn: a Faster R-CNN toolkit. Train, evaluate and predict with two-stage detectors on your own pictures."""

__version__ = "0.1.0"
