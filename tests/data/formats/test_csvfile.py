from __future__ import annotations

from pathlib import Path

import pytest
from voc_files import picture, text

from frcnn.config import DataConfig
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError

NAMES = "path,xmin,ymin,xmax,ymax,class\n"


def make(root: Path, tables: dict[str, str], pictures: tuple[str, ...] = ("a.jpg", "s/b.jpg")) -> Path:
    for name in pictures:
        picture(root / name)
    for name, content in tables.items():
        text(root / name, content)
    return root


def test_a_table_without_rows(tmp_path: Path) -> None:
    data, found = read_dataset(make(tmp_path, {"boxes.csv": NAMES}))
    assert (len(data), data.format) == (0, "CSV")
    assert [f.message for f in found] == ["2 of 2 pictures are in no table"]


def test_pictures_with_and_without_boxes(tmp_path: Path) -> None:
    rows = "a.jpg,1,2.5,30,40,cat\n/home/x/b.jpg,,,,,\na.jpg,5,5,9,9,dog\n"
    make(tmp_path, {"boxes.csv": NAMES + rows, "notes.csv": "a,b\n"}, ("a.jpg", "s/b.jpg", "c.jpg"))
    data, found = read_dataset(tmp_path)
    assert list(data.pictures.paths) == ["a.jpg", "s/b.jpg"] and data.classes == ("cat", "dog")
    assert data[0].boxes.tolist() == [[1, 2.5, 30, 40], [5, 5, 9, 9]]  # as they are: from 0, half-open
    assert data.objects.lines.tolist() == [2, 4] and len(data[1].boxes) == 0
    assert [(f.severity, f.message) for f in found] == [
        ("note", "1 of 3 pictures are in no table"),
        ("note", "1 other tables: notes.csv"),
    ]


def test_shares_and_names_without_endings(tmp_path: Path) -> None:
    head = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
    make(tmp_path, {"train.csv": f"{head}a,/m/01,0.1,0.5,0.1,0.5,1,0,1\nb,/m/01,0,1,0.25,1,-1,1,0\n"})
    data, found = read_dataset(tmp_path)
    assert data[0].boxes[0] == pytest.approx([8, 6, 40, 30])
    assert [s.ignore.tolist() for s in data] == [s.crowd.tolist() for s in data] == [[True], [False]]
    assert [s.occluded.tolist() for s in data] == [[1], [0]]
    assert [s.truncated.tolist() for s in data] == [[0], [1]]
    assert {(f.code, f.severity) for f in found} == {("D16", "note"), ("D20", "note")}
    assert list(data.splits) == ["train"]


def test_a_box_that_is_no_share_among_shares(tmp_path: Path) -> None:
    rows = (
        "a.jpg,0.1,0.1,0.5,0.5,cat\na.jpg,0.2,0.1,0.5,1.003,cat\nb.jpg,30,10,60,50,cat\nb.jpg,0,0,0.5,1,cat\n"
    )
    make(tmp_path, {"boxes.csv": NAMES + rows})
    data, found = read_dataset(tmp_path)
    assert [(f.code, f.severity, f.line) for f in found] == [("D04", "error", 4), ("D16", "note", 0)]
    assert data[0].boxes[1] == pytest.approx([16, 6, 40, 60.18]) and len(data[1].boxes) == 1
    found = read_dataset(tmp_path, config=DataConfig(bad_boxes="drop"))[1]
    assert [(f.severity, f.action) for f in found if f.code == "D04"] == [
        ("warn", "left out (--bad-boxes drop)")
    ]


def test_a_picture_of_two_splits_and_sizes(tmp_path: Path) -> None:
    head = "split,width,height,path,xmin,ymin,xmax,ymax,class\n"
    rows = "train,80,60,a.jpg,1,2,3,4,cat\nval,80,60,a.jpg,1,2,3,5,cat\nval,80,60,b.jpg,1,2,3,4,cat\n"
    data, found = read_dataset(make(tmp_path, {"boxes.csv": head + rows}))
    assert {name: index.tolist() for name, index in data.splits.items()} == {"train": [0], "val": [1]}
    assert [(f.code, f.severity, f.line, f.message) for f in found] == [
        ("D18", "warn", 3, 'has "a.jpg" in val, and in train in a row before')
    ]
    assert len(data[0].boxes) == 2
    text(tmp_path / "boxes.csv", head + rows.replace("val,80,60,a", "train,160,120,a"))
    with pytest.raises(DataError, match=r'D14 .*boxes\.csv:3: states 160 x 120 for "a\.jpg", and 80 x 60'):
        open_dataset(tmp_path)


def test_flags_follow_the_policy(tmp_path: Path) -> None:
    make(tmp_path, {"t.csv": "path,class,x1,y1,x2,y2,difficult\na.jpg,cat,1,1,9,9,1\na.jpg,cat,1,1,5,5,no\n"})
    assert open_dataset(tmp_path)[0].ignore.tolist() == [True, False]
    assert not open_dataset(tmp_path, config=DataConfig(difficult="object"))[0].ignore.any()
    assert len(open_dataset(tmp_path, config=DataConfig(difficult="background"))[0].boxes) == 1


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"boxes.csv": "a.jpg,1,2,3,4,cat\ns/b.jpg,,,,,\n"}, {}),
        (
            {"train.csv": "a.jpg,1,2,3,4,cat\n", "my_val.csv": "b.jpg,1,2,3,4,cat\n"},
            {"train": [0], "val": [1]},
        ),
        ({"valid/boxes.csv": "a.jpg,1,2,3,4,cat\n"}, {"val": [0]}),
        (
            {"boxes.csv": f"split,{NAMES}train,a.jpg,1,2,3,4,cat\nValid,b.jpg,1,2,3,4,cat\n"},
            {"train": [0], "val": [1]},
        ),
    ],
)
def test_splits(tmp_path: Path, tables: dict[str, str], expected: dict[str, list[int]]) -> None:
    data = open_dataset(make(tmp_path, tables))
    assert {name: rows.tolist() for name, rows in data.splits.items()} == expected


def test_everything_wrong_is_found_at_once(tmp_path: Path) -> None:
    rows = "a.jpg,1,2,3,4,cat\na.jpg,1,2,x,4,cat\nq.jpg,1,2,3,4,cat\n../../etc/passwd,,,,,\n"
    make(tmp_path, {"one.csv": NAMES + rows, "two.csv": f"{NAMES}a.jpg,1,2,3,4,cat\nb.jpg,1,2,3,4,\n"})
    data, found = read_dataset(tmp_path)
    assert {(f.code, f.severity, Path(f.path).name, f.line) for f in found} == {
        ("D16", "error", "one.csv", 3),
        ("D12", "error", "one.csv", 4),
        ("D12", "error", "one.csv", 5),
        ("D16", "error", "two.csv", 3),
        ("D09", "error", "two.csv", 0),
    }
    assert all(f.action for f in found) and [len(s.boxes) for s in data] == [1, 0]


def test_no_pictures(tmp_path: Path) -> None:
    make(tmp_path, {"boxes.csv": f"{NAMES}a.jpg,1,2,3,4,cat\n"}, ())
    with pytest.raises(DataError, match="holds tables of boxes and no pictures"):
        open_dataset(tmp_path)
