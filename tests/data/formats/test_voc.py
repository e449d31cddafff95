from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voc_files import bccd, devkit, picture, text, xml

from frcnn.config import DataConfig
from frcnn.data.findings import Finding
from frcnn.data.formats.vocxml import from_one_based, parse
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError, Dataset

ONE = [("cat", 1, 1, 10, 20)]


def codes(findings: list[Finding]) -> list[str]:
    return sorted(f.code for f in findings)


def layout(data: Dataset) -> dict[str, str]:
    return dict(zip(data.pictures.paths, data.pictures.annotations, strict=True))


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ([], []),
        ([1, 1, 10, 20], [0, 0, 10, 20]),
        ([45.7, 2.5, 60.2, 9], [44.7, 1.5, 60.2, 9]),
        ([0, 0.5, 10, 20], [0, 0, 10, 20]),  # a 0-based tool: never below 0
        ([-3, -0.5, 10, 20], [-3, -0.5, 10, 20]),  # kept, so that the check sees it
        ([504, 337, 504, 337], [504, 337, 504, 337]),  # no area, as written
        ([5, 9, 4, 20], [5, 8, 4, 20]),
        ([float("nan"), 1, 1e300, 5], [float("nan"), 0, float("inf"), 5]),
    ],
)
def test_one_based_corners_become_half_open(corners: list[float], expected: list[float]) -> None:
    found = from_one_based(np.asarray(corners, np.float64).reshape(-1, 4))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.asarray(expected, np.float32).reshape(-1, 4))


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", 1, "not well-formed"),
        (b"<annotation>\n<object>\n</annotation>", 3, "not well-formed XML (mismatched tag)"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]>\n<annotation>&x;</annotation>', 1, "entities"),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', 1, ""),
        (b"<annotation>\n<object><bndbox/></object></annotation>", 2, "object without <name>"),
        (
            b"<annotation>\n\n<object><name>a</name></object></annotation>",
            3,
            "without <xmin>, <ymin>, <xmax>, <ymax>",
        ),
    ],
)
def test_what_cannot_be_read_has_a_line_and_a_reason(content: bytes, line: int, reason: str) -> None:
    problems = parse(content).problems
    assert len(problems) == 1 and problems[0].line == line and reason in problems[0].reason


def test_a_number_that_is_none_is_quoted() -> None:
    found = parse(xml("a.jpg", [("cat", 1, 1, 9, 9), ("dog", 2, 2, "12,5", 9)]).encode())  # type: ignore[list-item]
    assert found.names == ("cat",)
    assert [p.reason for p in found.problems] == ["<xmax> of object 'dog' is '12,5', not a number"]
    assert found.problems[0].line == 11


def test_only_what_is_needed_is_needed() -> None:
    found = parse(
        b"\xef\xbb\xbf<annotation><object><name> Gr\xc3\xbcn \n</name><difficult>Unspecified</difficult>"
        b"<bndbox><ymax> 4e0 </ymax><xmax>3</xmax><ymin>2</ymin><xmin>1</xmin></bndbox>"
        b"<part><name>head</name><bndbox><xmin>7</xmin><ymin>7</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></part>"
        b"</object></annotation>"
    )
    assert (found.names, found.filename, found.size, found.problems) == (("Grün",), "", (0, 0), ())
    assert found.corners.tolist() == [[1, 2, 3, 4]]
    assert not found.difficult.any()


@pytest.mark.parametrize(
    ("value", "flag"), [("", False), ("0", False), ("1", True), ("true", True), ("2", True)]
)
def test_difficult(value: str, flag: bool) -> None:
    content = xml("a.jpg", ONE).replace("<difficult>0", f"<difficult>{value}")
    assert parse(content.encode()).difficult.tolist() == [flag]


@pytest.mark.parametrize(("value", "share"), [("", 0), ("0", 0), ("1", 1), ("Unspecified", 0)])
def test_truncated(tmp_path: Path, value: str, share: float) -> None:
    devkit(tmp_path, {"a": ONE})
    file = tmp_path / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("<difficult>", f"<truncated>{value}</truncated><difficult>"))
    sample = open_dataset(tmp_path)[0]
    assert (sample.truncated.tolist(), sample.truncated.dtype) == ([share], np.float32)
    assert not sample.occluded.any() and not sample.crowd.any()


@pytest.mark.parametrize(("value", "degree"), [("", 0), ("0", 0), ("1", 1)])
def test_occluded(tmp_path: Path, value: str, degree: int) -> None:
    devkit(tmp_path, {"a": ONE})
    file = tmp_path / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("<difficult>", f"<occluded>{value}</occluded><difficult>"))
    assert open_dataset(tmp_path)[0].occluded.tolist() == [degree]


