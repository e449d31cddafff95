"""Damaged files of every format: what is wrong is reported with its file, and nothing crashes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_set import FLAGGED, WRITERS
from voc_files import picture, real, text

from frcnn.config import Config
from frcnn.data.check import load_checked
from frcnn.data.findings import Finding
from frcnn.data.sample import DataError

FILES = {
    "voc": ["Annotations/a.xml", "Annotations/b.xml", "ImageSets/Main/train.txt"],
    "coco": ["annotations/instances_train2017.json", "annotations/instances_val2017.json"],
    "yolo": ["data.yaml", "labels/train/a.txt", "labels/train/b.txt"],
    "kitti": ["training/label_2/a.txt", "training/label_2/b.txt", "ImageSets/train.txt"],
    "labelme": ["train/a.json", "train/b.json"],
    "csv": ["boxes.csv"],
}
ODD = [
    b"",
    b"\0",
    b"nan",
    b"-1e999",
    b"9" * 400,
    b"\n",
    b"\r\n",
    b'"',
    b"<",
    b"[",
    b"{",
    b"}",
    b",",
    b"&a",
    b"\xff\xfe",
]
ODD += [b"../../etc/passwd", b"/", b"null", b" "]


BROKEN = {
    "voc": ("Annotations/b.xml", "<xmin>6</xmin>", "<xmin>x</xmin>", 4),
    "coco": ("annotations/instances_train2017.json", "[5, 5, 20, 20]", "[5, 5, 20]", -3),
    "yolo": ("labels/train/b.txt", "3 0.1875", "3 x0.1875", 3),
    "kitti": ("training/label_2/b.txt", "Car 0.0 1", "Car x 1", 3),
    "labelme": ("train/b.json", '"label": "Car"', '"label": 5', 0),
    "csv": ("boxes.csv", ",5,5,25,25,", ",5,x,25,25,", 7),
}
"""The car of picture b in every format: file, text, the text that breaks it, line (LabelMe's is counted)."""
LINE_END = re.compile(rb"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\xa8\xa9]")
"""At least where a reader may see one; the last three as the end of what UTF-8 has for them."""


def lies_in(finding: Finding, root: Path) -> bool:
    """Whether a finding's file lies in the set, and its line or entry in that file."""
    path = Path(finding.path)
    if not finding.path:
        return finding.line == 0
    if not finding.line:
        return path.is_relative_to(root)
    content = path.read_bytes()
    last = -content.count(b"{") if finding.line < 0 else len(LINE_END.split(content))
    return path.is_relative_to(root) and abs(finding.line) <= abs(last)


def read_damaged(root: Path) -> None:
    """Read and check; whatever is found has a place in the set, or is about all of it, and a reason."""
    try:
        _, report = load_checked(root, config=Config(), clean=False)
    except DataError as error:
        assert str(root) in str(error)
        return
    assert [f for f in report.findings if not f.message or not lies_in(f, root)] == []
    assert all(f.path for f in report.with_code("D16"))


@pytest.mark.parametrize("kind", WRITERS)
def test_the_place_of_the_damage_is_named(tmp_path: Path, kind: str) -> None:
    file, old, new, line = BROKEN[kind]
    WRITERS[kind](tmp_path, FLAGGED)
    path = tmp_path / file
    content = path.read_text()
    if kind == "labelme":
        content = json.dumps(json.loads(content), indent=1)
        line = content[: content.index(old)].count("\n")  # of the bracket before it
    assert content.count(old) == 1 and line
    path.write_text(content.replace(old, new))
    report = load_checked(tmp_path, config=Config(), clean=False)[1]
    assert [(f.code, f.path, f.line) for f in report.errors] == [("D16", str(path), line)]
    assert lies_in(report.errors[0], tmp_path)
    assert not lies_in(replace(report.errors[0], line=10**6), tmp_path)


def damage(data: st.DataObject, file: Path) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        stop = at + data.draw(st.integers(0, 30))
        content[at:stop] = data.draw(st.binary(max_size=6) | st.sampled_from(ODD))
    file.write_bytes(content)


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_reported(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    root = tmp_path / "set"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    WRITERS[kind](root, FLAGGED)
    damage(data, root / data.draw(st.sampled_from(FILES[kind])))
    read_damaged(root)


def _bccd(root: Path) -> list[Path]:
    source = real("bccd")
    for name in ("BloodImage_00000", "BloodImage_00338"):
        picture(root / f"JPEGImages/{name}.jpg", (480, 640))
        text(root / f"Annotations/{name}.xml", (source / f"Annotations/{name}.xml").read_text())
    return sorted((root / "Annotations").iterdir())


def _kitti(root: Path) -> list[Path]:
    source = real("kitti-sample")
    for name in ("000000", "000001"):
        picture(root / f"training/image_2/{name}.png", (375, 1242))
        text(root / f"training/label_2/{name}.txt", (source / f"training/label_2/{name}.txt").read_text())
    return sorted((root / "training/label_2").iterdir())


def _pennfudan(root: Path) -> list[Path]:
    source = real("pennfudan")
    for name in ("FudanPed00001", "PennPed00027"):
        picture(root / f"PNGImages/{name}.png", (536, 559))
        text(root / f"Annotation/{name}.txt", (source / f"Annotation/{name}.txt").read_text())
    return sorted((root / "Annotation").iterdir())


@pytest.mark.parametrize("copy", [_bccd, _kitti, _pennfudan])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_real_files_are_reported(tmp_path: Path, copy: object, data: st.DataObject) -> None:
    root = tmp_path / "set"
    shutil.rmtree(root, ignore_errors=True)
    assert callable(copy)
    damage(data, data.draw(st.sampled_from(copy(root))))
    read_damaged(root)
