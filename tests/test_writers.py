from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from frcnn.data.open import open_dataset
from frcnn.evaluation.coco import evaluate_json
from frcnn.labels import FORMATS, yolo_text
from frcnn.results import Result
from frcnn.writers import OutputNames, ResultWriter, labelled

CLASSES = ("cell", 'odd & "name"')
BOXES = np.array([[0.25, 1.5, 20.125, 30], [3, 4, 64, 48]])


def picture(path: Path, size: tuple[int, int] = (64, 48), gray: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (gray,) * 3).save(path)
    return path


def found(path: Path | None = None, **extra: object) -> Result:
    return Result(BOXES, np.array([0.9, 0.123456]), np.array([0, 1]), CLASSES, path, **extra)  # type: ignore[arg-type]


@pytest.mark.parametrize("save_as", [None, *FORMATS])
def test_no_results_at_all_and_none_in_a_picture(tmp_path: Path, save_as: object) -> None:
    with ResultWriter(tmp_path / "none", CLASSES, save_as=save_as):  # type: ignore[arg-type]
        pass
    assert json.loads((tmp_path / "none" / "predictions.json").read_text()) == {
        "classes": list(CLASSES),
        "images": [],
    }
    path = picture(tmp_path / "a.png")
    with ResultWriter(tmp_path / "out", CLASSES, save_as=save_as) as writer:  # type: ignore[arg-type]
        writer.add(Result([], [], [], CLASSES, path))  # type: ignore[arg-type]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["images"][0]["detections"] == []
    assert (tmp_path / "out" / "predictions.csv").read_text() == "file,label,name,score,x1,y1,x2,y2\n"
    assert np.array_equal(Image.open(tmp_path / "out" / "pictures" / "a.jpg"), Image.open(path))


def test_tables_and_pictures(tmp_path: Path) -> None:
    path = picture(tmp_path / "in" / "a.png")
    with ResultWriter(tmp_path / "out", CLASSES) as writer:
        writer.add(found(path, size=(48, 64)))
    (entry,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert entry["path"] == str(path) and (entry["height"], entry["width"]) == (48, 64)
    assert entry["detections"][0]["box"] == BOXES[0].tolist() and entry["detections"][1]["name"] == CLASSES[1]
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert rows[1]["name"] == CLASSES[1] and rows[1]["score"] == "0.1235" and rows[0]["x2"] == "20.12"
    shown = Image.open(tmp_path / "out" / "pictures" / "a.jpg")
    assert shown.size == (64, 48) and np.ptp(np.asarray(shown)) > 100
    with ResultWriter(tmp_path / "less", CLASSES, pictures=False, tables=False) as writer:
        writer.add(found(path))
    assert list((tmp_path / "less").iterdir()) == []


def test_voc_comes_back_through_the_reader(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "images" / name) for name in ("a.png", "b.png")]
    with ResultWriter(tmp_path, CLASSES, pictures=False, tables=False, save_as="voc") as writer:
        writer.add(found(paths[0]))
        writer.add(Result([], [], [], CLASSES, paths[1]))  # type: ignore[arg-type]
    data = open_dataset(tmp_path, classes=CLASSES)
    assert len(data) == 2 and len(data[1].boxes) == 0
    assert data[0].boxes == pytest.approx(BOXES, abs=0.006)  # two decimals
    assert data[0].labels.tolist() == [0, 1] and not data[0].ignore.any()
    text = (tmp_path / "annotations" / "a.xml").read_text()
    assert "<xmin>1.25</xmin><ymin>2.5</ymin><xmax>20.12</xmax><ymax>30</ymax>" in text


def test_yolo_comes_back(tmp_path: Path) -> None:
    path = picture(tmp_path / "images" / "a.png")
    with ResultWriter(tmp_path, CLASSES, pictures=False, save_as="yolo") as writer:
        writer.add(found(path))
    rows = np.loadtxt(tmp_path / "labels" / "a.txt")
    assert rows[:, 0].tolist() == [0, 1] and rows[:, 1:].max() <= 1
    centre, side = rows[:, 1:3] * (64, 48), rows[:, 3:] * (64, 48)
    assert np.hstack([centre - side / 2, centre + side / 2]) == pytest.approx(BOXES, abs=1e-3)
    assert (tmp_path / "classes.txt").read_text().splitlines() == list(CLASSES)
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["names"] == dict(enumerate(CLASSES))
    assert yolo_text(labelled(Result([], [], [], CLASSES, size=(5, 5)))) == ""  # type: ignore[arg-type]