def test_utf16_is_read() -> None:
    content = '<?xml version="1.0" encoding="utf-16"?>' + xml("a.jpg", ONE)
    assert parse(content.encode("utf-16")).names == ("cat",)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_reader_never_fails_on_damaged_files(data: st.DataObject) -> None:
    content = bytearray(xml("a.jpg", [("cat", 1, 1, 10, 20), ("dog", 3, 4, 30, 40)]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        stop = at + data.draw(st.integers(0, 40))
        content[at:stop] = data.draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"<", b"</object>", b"&", b"nan"]))
        )
        content = content or bytearray(b" ")
    found = parse(bytes(content))
    assert len(found.names) == len(found.corners) == len(found.lines) == len(found.difficult)
    assert all(p.reason and p.line >= 0 for p in found.problems)
    assert from_one_based(found.corners).shape == (len(found.names), 4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.binary(max_size=30), at=st.integers(0, 400))
def test_a_damaged_file_is_reported_or_read(tmp_path: Path, damage: bytes, at: int) -> None:
    devkit(tmp_path, {"a": ONE, "b": ONE})
    file = tmp_path / "Annotations" / "b.xml"
    content = file.read_bytes()
    file.write_bytes(content[:at] + damage + content[at:])
    data, findings = read_dataset(tmp_path)
    assert len(data) == 2
    assert all(f.path in (str(file), str(tmp_path / "JPEGImages" / "b.jpg")) and f.message for f in findings)


def test_devkit(tmp_path: Path) -> None:
    splits = {"train": ["a", "b"], "val": ["c.jpg"], "cat_train": ["a  1", "b -1"], "test": []}
    devkit(tmp_path, {"a": ONE, "b": [("dog", 3, 3, 9, 9)] * 2, "c": []}, splits)
    picture(tmp_path / "SegmentationClass" / "a.png")
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog")
    assert {k: v.tolist() for k, v in data.splits.items()} == {"train": [0, 1], "val": [2], "test": []}
    assert [len(s.boxes) for s in data] == [1, 2, 0]
    assert data[0].boxes.tolist() == [[0, 0, 10, 20]] and data[0].size == (60, 80)
    assert data.objects.lines.tolist() == [6, 6, 11]
    assert data.pictures.ids.tolist() == [1, 2, 3]
    assert open_dataset(tmp_path, "val").pictures.ids.tolist() == [3]
    assert open_dataset(tmp_path, "val").classes == ("cat", "dog")


def test_devkit_one_folder_down(tmp_path: Path) -> None:
    devkit(tmp_path / "VOC2007", {"a": ONE}, {"train": ["a"]})
    assert open_dataset(tmp_path).root == tmp_path / "VOC2007"
    devkit(tmp_path / "VOC2012", {"a": ONE})
    with pytest.raises(DataError, match=r"holds 2 data sets \(VOC2007, VOC2012\)"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("pictures", "annotations"),
    [
        ("", ""),
        ("images/", "annotations/"),
        ("images/", "labels/"),
        ("Bilder/", ""),
        ("d/JPEGImages/", "d/xml/"),
    ],
)
def test_flat_folders(tmp_path: Path, pictures: str, annotations: str) -> None:
    for name in ("a.v1.JPG", "b.png"):
        picture(tmp_path / f"{pictures}{name}")
    text(tmp_path / f"{annotations}a.v1.xml", xml("wrong.jpg", ONE))
    text(tmp_path / f"{annotations}._a.v1.xml", "left by another system")
    data = open_dataset(tmp_path)
    assert layout(data) == {f"{pictures}a.v1.JPG": f"{annotations}a.v1.xml", f"{pictures}b.png": ""}
    assert data.splits == {} and data.background().tolist() == [False, True]


def test_folders_called_train_and_valid_are_splits(tmp_path: Path) -> None:
    for folder in ("train", "valid"):
        picture(tmp_path / "images" / folder / "1.jpg")
        text(tmp_path / "annotations" / folder / "1.xml", xml("1.jpg", [(folder, 1, 1, 5, 5)]))
    data = open_dataset(tmp_path)
    assert {k: v.tolist() for k, v in data.splits.items()} == {"train": [0], "val": [1]}
    assert data.classes == ("train", "valid")
    assert layout(data)["images/valid/1.jpg"] == "annotations/valid/1.xml"


def test_the_stated_file_name_helps_where_names_differ(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    picture(tmp_path / "x.jpg")
    picture(tmp_path / "real.jpg")
    text(tmp_path / "x.xml", xml("x.png", ONE))
    text(tmp_path / "other.xml", xml("C:\\data\\real.jpeg", ONE))
    data = open_dataset(tmp_path)
    assert layout(data) == {"real.jpg": "other.xml", "x.jpg": "", "x.png": "x.xml"}


def test_path_and_folder_mean_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "x.jpg")
    text(tmp_path / "b.xml", xml("", ONE))  # its <path> ends in x.jpg
    found = read_dataset(tmp_path)[1]
    assert (
        codes(found) == ["D12"] and found[0].path == str(tmp_path / "b.xml") and found[0].severity == "error"
    )


