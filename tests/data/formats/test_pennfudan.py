from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voc_files import picture, real, text

from frcnn.config import DataConfig
from frcnn.data.check import load_checked
from frcnn.data.formats.pennfudan import parse
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError

Box = tuple[str, int, int, int, int]
WALK, STAND = "PASpersonWalking", "PASpersonStanding"


def record(name: str, boxes: Sequence[Box] = (), size: tuple[int, int] = (60, 80)) -> str:
    """A record in the form of the data set; size is (height, width)."""
    labels = "".join(f'"{label}" ' for label, *_ in boxes)
    head = (
        "# Compatible with PASCAL Annotation Version 1.00\n"
        f'Image filename : "PennFudanPed/PNGImages/{name}.png"\n'
        f"Image size (X x Y x C) : {size[1]} x {size[0]} x 3\n"
        'Database : "The Penn-Fudan-Pedestrian Database"\n'
        f"Objects with ground truth : {len(boxes)} {{ {labels}}}\n"
        "# Top left pixel co-ordinates : (1, 1)\n"
    )
    return head + "".join(
        f'# Details for pedestrian {k} ("{label}")\n'
        f'Original label for object {k} "{label}" : "PennFudanPed"\n'
        f'Bounding box for object {k} "{label}" (Xmin, Ymin) - (Xmax, Ymax) : ({x1}, {y1}) - ({x2}, {y2})\n'
        f'Pixel mask for object {k} "{label}" : "PennFudanPed/PedMasks/{name}_mask.png"\n\n'
        for k, (label, x1, y1, x2, y2) in enumerate(boxes, 1)
    )


def make(root: Path, pictures: dict[str, Sequence[Box]]) -> Path:
    for number, (name, boxes) in enumerate(pictures.items()):
        picture(root / "PNGImages" / f"{name}.png", colour=10 * number)
        picture(root / "PedMasks" / f"{name}_mask.png")
        text(root / "Annotation" / f"{name}.txt", record(name, boxes))
    text(root / "readme.txt", "about")
    return root


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("", 1, 'is empty: no line "Objects with ground truth : N"'),
        ("\n \n", 1, "is empty"),
        ("hello\n", 1, "is not a Penn-Fudan record"),
        (record("a").replace("truth : 0", "truth : 2"), 5, "states 2 objects and has 0 bounding boxes"),
        (
            record("a", [(WALK, 1, 1, 5, 5)]).replace("Objects", "#"),
            1,
            "does not state its number of objects",
        ),
        (record("a", [(WALK, 1, 1, 5, 5)]).replace("(1, 1) - ", "(1, 1 - "), 9, "is not a bounding box: 'Bo"),
        (
            record("a", [(WALK, 1, 1, 5, 5)]).replace(": (1, 1)", ": (one, 1)"),
            9,
            f"Xmin of object '{WALK}' is 'one', not a number",
        ),
        (record("a", [("", 1, 1, 5, 5)]), 9, "object without a class"),
        ("\0\xff" * 50, 1, "is not a Penn-Fudan record"),
    ],
)
def test_what_cannot_be_read_has_a_line_and_a_reason(content: str, line: int, reason: str) -> None:
    problems = parse(content.split("\n")).problems
    assert [p.line for p in problems] == [line]
    assert reason in problems[0].reason


def test_a_record() -> None:
    nothing = parse(record("a").split("\n"))
    assert (nothing.names, nothing.corners.shape, nothing.problems) == ((), (0, 4), ())
    found = parse(record("a", [(WALK, 1, 2, 30, 40), (STAND, 5, 5, 9, 9)]).split("\n"))
    assert found.filename == "PennFudanPed/PNGImages/a.png"
    assert (found.size, found.names, found.problems) == ((60, 80), (WALK, STAND), ())
    assert found.corners.tolist() == [[1, 2, 30, 40], [5, 5, 9, 9]]
    assert found.lines.tolist() == [9, 14]


def test_boxes_become_half_open_and_masks_are_no_pictures(tmp_path: Path) -> None:
    make(tmp_path, {"a": [(WALK, 1, 2, 30, 40), (STAND, 80, 60, 80, 60)], "b": []})
    data = open_dataset(tmp_path)
    assert list(data.pictures.paths) == ["PNGImages/a.png", "PNGImages/b.png"]
    assert data.classes == (STAND, WALK) and data.splits == {}
    assert data[0].boxes.tolist() == [[0, 1, 30, 40], [80, 60, 80, 60]]  # no area as written: kept so
    assert data[0].labels.tolist() == [1, 0]
    assert data[1].boxes.shape == (0, 4)
    assert not data.objects.ignore.any()


