from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from one_set import CLASSES, FLAGGED, HOLDS, PLAIN, WRITERS, Thing
from PIL import Image
from voc_files import devkit, picture, real, text

import frcnn
from frcnn.cli import run
from frcnn.config import DataConfig
from frcnn.conversion.run import convert
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError, Dataset, Sample

TARGETS = ("voc", "coco", "yolo")
FLAGS = ("difficult", "truncated", "occluded")


def by_name(data: Dataset) -> dict[str, Sample]:
    return {sample.path.stem: sample for sample in data}


def written(root: Path, kind: str, things: dict[str, list[Thing]]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    WRITERS[kind](root, things)
    return root


def split_names(data: Dataset) -> dict[str, list[str]]:
    return {k: sorted(Path(data.pictures.paths[i]).stem for i in rows) for k, rows in data.splits.items()}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", WRITERS)
def test_what_both_hold_comes_back(tmp_path: Path, kind: str, target: str) -> None:
    config = DataConfig(rename={"traffic_light": "traffic light"} if kind == "kitti" else {})
    source = written(tmp_path / "in", kind, FLAGGED)
    done = convert(source, tmp_path / "out", target, config=config)  # type: ignore[arg-type]
    data, found = read_dataset(tmp_path / "out")
    assert not [f for f in found if f.severity != "note"] and data.classes == CLASSES
    assert split_names(data) == {"train": ["a", "b"], "val": ["c"]}
    for name, sample in by_name(open_dataset(source, config=config)).items():
        again = by_name(data)[name]
        np.testing.assert_allclose(again.boxes, sample.boxes, atol=0.001)
        np.testing.assert_array_equal(again.labels, sample.labels)
        for flag, was, now in zip(
            FLAGS,
            (sample.ignore, sample.truncated, sample.occluded),
            (again.ignore, again.truncated, again.occluded),
            strict=True,
        ):
            held = flag in HOLDS[target]
            assert now.tolist() == (was.tolist() if held else [0] * len(was)), flag
    words = " ".join(done.lost)
    assert {flag for flag in FLAGS if flag in words} == HOLDS[kind] - HOLDS[target]


@pytest.mark.parametrize("target", TARGETS)
def test_a_set_without_a_box(tmp_path: Path, target: str) -> None:
    source = written(tmp_path / "in", "coco", {"a": [], "b": [], "c": []})
    done = convert(source, tmp_path / "out", target)  # type: ignore[arg-type]
    names = "4 classes without a box: Car, Cyclist, Person, traffic light: not named any more"
    assert (len(done.dataset), done.lost) == (3, (names,) if target == "voc" else ())
    again = open_dataset(tmp_path / "out")
    assert len(again) == 3 and not len(again.objects.boxes)
    assert set(again.source_ids) == (set() if target == "voc" else set(CLASSES))


def test_what_a_form_does_not_hold_is_named_with_its_number(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.jpg", (60, 80))
    boxes = [[10, 10, 20, 20], [5, 5, 9, 9], [70, 50, 30, 30], [200, 5, 9, 9], [4, 4, 1, 9], [4, 4, -2, 9]]
    annotations = [
        {"id": k, "image_id": 1, "category_id": 7, "bbox": box, "iscrowd": int(k == 1), "ignore": int(k == 0)}
        for k, box in enumerate(boxes)
    ]
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": annotations}
    text(tmp_path / "in/a.json", json.dumps(content | {"categories": [{"id": 7, "name": "cat"}]}))
    lost = {t: convert(tmp_path / "in", tmp_path / t, t).lost for t in TARGETS}  # type: ignore[arg-type]
    assert lost["coco"] == ()
    assert lost["voc"] == (
        "1 boxes with a side of up to 1 pixel: left out",
        "1 crowd boxes: written as difficult",
    )
    assert lost["yolo"] == (
        "1 crowd boxes, which are no objects: left out",
        "2 boxes outside their picture or inverted: left out",
        "1 boxes that reach over the border: cut there",
        "1 difficult or ignored boxes: written as ordinary ones",
        'no splits: data.yaml calls all pictures "train"',
    )
    assert (
        open_dataset(tmp_path / "coco")[0].boxes.tolist() == open_dataset(tmp_path / "in")[0].boxes.tolist()
    )
    assert [len(open_dataset(tmp_path / t)[0].boxes) for t in TARGETS] == [5, 6, 3]
    config = DataConfig(difficult="object", crowd="background")
    assert len(convert(tmp_path / "in", tmp_path / "w", "yolo", config=config).dataset.objects.boxes) == 2


def test_regions_without_a_class(tmp_path: Path) -> None:
    source = written(tmp_path / "in", "kitti", PLAIN)
    with (source / "training/label_2/a.txt").open("a") as file:
        file.write("DontCare -1 -1 -10 50.5 10.25 70.5 20.5 -1 -1 -1 -1000 -1000 -1000 -10\n")
    assert "1 regions without a class (DontCare): left out" in convert(source, tmp_path / "out", "coco").lost


@pytest.mark.parametrize("target", TARGETS)
def test_pictures_of_equal_names_and_splits_that_overlap(tmp_path: Path, target: str) -> None:
    root = tmp_path / "in"
    for number, name in enumerate(("x/1", "y/1", "y/2", "y/3")):
        picture(root / f"JPEGImages/{name}.jpg", colour=60 * number)
        text(root / f"Annotations/{name}.xml", "<annotation/>")
    for split, names in (("train", "x/1\ny/1"), ("trainval", "x/1\ny/1\ny/2"), ("val", "y/2")):
        text(root / f"ImageSets/Main/{split}.txt", names)
    done = convert(root, tmp_path / "out", target)  # type: ignore[arg-type]
    again = open_dataset(tmp_path / "out")
    assert len(again) == 4 and len({p.casefold() for p in again.pictures.paths}) == 4
    sizes = {name: len(rows) for name, rows in again.splits.items()}
    trainval = 'split "trainval": 3 of 3 pictures left out '
    if target == "voc":
        assert sizes == {"train": 2, "trainval": 3, "val": 1} and not done.lost
    elif target == "coco":
        assert sizes == {"train": 2, "val": 1, "unsplit": 1}
        trainval += "(they are in other splits already)"
        assert done.lost == (trainval, '1 pictures in no split: written as split "unsplit"')
    else:
        assert sizes == {"train": 2, "val": 1}
        assert done.lost == (trainval + "(YOLO has train, val and test only)",)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_pictures_with_an_exif_rotation(tmp_path: Path, target: str, exif: str) -> None:
    (tmp_path / "in").mkdir()
    turn = Image.Exif()
    turn[0x0112] = 6
    Image.new("RGB", (80, 60)).save(tmp_path / "in/a.jpg", exif=turn)
    text(tmp_path / "in/t.csv", "path,x1,y1,x2,y2,class\na.jpg,5,10,50,60,cat\n")
    config = DataConfig.model_validate({"exif": exif})
    done = convert(tmp_path / "in", tmp_path / "out", target, config=config)  # type: ignore[arg-type]
    again = open_dataset(tmp_path / "out", config=config)[0]
    assert again.size == ((80, 60) if exif == "apply" else (60, 80))
    np.testing.assert_allclose(again.boxes, [[5, 10, 50, 60]], atol=1e-4)
    assert any("data.exif=ignore" in line for line in done.lost) is (exif == "ignore")


def test_sizes_that_are_not_the_pictures_are_refused_all_at_once(tmp_path: Path) -> None:
    source = devkit(tmp_path / "in", {"a": [("cat", 1, 1, 70, 50)], "b": [("cat", 1, 1, 9, 9)], "c": []})
    for name in "ab":  # made smaller after they were annotated
        picture(source / f"JPEGImages/{name}.jpg", (30, 40))
    with pytest.raises(DataError, match="2 errors in the data") as caught:
        convert(source, tmp_path / "out", "coco")
    for name in "ab":
        line = f"{source}/Annotations/{name}.xml: states 80 x 60, the picture has 40 x 30 pixels"
        assert line in str(caught.value)
    assert not (tmp_path / "out").exists()
    text(source / "Annotations/c.xml", "<annotation>")
    with pytest.raises(DataError, match="3 errors in the data"):  # with what reading found
        convert(source, tmp_path / "out", "coco")


def test_boxes_that_were_drawn_on_unrotated_pictures_are_refused(tmp_path: Path) -> None:
    source = devkit(tmp_path / "in", {"a": [("cat", 1, 1, 70, 50)]})
    turn = Image.Exif()
    turn[0x0112] = 6
    Image.new("RGB", (80, 60)).save(source / "JPEGImages/a.jpg", exif=turn)
    with pytest.raises(DataError, match=r"^D14 .*after its EXIF rotation \(6\).*--exif ignore"):
        convert(source, tmp_path / "out", "yolo")
    assert len(convert(source, tmp_path / "out", "yolo", config=DataConfig(exif="ignore")).dataset) == 1


def test_one_split(tmp_path: Path) -> None:
    source = written(tmp_path / "in", "yolo", PLAIN)
    convert(source, tmp_path / "out", "coco", split="train")
    again = open_dataset(tmp_path / "out")
    assert split_names(again) == {"train": ["a", "b"]} and len(again) == 2
    with pytest.raises(DataError, match='no split "tain"; did you mean "train"'):
        convert(source, tmp_path / "none", "coco", split="tain")
    assert not (tmp_path / "none").exists()


def test_pictures_are_copied_or_linked(tmp_path: Path) -> None:
    source = written(tmp_path / "in", "csv", PLAIN)
    file = source / "pictures/a.jpg"
    convert(source, tmp_path / "copies", "yolo")
    convert(source, tmp_path / "links", "yolo", link=True)
    copy, link = (tmp_path / name / "images/train/a.jpg" for name in ("copies", "links"))
    assert copy.read_bytes() == link.read_bytes() == file.read_bytes()
    assert os.path.samefile(link, file) and not os.path.samefile(copy, file)


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    source = written(tmp_path / "in", "voc", PLAIN)
    text(tmp_path / "full/x.txt", "x")
    with pytest.raises(DataError, match="full: is not empty; give a folder that is new or empty"):
        convert(source, tmp_path / "full", "coco")
    with pytest.raises(DataError, match="is a file; give a folder"):
        convert(source, tmp_path / "full/x.txt", "coco")
    with pytest.raises(DataError, match="lies inside the data set"):
        convert(source, source / "coco", "coco")
    with pytest.raises(ValueError, match="unknown label format 'kitti'"):
        convert(source, tmp_path / "out", "kitti")  # type: ignore[arg-type]
    text(source / "Annotations/a.xml", "<annotation>")
    with pytest.raises(DataError, match=r"D16 .*a\.xml:1: not well-formed"):
        convert(source, tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    assert (
        len(frcnn.convert(written(tmp_path / "good", "voc", PLAIN), tmp_path / "empty", "coco").dataset) == 3
    )


def test_no_hard_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(DataError, match=r"no hard link to .* \(Invalid cross-device link\); use --copy"):
        convert(written(tmp_path / "in", "voc", PLAIN), tmp_path / "out", "coco", link=True)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "name", ["kitti-sample", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bccd", "pennfudan"))]
)
def test_real_sets_come_back(tmp_path: Path, name: str, target: str) -> None:
    source = open_dataset(real(name))
    convert(real(name), tmp_path / "out", target)  # type: ignore[arg-type]
    again = by_name(open_dataset(tmp_path / "out"))
    assert len(again) == len(source) and open_dataset(tmp_path / "out").classes == source.classes
    for stem, sample in by_name(source).items():
        objects = sample.labels >= 0  # KITTI's regions without a class are in no other form
        np.testing.assert_allclose(again[stem].boxes, sample.boxes[objects], atol=0.01)
        np.testing.assert_array_equal(again[stem].labels, sample.labels[objects])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path / "in", "voc", FLAGGED)
    assert run(["convert", str(source), str(tmp_path / "out"), "--to", "yolo", "--one-class", "thing"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Pascal VOC -> YOLO: 3 pictures, 6 boxes, 1 classes; splits: train 2, val 1",
        "left out or changed:",
        "    1 difficult or ignored boxes: written as ordinary ones",
        "    1 truncated boxes: the flag is dropped",
        "    1 occluded boxes: the flag is dropped",
        "not read, and so not written: poses and parts",
        f"written: {tmp_path / 'out'}",
    ]
    assert open_dataset(tmp_path / "out").classes == ("thing",)
    assert run(["convert", str(source), str(tmp_path / "out"), "--to", "voc"]) == 2
    assert capsys.readouterr().err == (
        f"frcnn: {tmp_path / 'out'}: is not empty; give a folder that is new or empty\n"
    )
    assert run(["convert", str(source), str(tmp_path / "new"), "--to", "kitti"]) == 2
    assert "kitti" in capsys.readouterr().err and not (tmp_path / "new").exists()