def test_everything_wrong_is_found_at_once(tmp_path: Path) -> None:
    devkit(tmp_path, {name: ONE for name in "abcdefg"}, {"train": ["a", "b", "gone"], "val": ["c", "gone"]})
    text(tmp_path / "Annotations" / "b.xml", "<annotation>\n<object>")
    text(tmp_path / "Annotations" / "c.xml", "<html></html>")
    (tmp_path / "JPEGImages" / "d.jpg").unlink()
    (tmp_path / "JPEGImages" / "e.jpg").write_bytes(b"no")
    (tmp_path / "Annotations" / "f.xml").unlink()
    text(tmp_path / "Annotations" / "g.xml", xml("g.jpg", [("cat", "x", 1, 2, 3), ("", 1, 1, 2, 2)]))  # type: ignore[list-item]
    data, found = read_dataset(tmp_path)
    where = {(f.code, f.severity, Path(f.path).name, f.line) for f in found}
    assert where == {
        ("D16", "error", "b.xml", 2),
        ("D16", "error", "c.xml", 1),
        ("D12", "warn", "d.xml", 0),
        ("D13", "error", "e.jpg", 0),
        ("D16", "error", "g.xml", 6),
        ("D16", "error", "g.xml", 11),
        ("D12", "error", "train.txt", 3),
    }
    assert all(f.action for f in found)
    assert len(data) == 6
    with pytest.raises(DataError, match=r"6 errors in the data") as caught:
        open_dataset(tmp_path)
    assert "b.xml:2: not well-formed XML (no element found)" in str(caught.value)
    text(tmp_path / "Annotations" / "c.xml", xml("c.jpg", ONE))
    with pytest.raises(DataError, match=r'^D12 .*train.txt:3: lists "gone"'):
        open_dataset(tmp_path, "val")  # of all errors only the missing picture concerns this split


def test_two_annotations_of_a_picture_and_two_pictures_of_an_annotation(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    picture(tmp_path / "one" / "b.jpg")
    picture(tmp_path / "two" / "b.jpg")
    for name in ("first/a.xml", "second/a.xml", "first/b.xml"):
        text(tmp_path / name, xml(Path(name).stem + ".jpg", ONE))
    found = read_dataset(tmp_path)[1]
    assert codes(found) == ["D09", "D12"]
    assert {f.message for f in found} == {
        "annotates images/a.jpg, as first/a.xml does",
        "may belong to 2 pictures: one/b.jpg, two/b.jpg",
    }


@pytest.mark.parametrize(
    ("policy", "boxes", "ignored"), [("ignore", 2, 1), ("object", 2, 0), ("background", 1, 0)]
)
def test_difficult_follows_the_policy(tmp_path: Path, policy: str, boxes: int, ignored: int) -> None:
    devkit(tmp_path, {"a": [*ONE, ("cat", 20, 20, 30, 30)]})
    file = tmp_path / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1", 1))
    data, found = read_dataset(tmp_path, config=DataConfig.model_validate({"difficult": policy}))
    assert (len(data[0].boxes), int(data[0].ignore.sum())) == (boxes, ignored)
    assert [(f.code, f.severity, f.line) for f in found] == [("D20", "note", 6)]


def test_class_names_are_stripped_and_keep_their_case(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [(" Cat ", 1, 1, 5, 5), ("cat", 1, 1, 6, 6), ("bird nest", 2, 2, 8, 8)]})
    assert open_dataset(tmp_path).classes == ("Cat", "bird nest", "cat")


def test_bccd_is_what_its_readme_says() -> None:
    data = open_dataset(bccd())
    assert data.classes == ("Platelets", "RBC", "WBC")
    counts = {
        name: (len(data.subset(name)), *data.subset(name).class_counts().tolist()) for name in data.splits
    }
    assert counts == {
        "train": (205, 209, 2382, 214),
        "val": (87, 83, 968, 87),
        "trainval": (292, 292, 3350, 301),
        "test": (72, 69, 805, 71),
    }
    assert (len(data), data.class_counts().tolist()) == (364, [361, 4155, 372])
    assert set(map(tuple, data.pictures.sizes.tolist())) == {(480, 640)}
    assert data.objects.boxes.min() == 0 and data.objects.boxes[:, 2].max() == 640
    assert data[0].boxes[0].tolist() == [259, 176, 491, 376]
    assert int(data.objects.truncated.sum()) == 1131
    per_box = data.bytes_used() / len(data.objects.boxes)
    assert per_box < 100, f"{per_box:.0f} bytes a box"