def test_one_folder_down_and_latin_1(tmp_path: Path) -> None:
    make(tmp_path / "PennFudanPed", {"a": [(WALK, 1, 2, 30, 40)]})
    file = tmp_path / "PennFudanPed" / "Annotation" / "a.txt"
    file.write_bytes(file.read_bytes().replace(b"Database", b"Datab\xe4se").replace(b"\n", b"\r\n"))
    data = open_dataset(tmp_path)
    assert data.root == tmp_path / "PennFudanPed"
    assert data.objects.lines.tolist() == [9]


def test_the_stated_name_helps_where_names_differ(tmp_path: Path) -> None:
    make(tmp_path, {"a": [(WALK, 1, 2, 30, 40)]})
    (tmp_path / "Annotation" / "a.txt").rename(tmp_path / "Annotation" / "other.txt")
    assert list(open_dataset(tmp_path).pictures.annotations) == ["Annotation/other.txt"]


def test_everything_wrong_is_found_at_once(tmp_path: Path) -> None:
    make(tmp_path, {name: [(WALK, 1, 1, 5, 5)] for name in "abc"})
    (tmp_path / "Annotation" / "a.txt").write_bytes(b"")
    bad = record("b", [(WALK, 1, 1, 5, 5), (WALK, 2, 2, 6, 6)]).replace(": (2,", ": (x,")
    (tmp_path / "Annotation" / "b.txt").write_text(bad)
    text(tmp_path / "Annotation" / "gone.txt", record("gone"))
    data, found = read_dataset(tmp_path)
    assert {(f.code, f.severity, Path(f.path).name, f.line) for f in found} == {
        ("D16", "error", "a.txt", 1),
        ("D16", "error", "b.txt", 14),
        ("D12", "error", "gone.txt", 0),
    }
    assert all(f.action for f in found)
    assert [len(s.boxes) for s in data] == [0, 1, 1]
    with pytest.raises(DataError, match=r"b\.txt:14: Xmin of object"):
        open_dataset(tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_reader_never_fails_on_damaged_records(data: st.DataObject) -> None:
    content = list(record("a", [(WALK, 1, 1, 10, 20), (STAND, 3, 4, 30, 40)]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        stop = at + data.draw(st.integers(0, 40))
        content[at:stop] = data.draw(
            st.one_of(st.text(max_size=8), st.sampled_from(['"', "(", "9" * 5000, "nan", "\n"]))
        )
        content = content or [" "]
    found = parse("".join(content).split("\n"))
    assert len(found.names) == len(found.corners) == len(found.lines)
    assert all(p.reason and p.line >= 1 for p in found.problems)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.binary(max_size=30), at=st.integers(0, 700))
def test_a_damaged_record_is_reported_or_read(tmp_path: Path, damage: bytes, at: int) -> None:
    make(tmp_path, {"a": [(WALK, 1, 1, 5, 5)], "b": [(WALK, 1, 1, 5, 5)]})
    file = tmp_path / "Annotation" / "b.txt"
    content = file.read_bytes()
    file.write_bytes(content[:at] + damage + content[at:])
    data, findings = read_dataset(tmp_path)
    assert len(data) == 2
    assert all(f.path == str(file) and f.message for f in findings)


def test_penn_fudan_is_what_its_readme_says() -> None:
    data = open_dataset(real("pennfudan"))
    assert (len(data), len(data.objects.boxes), data.splits) == (170, 423, {})
    assert dict(zip(data.classes, data.class_counts().tolist(), strict=True)) == {WALK: 372, STAND: 51}
    assert not data.background().any() and not data.objects.ignore.any()
    names = {Path(p).stem: i for i, p in enumerate(data.pictures.paths)}
    assert data[names["PennPed00027"]].boxes[0].tolist() == [125, 92, 218, 363]
    assert (data.objects.boxes[:, 2:] <= data.pictures.sizes[data.objects.owners()][:, ::-1]).all()


def test_penn_fudan_as_one_class() -> None:
    folder = real("pennfudan")
    data, report = load_checked(folder, config=None)
    assert report.findings == ()
    merged = open_dataset(folder, config=DataConfig(rename={"*": "person"}))
    assert (merged.classes, merged.class_counts().tolist()) == (("person",), [423])
    assert merged.written == (STAND, WALK)
    assert np.array_equal(merged.objects.boxes, data.objects.boxes)
