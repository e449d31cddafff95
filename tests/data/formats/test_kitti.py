from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voc_files import picture, real, text

from frcnn.config import DataConfig
from frcnn.data.formats.kitti import parse
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError

CAR = "Car 0.25 2 1.85 10.5 5.25 40.75 30.5 1.67 1.87 3.69 -16.53 2.39 58.49 1.57"
DONTCARE = "DontCare -1 -1 -10 50.5 10.25 70.5 20.5 -1 -1 -1 -1000 -1000 -1000 -10"


def make(root: Path, files: dict[str, Sequence[str]], above: str = "training/") -> Path:
    for number, (name, rows) in enumerate(files.items()):
        picture(root / f"{above}image_2/{name}.png", colour=10 * number)
        text(root / f"{above}label_2/{name}.txt", "".join(f"{row}\n" for row in rows))
    return root


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        ([], []),
        (["", "  "], []),
        ([CAR, "", DONTCARE], []),
        ([f"{CAR} 0.9", CAR], [(1, "has 16 columns, the last a score: this is a result file")]),
        (["Car 0 0", CAR, "x"], [(1, "has 3 columns; a label has 15"), (3, "has 1 columns")]),
        ([CAR.replace("5.25", "5,25")], [(1, "column 6 (top) of 'Car' is '5,25', not a number")]),
        ([CAR.replace("1.57", "nan")], [(1, "column 15 (rotation) of 'Car' is 'nan', not a number")]),
        ([CAR.replace("0.25", "1.5")], [(1, "column 2 (truncated) of 'Car' is 1.5; it is 0 to 1, or -1")]),
        ([CAR.replace(" 2 ", " 4 ")], [(1, "column 3 (occluded) of 'Car' is 4; it is 0, 1, 2, 3 or -1")]),
        ([CAR.replace(" 2 ", " 0.5 ")], [(1, "column 3 (occluded)")]),
        (["\0\xff" * 30], [(1, "has 1 columns")]),
    ],
)
def test_rows_that_cannot_be_read(content: list[str], problems: list[tuple[int, str]]) -> None:
    found = parse(content).problems
    assert [p.line for p in found] == [line for line, _ in problems]
    for problem, (_, reason) in zip(found, problems, strict=True):
        assert reason in problem.reason


def test_a_file() -> None:
    assert parse([]).boxes.shape == (0, 4)
    found = parse([CAR, "", DONTCARE])
    assert found.names == ("Car", "DontCare")
    assert found.boxes.tolist() == [[10.5, 5.25, 40.75, 30.5], [50.5, 10.25, 70.5, 20.5]]
    assert found.truncated.tolist() == [0.25, 0]  # -1 is "not stated"
    assert found.occluded.tolist() == [2, 0]
    assert found.lines.tolist() == [1, 3]


def test_dontcare_is_a_region_without_a_class(tmp_path: Path) -> None:
    make(tmp_path, {"000000": [CAR, DONTCARE], "000001": []})
    data, found = read_dataset(tmp_path)
    assert data.classes == ("Car",) and data.written == ("Car", "DontCare")
    assert list(data.pictures.paths) == ["training/image_2/000000.png", "training/image_2/000001.png"]
    sample = data[0]
    assert sample.boxes.tolist() == [[10.5, 5.25, 40.75, 30.5], [50.5, 10.25, 70.5, 20.5]]
    assert sample.labels.tolist() == [0, -1]
    assert sample.ignore.tolist() == sample.crowd.tolist() == [False, True]
    assert (sample.truncated.tolist(), sample.occluded.tolist()) == ([0.25, 0], [2, 0])
    assert data.class_counts().tolist() == [1]
    assert data.class_presence().tolist() == [[True], [False]]
    assert [(f.code, f.line, f.kind) for f in found] == [("D20", 2, "DontCare boxes")]


def test_the_policies(tmp_path: Path) -> None:
    make(tmp_path, {"000000": [CAR, DONTCARE]})
    left_out = open_dataset(tmp_path, config=DataConfig(dontcare="background"))
    assert left_out.objects.labels.tolist() == [0] and not left_out.objects.ignore.any()
    with pytest.raises(DataError, match=r"data\.dontcare=object: the DontCare boxes of .* have no class"):
        open_dataset(tmp_path, config=DataConfig(dontcare="object"))
    merged = open_dataset(tmp_path, config=DataConfig(rename={"*": "thing"}))
    assert merged.classes == ("thing",) and merged.objects.labels.tolist() == [0, -1]


def test_object_is_no_error_where_there_is_no_dontcare(tmp_path: Path) -> None:
    make(tmp_path, {"000000": [CAR]})
    found = read_dataset(tmp_path, config=DataConfig(dontcare="object"))[1]
    assert [f.message for f in found] == [
        "data.dontcare=object has no effect: this data set has no DontCare boxes"
    ]


@pytest.mark.parametrize("above", ["", "training/", "object/training/"])
def test_folders(tmp_path: Path, above: str) -> None:
    make(tmp_path, {"000000": [CAR]}, above)
    assert list(open_dataset(tmp_path).pictures.annotations) == [f"{above}label_2/000000.txt"]


