from __future__ import annotations

from pathlib import Path

import numpy as np
from corpus import FORMATS, Box, Shot
from PIL import Image

from frcnn.config import Config
from frcnn.data.check import load_checked
from frcnn.data.checks.masks import mask_boxes

CAT: Box = ("cat", 5, 5, 30, 40)
DOG: Box = ("dog", 40, 10, 70, 50)
SETTINGS = Config.model_validate({"preprocess": {"min_size": 60, "max_size": 120}})


def put_mask(root: Path, name: str, *boxes: tuple[int, int, int, int]) -> Path:
    values = np.zeros((60, 80), np.uint8)
    for k, (x1, y1, x2, y2) in enumerate(boxes, 1):
        values[y1:y2, x1:x2] = k
    file = root / "PedMasks" / f"{name}_mask.png"
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(file)
    return file


def found(root: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    report = load_checked(root, config=SETTINGS, clean=False, decode=True)[1]
    return [(f.code, f.severity, f.rows) for f in report.findings]


def test_tight_boxes_of_values(tmp_path: Path) -> None:
    file = put_mask(tmp_path, "a", (5, 5, 30, 40), (0, 0, 0, 0), (79, 59, 80, 60))
    assert mask_boxes(file, 0).shape == (0, 4)
    boxes = mask_boxes(file, 3)
    assert boxes[[0, 2]].tolist() == [[5, 5, 30, 40], [79, 59, 80, 60]] and np.isinf(boxes[1]).all()
    assert np.isinf(mask_boxes(tmp_path / "none.png", 2)).all()
    file.write_bytes(b"no picture")
    assert np.isinf(mask_boxes(file, 2)).all()


def test_a_box_that_is_off_its_mask_is_named(tmp_path: Path) -> None:
    FORMATS["pennfudan"].write(tmp_path, {"a": Shot((CAT, DOG), noise=1), "b": Shot((CAT,), noise=2)}, {})
    assert found(tmp_path) == []
    put_mask(tmp_path, "a", (5, 5, 30, 40), (40, 10, 66, 50))  # 4 px are allowed
    assert found(tmp_path) == []
    put_mask(tmp_path, "a", (5, 5, 30, 40), (40, 10, 65, 50))
    assert found(tmp_path) == [("D24", "warn", (1,))]
