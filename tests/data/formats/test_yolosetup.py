from __future__ import annotations

from pathlib import Path

import pytest
from voc_files import picture, text

from frcnn.data.formats.layout import scan
from frcnn.data.formats.yolosetup import ClassNames, class_names, lines_of, read_setup, setup_files, splits_of
from frcnn.data.formats.yolotext import Setup
from frcnn.data.sample import DataError


def test_a_folder_without_such_files(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    tree = scan(tmp_path)
    assert setup_files(tree) == [] and read_setup(tree) == (Setup(), "", [])
    assert class_names(tree, Setup(), "") == (ClassNames(), [])
    assert splits_of(tree, Setup(), "") == ({}, None, []) and lines_of(tree, "gone.txt") == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.yaml": "names: [x]\ntrain: y\n"}, ["a.yaml"]),
        ({"a.yml": "\ufeffnc: 3\r\nvalid: y\r\n"}, ["a.yml"]),
        ({"a.yaml": "names: [x]\n"}, []),
        ({"a.yaml": "x:\n  names: [x]\n  train: y\n"}, []),
        ({"x.data": "train=a\n", "a.yaml": "names: [x]\ntrain: y\n"}, ["a.yaml"]),
        ({"a.yaml": "{names: [x], train: y}"}, ["a.yaml"]),
        ({"a.yaml": '{"train": "y",\n "nc": 1}'}, ["a.yaml"]),
        ({"a.yaml": "{names: [x]}"}, []),
        ({"x.data": " valid = a\n"}, ["x.data"]),
        ({"x.data": "0 1 2\n"}, []),
    ],
)
def test_which_files_name_classes_and_splits(
    tmp_path: Path, files: dict[str, str], expected: list[str]
) -> None:
    for name, content in files.items():
        text(tmp_path / name, content)
    assert setup_files(scan(tmp_path)) == expected


def test_one_of_several(tmp_path: Path) -> None:
    for name in ("b.yaml", "x/a.yaml"):
        text(tmp_path / name, "train: x\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"2 files name classes and splits \(b\.yaml, x/a\.yaml\)"):
        read_setup(scan(tmp_path))
    text(tmp_path / "data.yml", "train: x\nnames: cat\n")
    setup, file, found = read_setup(scan(tmp_path))
    assert file == "data.yml" and setup.splits == {"train": [("x", 1)]}
    assert [(f.code, f.severity, f.line) for f in found] == [("D16", "error", 2)]


def test_names_of_darknet_are_those_its_file_names(tmp_path: Path) -> None:
    text(tmp_path / "b/my.names", "cat\n")
    text(tmp_path / "a/other.names", "dog\n")
    names, found = class_names(scan(tmp_path), Setup(names_file="data/my.names"), "x.data")
    assert (names.of, names.file, found) == ({0: "cat"}, "b/my.names", [])
    names, found = class_names(scan(tmp_path), Setup(), "")
    assert names.of == {0: "dog"} and [f.message for f in found] == [
        "has other class names than a/other.names"
    ]


def test_pictures_of_several_places_are_counted_once(tmp_path: Path) -> None:
    for name in ("x/a", "x/y/b", "z/c"):
        picture(tmp_path / f"{name}.jpg")
    setup = Setup(splits={"train": [("x", 1), ("x/y", 2)], "val": [("gone", 3)]})
    splits, used, found = splits_of(scan(tmp_path), setup, "data.yaml")
    assert splits == {"train": ["x/a.jpg", "x/y/b.jpg"]} and used == {"x/a.jpg", "x/y/b.jpg"}
    assert [(f.code, f.line, f.splits) for f in found] == [("D12", 3, ("val",))]
