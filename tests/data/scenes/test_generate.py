"""The generated data set: tight boxes, the same bytes every time, nothing of others overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from frcnn.data.open import open_dataset
from frcnn.data.scenes.generate import SPLITS, Scene, make_scene, write_scenes
from frcnn.data.scenes.shapes import CLASSES, Piece, distance, footprint, paint

SMALL = {"train": 4, "val": 1, "test": 2}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(0, i) for i in range(80)]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_a_shape_outside_the_picture_covers_nothing() -> None:
    for x, y in [(-100.0, 20.0), (20.0, -100.0), (300.0, 20.0), (20.0, 300.0)]:
        rows, columns, mask, area = footprint(Piece(0, x, y, 20, 0, (1, 0, 0)), 50, 60)
        assert mask.sum() == 0
        assert area > 0
        assert mask.shape == (rows.stop - rows.start, columns.stop - columns.start)


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_shapes_reach_their_circle_and_no_farther(label: int) -> None:
    piece = Piece(label, 60.5, 60.5, 40, 0.3, (0.5, 0.5, 0.5))
    whole = slice(0, 121)
    inside = distance(piece, whole, whole) <= 0
    y, x = np.mgrid[0:121, 0:121] + 0.5
    reach = np.hypot(x - 60.5, y - 60.5)[inside].max()
    assert 37 < reach <= 40.5
    hole = inside[60, 60]
    assert hole == (CLASSES[label] != "ring")
    rows, columns, mask, area = footprint(piece, 121, 121)
    assert area == mask.sum() == inside.sum()
    assert inside[rows, columns].sum() == area


def test_distance_is_a_distance() -> None:
    """Its slope is 1 almost everywhere: bevels and shadows have the width they are meant to have."""
    for label in range(len(CLASSES)):
        field = distance(Piece(label, 60, 60, 40, 0.3, (1, 1, 1)), slice(0, 120), slice(0, 120))
        assert np.median(np.hypot(*np.gradient(field))) == pytest.approx(1, abs=0.01)
        for axis in (0, 1):
            assert np.abs(np.diff(field, axis=axis)).max() < 1.001


def test_paint_changes_only_its_window_and_covers_the_mask() -> None:
    canvas = np.full((100, 120, 3), 0.5, np.float32)
    piece = Piece(4, 50, 40, 25, 0.2, (0.9, 0.1, 0.1))
    rows, columns, mask, _ = footprint(piece, 100, 120)
    paint(canvas, piece, rows, columns)
    changed = np.abs(canvas - 0.5).max(2) > 1e-3
    assert changed[rows, columns].sum() == changed.sum(), "the shadow fits into the window"
    assert (canvas[rows, columns][mask][:, 0] > 0.5).mean() > 0.95
    assert (canvas[rows, columns][mask][:, 1] < 0.45).mean() > 0.95


def test_boxes_are_tight_around_what_is_seen(scenes: list[Scene]) -> None:
    checked = 0
    for scene in scenes:
        for i, item in enumerate(scene.objects):
            rows, columns = np.nonzero(scene.owner == i)
            assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert 0 < item.visible <= 1
            checked += 1
        assert scene.owner.max() < len(scene.objects)
        assert scene.image.size == scene.owner.shape[::-1]
    assert checked > 200


def test_the_picture_shows_the_objects_where_the_boxes_say(scenes: list[Scene]) -> None:
    """Pixels of an object stand out from its surroundings in the picture itself."""
    contrast = []
    for scene in scenes[:30]:
        pixels = np.asarray(scene.image, np.float32)
        for i, item in enumerate(scene.objects):
            if item.visible == 1:
                x1, y1, x2, y2 = item.box
                around = np.zeros_like(scene.owner, bool)
                around[max(y1 - 12, 0) : y2 + 12, max(x1 - 12, 0) : x2 + 12] = True
                ground = pixels[around & (scene.owner < 0)].mean(0)
                contrast.append(np.abs(pixels[scene.owner == i].mean(0) - ground).sum())
    assert np.mean(np.array(contrast) > 60) > 0.95


def test_the_series_has_everything_it_promises(scenes: list[Scene]) -> None:
    objects = [item for scene in scenes for item in scene.objects]
    assert {item.label for item in objects} == set(range(len(CLASSES)))
    assert sum(not scene.objects for scene in scenes) >= 2, "empty pictures"
    assert sum(item.difficult for item in objects) >= 1
    assert sum(item.difficult for item in objects) < 0.05 * len(objects)
    assert sum(item.truncated for item in objects) >= 5
    assert sum(item.visible < 0.95 for item in objects) >= 10, "overlaps"
    sides = np.array([[i.box[2] - i.box[0], i.box[3] - i.box[1]] for i in objects])
    assert sides.min() >= 7
    assert (sides.max(1) < 32).mean() > 0.2, "small objects"
    assert sides.max() > 90
    shapes = {scene.image.size for scene in scenes}
    assert len(shapes) > 40
    assert min(min(s) for s in shapes) >= 240
    assert max(max(s) for s in shapes) <= 448


def test_scenes_repeat_and_differ() -> None:
    first, again = make_scene(1, 5), make_scene(1, 5)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.objects == again.objects
    for other in (make_scene(2, 5), make_scene(1, 6)):
        assert other.image.tobytes() != first.image.tobytes()


def test_write_refuses_nothing_to_write(tmp_path: Path) -> None:
    for images in ({}, {"train": -1}):
        with pytest.raises(ValueError, match="at least one split"):
            write_scenes(tmp_path / "new", images)
    assert not any(tmp_path.iterdir())


def test_written_files_are_the_scenes_byte_for_byte(tmp_path: Path) -> None:
    a, b = write_scenes(tmp_path / "a", SMALL, seed=4), write_scenes(tmp_path / "deep" / "b", SMALL, seed=4)
    assert contents(a) == contents(b)
    assert len(contents(a)) == 2 * 7 + 3 + 1
    assert contents(write_scenes(tmp_path / "c", SMALL, seed=5)) != contents(a)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "c", "deep"], "nothing half-written remains"
    names = [(a / "ImageSets/Main" / f"{split}.txt").read_text().split() for split in SMALL]
    assert [len(n) for n in names] == [4, 1, 2]
    for i, name in enumerate([name for part in names for name in part]):
        scene = make_scene(4, i)
        with Image.open(a / "JPEGImages" / f"{name}.jpg") as image:
            difference = np.abs(np.asarray(image, float) - np.asarray(scene.image, float)).mean()
            assert difference < 4
        tree = ElementTree.parse(a / "Annotations" / f"{name}.xml")
        assert tree.findtext("filename") == f"{name}.jpg"
        found = []
        for node in tree.iter("object"):
            box = [int(node.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            found.append((node.findtext("name"), box[0] - 1, box[1] - 1, box[2], box[3]))
        assert found == [(CLASSES[item.label], *item.box) for item in scene.objects]


def test_the_reader_gets_the_boxes_back(tmp_path: Path) -> None:
    data = open_dataset(write_scenes(tmp_path / "scenes", SMALL, seed=4))
    assert sorted(data.classes) == sorted(CLASSES)
    assert {name: len(indices) for name, indices in data.splits.items()} == SMALL
    for sample in data:
        scene = make_scene(4, int(sample.path.stem.rsplit("_", 1)[1]))
        assert sample.size == scene.owner.shape
        assert sample.boxes.tolist() == [list(map(float, item.box)) for item in scene.objects]
        assert [data.classes[label] for label in sample.labels] == [CLASSES[i.label] for i in scene.objects]
        assert sample.ignore.tolist() == [item.difficult for item in scene.objects]


def test_an_own_folder_is_kept_or_replaced(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", {"train": 2}, seed=1)
    picture = folder / "JPEGImages" / "scene_00000.jpg"
    written = picture.stat().st_mtime_ns
    write_scenes(folder, {"train": 2}, seed=1)
    assert picture.stat().st_mtime_ns == written, "nothing to do"
    before = contents(folder)
    write_scenes(folder, {"train": 1}, seed=1)
    assert len(contents(folder)) == 4
    write_scenes(folder, {"train": 2}, seed=1)
    assert contents(folder) == before
    picture.unlink()
    write_scenes(folder, {"train": 2}, seed=1)
    assert contents(folder) == before, "an incomplete one is completed"


def test_a_folder_of_others_is_refused_untouched(tmp_path: Path) -> None:
    foreign = tmp_path / "mine"
    foreign.mkdir()
    write_scenes(foreign, {"train": 0})  # an empty folder is no loss
    own = tmp_path / "own"
    own.mkdir()
    (own / "notes.txt").write_text("keep")
    with pytest.raises(ValueError, match="is not a folder of generated scenes"):
        write_scenes(own, {"train": 1})
    (own / "scenes.json").write_text(json.dumps({"made_by": "me", "images": {}}))
    with pytest.raises(ValueError, match="not generated"):
        write_scenes(own, {"train": 1})
    file = tmp_path / "file"
    file.write_text("keep")
    with pytest.raises(ValueError, match="is not a folder"):
        write_scenes(file, {"train": 1})
    mixed = write_scenes(tmp_path / "mixed", {"train": 1})
    (mixed / "Annotations" / "my_work.xml").write_text("keep")
    with pytest.raises(ValueError, match=r"my_work\.xml"):
        write_scenes(mixed, {"train": 2})
    assert (mixed / "Annotations" / "my_work.xml").read_text() == "keep"
    assert (own / "notes.txt").read_text() == file.read_text() == "keep"


def test_default_splits_are_sensible() -> None:
    assert list(SPLITS) == ["train", "val", "test"]
    assert sum(SPLITS.values()) < 500
