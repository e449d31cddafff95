"""A data set of a few coloured rectangles and a detector small enough to train in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from frcnn.config import Config
from frcnn.recipes import recipe

CLASSES = ("blue", "red")
COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220)}
Object = tuple[str, int, int, int, int]


def tiny_config(**train: object) -> Config:
    """The default recipe at 64 pixels, from scratch, with few proposals and narrow heads."""
    base = recipe("lite0-fpn")

    def section(name: str, **values: object) -> object:
        return getattr(base, name).model_copy(update=values)

    values: dict[str, object] = {"epochs": 2, "batch": 2, "warmup": 2, "precision": "fp32", "lr": 0.02}
    return base.model_copy(
        update={
            "recipe": "tiny",
            "data": section("data", workers=0, scale_jitter=(1.0, 1.0)),
            "preprocess": section("preprocess", min_size=64, max_size=96),
            "backbone": section("backbone", weights="none", norm="frozen"),
            "fpn": section("fpn", channels=16),
            "anchors": section("anchors", sizes=((8, 12), (16, 24), (32, 40), (48, 64))),
            "rpn": section("rpn", batch_size=32),
            "proposals": section(
                "proposals", pre_nms_train=40, post_nms_train=40, pre_nms_test=40, post_nms_test=20
            ),
            "roi": section("roi", hidden=32, batch_size=16, dropout=0.1),
            "train": section("train", **{**values, **train}),
            "eval": section("eval", batch=2, precision="fp32"),
        }
    )


def write_voc(root: Path, splits: dict[str, list[list[Object]]]) -> Path:
    """A devkit folder; every picture is a list of (class, x1, y1, x2, y2), half-open."""
    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, pictures in splits.items():
        names = [f"{split}{i:03d}" for i in range(len(pictures))]
        (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name, objects in zip(names, pictures, strict=True):
            pixels = rng.integers(90, 130, (64, 80, 3), dtype=np.uint8)
            lines = ["<annotation>", f"<filename>{name}.jpg</filename>"]
            lines.append("<size><width>80</width><height>64</height><depth>3</depth></size>")
            for label, x1, y1, x2, y2 in objects:
                pixels[y1:y2, x1:x2] = COLOURS[label]
                corners = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
                lines.append(f"<object><name>{label}</name><bndbox>{corners}</bndbox></object>")
            (root / "Annotations" / f"{name}.xml").write_text("\n".join([*lines, "</annotation>"]))
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    return root


PICTURES: list[list[Object]] = [
    [("red", 8, 8, 32, 30)],
    [("blue", 40, 20, 70, 50)],
    [("red", 10, 30, 40, 60), ("blue", 50, 5, 75, 30)],
    [],
    [("blue", 5, 5, 30, 35)],
]
