from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from voc_files import devkit, picture, text, xml

from frcnn.config import DataConfig
from frcnn.data.formats.layout import scan, stem
from frcnn.data.formats.pairing import PictureIndex
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError

ONE = [("cat", 1, 1, 10, 20)]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.mkdir(), "the folder is empty"),
        (lambda p: None, r"no such folder; .* exists, check the rest of the path"),
        (lambda p: p.write_text("x"), "is a file; give the folder"),
        (lambda p: text(p / "readme.md", "x"), "no pictures and no annotations here"),
        (
            lambda p: picture(p / "a.jpg"),
            r"holds pictures \(1\) and no annotations of a known format; looked for KITTI .*, Penn-Fudan .*, "
            r"Pascal VOC \(\*\.xml\), COCO .*, YOLO .*, LabelMe .*, CSV ",
        ),
        (lambda p: text(p / "a.xml", xml("a.jpg", ONE)), "holds XML files and no pictures"),
    ],
)
def test_a_folder_without_a_data_set(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    path = tmp_path / "data"
    make(path)
    with pytest.raises(DataError, match=reason) as caught:
        open_dataset(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_splits_that_do_not_exist_or_are_empty(tmp_path: Path) -> None:
    devkit(tmp_path / "flat", {"a": ONE})
    with pytest.raises(DataError, match='no split "test", because this data set has no splits'):
        open_dataset(tmp_path / "flat", "test")
    devkit(tmp_path / "kit", {"a": ONE, "b": ONE}, {"train": ["a", "b"], "test": []})
    with pytest.raises(
        DataError, match=r'no split "tets"; did you mean "test"\? splits here: test \(0\), train \(2\)'
    ):
        open_dataset(tmp_path / "kit", "tets")
    with pytest.raises(DataError, match='split "test" is empty'):
        open_dataset(tmp_path / "kit", "test")


def test_a_folder_of_several_formats(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": ONE})
    content = '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}'
    text(tmp_path / "all.json", content)
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: may be Pascal VOC (*.xml) and COCO (*.json with images, annotations and categories); "
        "say which one to read with --set data.format=voc or --set data.format=coco, or give the folder of "
        "one"
    )
    data, found = read_dataset(tmp_path, config=DataConfig(format="voc"))
    assert data.classes == ("cat",) and data.format == "Pascal VOC"
    assert [(f.code, f.severity, f.message) for f in found] == [
        ("D09", "note", "holds COCO annotations, too")
    ]
    assert open_dataset(tmp_path, config=DataConfig(format="coco")).format == "COCO"
    with pytest.raises(DataError, match="may be Pascal VOC"):
        open_dataset(tmp_path, config=DataConfig(format="yolo"))


COCO = """{"images": [{"id": 1, "file_name": "%s.jpg"}], "categories": [{"id": 1, "name": "%s"}],
"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]}"""


@pytest.mark.parametrize(
    ("file", "format", "classes", "names"),
    [
        ("one.json", "COCO", ("cow",), ["b.jpg"]),
        ("annotations/two.json", "COCO", ("pig",), ["a.jpg"]),
        ("one.csv", "CSV", ("hen",), ["b.jpg"]),
        ("data.yaml", "YOLO", ("fox",), ["a.jpg", "b.jpg"]),
        ("Other.YAML", "YOLO", ("owl",), ["b.jpg"]),
        ("my.data", "YOLO", ("emu",), ["a.jpg"]),
    ],
)
def test_the_file_that_describes_a_data_set_chooses_it(
    tmp_path: Path, file: str, format: str, classes: tuple[str, ...], names: list[str]
) -> None:
    devkit(tmp_path, {"a": ONE, "b": ONE})
    for name in names_of_pictures(tmp_path):
        text(tmp_path / "labels" / f"{name}.txt", "0 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "one.json", COCO % ("b", "cow"))
    text(tmp_path / "annotations/two.json", COCO % ("a", "pig"))
    text(tmp_path / "one.csv", "path,x1,y1,x2,y2,class\nb.jpg,1,1,9,9,hen\n")
    text(tmp_path / "two.csv", "path,x1,y1,x2,y2,class\na.jpg,1,1,9,9,ape\n")
    text(tmp_path / "data.yaml", "names: [fox]\ntrain: JPEGImages\n")
    text(tmp_path / "b.txt", "JPEGImages/b.jpg\n")
    text(tmp_path / "Other.YAML", "names: [owl]\nval: b.txt\n")
    text(tmp_path / "my.data", "train = a.txt\nnames = my.names\n")
    text(tmp_path / "a.txt", "JPEGImages/a.jpg\n")
    text(tmp_path / "my.names", "emu\n")
    data = open_dataset(tmp_path / file)
    assert (data.format, data.classes, data.root) == (format, classes, tmp_path)
    assert [Path(data.pictures.paths[i]).name for i in np.flatnonzero(np.diff(data.objects.offsets))] == names


def names_of_pictures(root: Path) -> list[str]:
    return [p.stem for p in (root / "JPEGImages").glob("*.jpg")]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("x.json", "{}", r"is no COCO file \(.*\), or there are no pictures below .*; give the folder"),
        ("x.yaml", "names: [x]\n", "is no YOLO file"),
        ("x.csv", "a,b\n1,2\n", "is no CSV file"),
        (".x.csv", "path,x1,y1,x2,y2,class\n", "hidden files, and links"),
    ],
)
def test_a_file_that_describes_no_data_set(tmp_path: Path, file: str, content: str, reason: str) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / file, content)
    with pytest.raises(DataError, match=reason) as caught:
        open_dataset(tmp_path / file)
    assert str(caught.value).startswith(f"{tmp_path / file}: ") and "\n" not in str(caught.value)