def test_coco_comes_back_and_is_itself_the_truth(tmp_path: Path) -> None:
    paths = [picture(tmp_path / name) for name in ("a.png", "b.png")]
    with ResultWriter(tmp_path / "out", CLASSES, pictures=False, save_as="coco", root=tmp_path) as writer:
        for path in paths:
            writer.add(found(path))
    data = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [i["id"] for i in data["images"]] == [1, 2] and data["images"][1]["file_name"] == "b.png"
    assert [a["id"] for a in data["annotations"]] == [1, 2, 3, 4]
    assert [c["id"] for c in data["categories"]] == [1, 2] and data["categories"][1]["name"] == CLASSES[1]
    assert data["annotations"][1]["bbox"] == [3, 4, 61, 44] and data["annotations"][1]["category_id"] == 2
    results = [a | {"score": 0.5} for a in data["annotations"]]
    assert evaluate_json(data, results)["AP"] == 1.0


def test_same_names_from_different_folders_do_not_meet(tmp_path: Path) -> None:
    paths = [
        picture(tmp_path / folder / "a.png", gray=gray)
        for folder, gray in (("x", 10), ("y", 200), ("z/y", 90))
    ]
    with ResultWriter(tmp_path / "out", CLASSES, save_as="voc") as writer:
        for path in [*paths, paths[0]]:
            writer.add(Result([], [], [], CLASSES, path))  # type: ignore[arg-type]
    written = {p.stem: np.asarray(Image.open(p))[0, 0, 0] for p in (tmp_path / "out" / "pictures").iterdir()}
    assert written == {"a": 10, "y_a": 200, "y_a_png": 90, "x_a": 10}
    assert len(list((tmp_path / "out" / "annotations").iterdir())) == 4
    with ResultWriter(tmp_path / "root", CLASSES, root=tmp_path, save_as="yolo") as writer:
        for path in paths:
            writer.add(found(path))
    assert sorted(p.as_posix() for p in (tmp_path / "root" / "labels").rglob("*.txt")) == [
        (tmp_path / "root" / "labels" / name).as_posix() for name in ("x/a.txt", "y/a.txt", "z/y/a.txt")
    ]


def test_names() -> None:
    names = OutputNames()
    assert [names.next(None), names.next(None)] == ["picture_1", "picture_2"]
    got = [names.next(Path(p)) for p in ("/q/a.jpg", "/q/A.png", "/q/a.jpeg", "/q/a.jpg", "/q/a.jpg")]
    assert got[0] == "a" and len({name.casefold() for name in got}) == 5
    inside = OutputNames("/q")
    assert [inside.next(Path(p)) for p in ("/q/r/a.jpg", "/q/r/a.png", "/other/a.jpg")] == [
        "r/a",
        "r/a_png",
        "a",
    ]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown label format 'kitti'"):
        ResultWriter(tmp_path, CLASSES, save_as="kitti")  # type: ignore[arg-type]
    writer = ResultWriter(tmp_path, CLASSES, pictures=False, save_as="yolo")
    with pytest.raises(ValueError, match="this writer has"):
        writer.add(Result([], [], [], ("other",)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size of the picture"):
        writer.add(found())
    writer.add(found(size=(48, 64)))  # in memory, but its size is known
    assert (tmp_path / "labels" / "picture_2.txt").exists()
    original = picture(tmp_path / "pictures" / "a.jpg")
    with pytest.raises(ValueError, match="replace its original"):
        ResultWriter(tmp_path, CLASSES).add(found(original))


def test_an_error_on_the_way_keeps_what_was_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ResultWriter(tmp_path, CLASSES, pictures=False) as writer:
        writer.add(found(size=(48, 64)))
        raise KeyboardInterrupt
    assert len(json.loads((tmp_path / "predictions.json").read_text())["images"]) == 1