@pytest.mark.parametrize(
    ("above", "lists"), [("training/", "ImageSets"), ("training/", "training/ImageSets"), ("", "ImageSets"),
                         ("object/training/", "object/ImageSets")]
)  # fmt: skip
def test_lists_are_splits(tmp_path: Path, above: str, lists: str) -> None:
    make(tmp_path, {"000000": [CAR], "000001": [], "000002": [CAR]}, above)
    text(tmp_path / lists / "train.txt", "000000\n000002\n")
    text(tmp_path / lists / "val.txt", "000001\n000009\n")
    data, found = read_dataset(tmp_path)
    assert {k: v.tolist() for k, v in data.splits.items()} == {"train": [0, 2], "val": [1]}
    assert [(f.code, f.severity, f.line, f.splits) for f in found] == [("D12", "error", 2, ("val",))]


@pytest.mark.parametrize("folder", [True, False])
def test_the_list_of_testing_is_no_split(tmp_path: Path, folder: bool) -> None:
    make(tmp_path, {"000000": [CAR], "000001": []})
    for name, numbers in (("train", "000000"), ("test", "000001\n000002" if folder else "000000\n000007")):
        text(tmp_path / f"ImageSets/{name}.txt", numbers)
    if folder:
        picture(tmp_path / "testing/image_2/000002.png")
    data, found = read_dataset(tmp_path)
    assert list(data.splits) == ["train"]
    notes = [(f.severity, f.message) for f in found if f.path.endswith("test.txt")]
    assert notes == [("note", "lists pictures of testing/, which have no labels")]
    assert all(f.severity == "note" for f in found)


def test_a_test_list_of_ones_own_is_a_split(tmp_path: Path) -> None:
    make(tmp_path, {"000000": [CAR], "000001": [CAR]})
    text(tmp_path / "ImageSets/train.txt", "000000")
    text(tmp_path / "ImageSets/test.txt", "000001")
    assert {k: v.tolist() for k, v in open_dataset(tmp_path).splits.items()} == {"train": [0], "test": [1]}


def test_testing_pictures_have_no_labels_and_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, {"000000": [CAR]})
    picture(tmp_path / "testing/image_2/000000.png")
    data, found = read_dataset(tmp_path)
    assert len(data) == 1
    assert [(f.code, f.severity, f.message) for f in found] == [
        ("D12", "note", "1 pictures outside training/image_2 have no labels")
    ]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    text(tmp_path / "label_2" / "000000.txt", CAR)
    with pytest.raises(DataError, match="holds label_2 and no pictures in image_2"):
        open_dataset(tmp_path)
    make(tmp_path, {"000000": [CAR]})
    with pytest.raises(DataError, match=r"label_2 in 2 folders \(\., training\)"):
        open_dataset(tmp_path)


def test_everything_wrong_is_found_at_once(tmp_path: Path) -> None:
    make(tmp_path, {"000000": [CAR, "Car 1"], "000001": [f"{CAR} 0.5"], "000002": [CAR]})
    text(tmp_path / "training/label_2/000009.txt", CAR)
    text(tmp_path / "training/label_2/list.csv", "x")
    data, found = read_dataset(tmp_path)
    assert {(f.code, f.severity, Path(f.path).name, f.line) for f in found} == {
        ("D16", "error", "000000.txt", 2),
        ("D16", "error", "000001.txt", 1),
        ("D12", "error", "000009.txt", 0),
        ("D12", "warn", "list.csv", 0),
    }
    assert all(f.action for f in found)
    assert [len(s.boxes) for s in data] == [1, 0, 1]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_reader_never_fails_on_damaged_rows(data: st.DataObject) -> None:
    content = list(f"{CAR}\n{DONTCARE}\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        stop = at + data.draw(st.integers(0, 20))
        content[at:stop] = data.draw(
            st.one_of(st.text(max_size=8), st.sampled_from([" ", "\n", "1e999", "-inf", "9" * 5000]))
        )
        content = content or [" "]
    found = parse("".join(content).split("\n"))
    columns = (found.boxes, found.truncated, found.occluded, found.lines)
    assert {len(c) for c in columns} == {len(found.names)}
    assert ((found.truncated >= 0) & (found.truncated <= 1)).all()
    assert all(p.reason and p.line >= 1 for p in found.problems)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.binary(max_size=30), at=st.integers(0, 170))
def test_a_damaged_file_is_reported_or_read(tmp_path: Path, damage: bytes, at: int) -> None:
    make(tmp_path, {"0": [CAR, DONTCARE], "1": [CAR]})
    file = tmp_path / "training/label_2/0.txt"
    content = file.read_bytes()
    file.write_bytes(content[:at] + damage + content[at:])
    data, findings = read_dataset(tmp_path)
    assert len(data) == 2
    assert all(f.path == str(file) and f.message for f in findings)


def test_the_kitti_sample_is_what_its_readme_says() -> None:
    data = open_dataset(real("kitti-sample"))
    assert [s.size for s in data] == [(370, 1224), (375, 1242), (375, 1242)]
    assert data.classes == ("Car", "Cyclist", "Misc", "Pedestrian", "Truck")
    assert data.class_counts().tolist() == [2, 1, 1, 1, 1]
    assert [int(s.ignore.sum()) for s in data] == [0, 4, 0]
    middle = data[1]
    assert middle.labels.tolist() == [4, 0, 1, -1, -1, -1, -1]
    assert middle.occluded.tolist() == [0, 0, 3, 0, 0, 0, 0]
    assert middle.boxes[1].tolist() == pytest.approx([387.63, 181.54, 423.81, 203.12])
