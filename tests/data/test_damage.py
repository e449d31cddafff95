"""Damaged files of every format: what is wrong is reported with its file, and nothing crashes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_set import FLAGGED, WRITERS
from voc_files import picture, real, text

from frcnn.config import Config
from frcnn.data.check import load_checked
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


def read_damaged(root: Path) -> None:
    """Read and check; whatever is found has a file or the folder, and a reason."""
    try:
        _, report = load_checked(root, config=Config(), clean=False)
    except DataError as error:
        assert str(root) in str(error)
        return
    assert all(f.message and f.path.startswith(str(root)) for f in report.findings if f.code == "D16")
    assert all(f.message and f.line > -10_000 for f in report.findings)


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