def test_a_wanted_format_that_is_not_there_is_said(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": ONE})
    data, found = read_dataset(tmp_path, config=DataConfig(format="kitti"))
    assert data.format == "Pascal VOC"
    assert [f.message for f in found] == ["data.format=kitti has no effect: Pascal VOC is all that is here"]


def test_what_a_data_set_says_of_itself(tmp_path: Path) -> None:
    devkit(tmp_path / "cats", {"a": ONE, "b": []})
    assert (
        repr(open_dataset(tmp_path / "cats")) == "<Dataset cats (Pascal VOC): 2 pictures, 1 boxes, 1 classes>"
    )


def test_the_class_list_is_over_all_splits_or_given(tmp_path: Path) -> None:
    pictures = {"a": [("dog", 1, 1, 5, 5)], "b": [("cat", 1, 1, 5, 5)]}
    devkit(tmp_path, pictures, {"train": ["a"], "test": ["b"]})
    assert open_dataset(tmp_path, "train").classes == open_dataset(tmp_path).classes == ("cat", "dog")
    given = open_dataset(tmp_path, classes=["dog", "cat"])
    assert given.classes == ("dog", "cat") and [int(s.labels[0]) for s in given] == [0, 1]


def test_a_class_that_is_not_in_the_list_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [("hipped_roof", 1, 1, 5, 5), ("wall", 1, 1, 5, 5)]})
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path, classes=["hipped_rof", "wall"])
    message = str(caught.value)
    assert 'a.xml:6: class "hipped_roof" is not in the class list; did you mean "hipped_rof"?' in message
    assert (
        'class "hipped_rof" is in the class list and not in the annotations; did you mean "hipped_roof"?'
        in message
    )


def test_one_string_is_one_class(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": ONE})
    assert open_dataset(tmp_path, classes="cat").classes == ("cat",)


@pytest.mark.parametrize("classes", [[], [""], ["cat", "cat "]])
def test_a_class_list_that_cannot_be_used(tmp_path: Path, classes: list[str]) -> None:
    devkit(tmp_path, {"a": ONE})
    with pytest.raises(DataError, match="the class list"):
        open_dataset(tmp_path, classes=classes)


def test_unreadable_pictures_are_an_error_or_left_out(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": ONE, "b": ONE})
    cut = tmp_path / "JPEGImages" / "a.jpg"
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"^D13 .*a\.jpg: .*truncated.*--on-bad-image skip"):
        open_dataset(tmp_path)
    left = open_dataset(tmp_path, config=DataConfig(on_bad_image="skip"))
    assert [s.image_id for s in left] == [2]


def test_links_to_the_folder_above_end(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "pictures" / "a.jpg")
    text(tmp_path / "data" / "a.xml", xml("a.jpg", ONE))
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "data" / "broken").symlink_to(tmp_path / "data" / "nowhere")
    (tmp_path / "data" / "out").symlink_to(tmp_path / "nowhere")
    assert scan(tmp_path / "data").files == ("a.xml", "broken", "pictures/a.jpg")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("", ""), ("a/b.JPG", "b"), ("b.v1.xml", "b.v1"), ("b.v1", "b.v1"), ("C:\\x\\y.png", "y")],
)
def test_stem(path: str, expected: str) -> None:
    assert stem(path) == expected


def test_picture_index() -> None:
    assert PictureIndex([]).candidates("a.xml") == []
    index = PictureIndex(["train/1.jpg", "val/1.jpg", "2.jpg", "2.png", "3.jpg"])
    assert index.candidates("labels/val/1.xml") == ["val/1.jpg"]
    assert index.candidates("labels/1.xml") == ["train/1.jpg", "val/1.jpg"]
    assert index.candidates("2.xml", "2.png") == ["2.png"]
    assert index.candidates("3.jpg.xml") == ["3.jpg"]
    assert index.candidates("4.xml", "") == []


def test_reading_is_the_same_every_time(tmp_path: Path) -> None:
    devkit(tmp_path, {name: ONE for name in "cab"})
    first, second = read_dataset(tmp_path)[0], read_dataset(tmp_path)[0]
    assert list(first.pictures.paths) == list(second.pictures.paths) == [f"JPEGImages/{n}.jpg" for n in "abc"]
