from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frcnn.results import Result


def make(n: int = 3, **extra: object) -> Result:
    boxes = np.arange(4 * n).reshape(n, 4) + np.array([0, 0, 5, 7])
    return Result(boxes, np.linspace(0.9, 0.1, n), np.arange(n) % 2, ("cat", "dog"), **extra)  # type: ignore[arg-type]


def test_nothing_found() -> None:
    empty = Result([], [], [], ("cat",))  # type: ignore[arg-type]
    assert len(empty) == 0 and empty.boxes.shape == (0, 4) and empty.names == []
    assert empty.to_coco() == [] and empty.to_dict()["detections"] == []
    assert len(empty[empty.scores > 0.5]) == 0 and len(empty[[]]) == 0
    assert empty.plot(Image.new("RGB", (8, 8))).size == (8, 8)


def test_types_names_and_choices() -> None:
    result = make(3, path="a/b.jpg", size=(10, 20))
    assert result.boxes.dtype == result.scores.dtype == np.float32 and result.labels.dtype == np.int64
    assert result.names == ["cat", "dog", "cat"] and result.path == Path("a/b.jpg")
    assert result[result.scores > 0.4].names == ["cat", "dog"] and len(result[1:]) == 2
    assert result[1].names == ["dog"] and result[[2, 0]].scores.tolist() == result.scores[[2, 0]].tolist()
    assert result[:1].path == result.path and result[:1].size == (10, 20)
    assert [r.names[0] for r in result] == result.names


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "words"),
    [
        (np.zeros((2, 4)), np.zeros(1), np.zeros(2), "do not belong together"),
        (np.zeros((2, 5)), np.zeros(2), np.zeros(2), "do not belong together"),
        (np.zeros((1, 4)), np.zeros(1), np.array([2]), "label 2 is not one of the 2 classes"),
        (np.zeros((1, 4)), np.zeros(1), np.array([-1]), "label -1"),
    ],
)
def test_what_does_not_fit_is_named(boxes: object, scores: object, labels: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Result(boxes, scores, labels, ("cat", "dog"))  # type: ignore[arg-type]


def test_to_coco_and_to_dict() -> None:
    result = make(1, path="data/000000397133.jpg", size=(10, 20))
    score = pytest.approx(0.9)
    assert result.to_coco() == [{"image_id": 397133, "category_id": 0, "bbox": [0, 1, 7, 9], "score": score}]
    assert result.to_coco(7)[0]["image_id"] == 7 and make(1).to_coco()[0]["image_id"] == 0
    assert make(1, path="x/cells.png").to_coco()[0]["image_id"] == "cells"
    assert result.to_dict() == {
        "path": str(Path("data/000000397133.jpg")),
        "height": 10,
        "width": 20,
        "detections": [{"box": [0, 1, 7, 10], "score": score, "label": 0, "name": "cat"}],
    }


def test_plot_reads_the_file_or_takes_the_picture_in_memory(tmp_path: Path) -> None:
    gray = np.full((40, 60), 100, np.uint8)
    Image.fromarray(gray).save(tmp_path / "a.png")
    shown = make(1, path=tmp_path / "a.png").plot()
    assert shown.size == (60, 40) and shown.mode == "RGB" and np.ptp(np.asarray(shown)) > 0
    pixels = np.full((40, 60, 3), 100, np.uint8)
    assert np.array_equal(make(1, picture=pixels).plot(), shown)
    assert (pixels == 100).all()
    with pytest.raises(ValueError, match="give it"):
        make(1).plot()


def test_to_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    found = make(2).to_supervision()
    assert isinstance(found, supervision.Detections) and found.xyxy.shape == (2, 4)
    assert list(found.data["class_name"]) == ["cat", "dog"] and len(make(0).to_supervision()) == 0


def test_to_supervision_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        make(1).to_supervision()
