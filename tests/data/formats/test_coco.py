from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voc_files import picture, text

from frcnn.config import Config, DataConfig
from frcnn.data.check import check_dataset, load_checked
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError

CATEGORIES = [{"id": 90, "name": "dog", "supercategory": "pet"}, {"id": 3, "name": "cat"}]
BOX = [10.5, 5, 20, 30.25]


def image(key: int | str, name: str) -> dict[str, Any]:
    return {"id": key, "file_name": name, "height": 60, "width": 80}


def annotation(key: int, picture_id: int | str, category: int = 90, **more: Any) -> dict[str, Any]:
    return {"id": key, "image_id": picture_id, "category_id": category, "bbox": BOX, **more}


def content(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], categories: Any = CATEGORIES
) -> dict[str, Any]:
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write(path: Path, value: object) -> Path:
    return text(path, json.dumps(value))


def one(root: Path, annotations: list[dict[str, Any]], **keys: Any) -> Path:
    """A folder with one picture, id 7, and one file."""
    picture(root / "images" / "a.jpg")
    write(root / "annotations.json", content([image(7, "a.jpg")], annotations) | keys)
    return root


def test_without_annotations_pictures_are_background(tmp_path: Path) -> None:
    one(tmp_path, [])
    data = open_dataset(tmp_path)
    assert (len(data), data.classes, data.splits) == (1, (), {})
    assert data[0].boxes.shape == (0, 4) and not read_dataset(tmp_path)[1]


def test_the_layout_of_coco(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            picture(tmp_path / f"{split}2017" / f"{name}.jpg")
        images = [image(k, f"{name}.jpg") for k, name in enumerate(reversed(names))]
        boxes = [annotation(1, 0, 3), annotation(2, 0, 90, bbox=[0, 0, 5, 5])]
        write(tmp_path / f"annotations/instances_{split}2017.json", content(images, boxes))
    picture(tmp_path / "test2017" / "d.jpg")
    write(tmp_path / "annotations/captions_train2017.json", {"images": [], "annotations": []})
    data, found = read_dataset(tmp_path)
    assert list(data.pictures.paths) == ["train2017/a.jpg", "train2017/b.jpg", "val2017/c.jpg"]
    assert {k: v.tolist() for k, v in data.splits.items()} == {"train": [0, 1], "val": [2]}
    assert data.classes == ("cat", "dog")
    assert [len(s.boxes) for s in data] == [0, 2, 2]
    assert data[1].boxes.tolist() == [[10.5, 5, 30.5, 35.25], [0, 0, 5, 5]]
    assert data[1].labels.tolist() == [0, 1]
    assert {(f.code, f.severity, f.message) for f in found} == {
        ("D12", "note", "1 of 4 pictures are in no annotation file"),
        ("D12", "note", "1 other JSON files: annotations/captions_train2017.json"),
    }
    assert open_dataset(tmp_path, "val").pictures.ids.tolist() == [3]


@pytest.mark.parametrize(
    ("file", "name", "where", "split"),
    [
        ("annotations.json", "a.jpg", "images/a.jpg", ""),
        ("result.json", "a.jpg", "a.jpg", ""),
        ("result.json", "sub/a.jpg", "images/sub/a.jpg", ""),
        ("result.json", "C:\\data\\a.jpg", "images/a.jpg", ""),
        ("train/_annotations.coco.json", "a.jpg", "train/a.jpg", "train"),
        ("valid/_annotations.coco.json", "a.jpg", "valid/a.jpg", "val"),
        ("annotations/instances_default.json", "a.jpg", "images/default/a.jpg", ""),
        ("annotations/instances_val2014.json", "a.jpg", "val2014/a.jpg", "val"),
        ("annotations/my_train.json", "./a.jpg", "images/a.jpg", "train"),
    ],
)
def test_layouts(tmp_path: Path, file: str, name: str, where: str, split: str) -> None:
    picture(tmp_path / where)
    write(tmp_path / file, content([image(1, name)], [annotation(1, 1)]))
    data = open_dataset(tmp_path)
    assert (list(data.pictures.paths), list(data.splits)) == ([where], [split] if split else [])
    assert len(data[0].boxes) == 1


def test_equal_names_in_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / f"{split}2017" / "1.jpg")
        write(
            tmp_path / f"annotations/instances_{split}2017.json",
            content([image(1, "1.jpg")], [annotation(1, 1)] if split == "val" else []),
        )
    data = open_dataset(tmp_path)
    assert {k: v.tolist() for k, v in data.splits.items()} == {"train": [0], "val": [1]}
    assert [len(s.boxes) for s in data] == [0, 1]


def test_other_splits_keep_their_names(tmp_path: Path) -> None:
    for name in ("train2014", "minival2014"):
        picture(tmp_path / name / f"{name}.jpg")
        file = tmp_path / "annotations" / f"instances_{name}.json"
        write(file, content([image(1, f"{name}.jpg")], [annotation(1, 1)]))
    assert sorted(open_dataset(tmp_path).splits) == ["minival", "train"]


@pytest.mark.parametrize(
    ("policy", "boxes", "ignored", "crowd"),
    [
        ("ignore", 3, [False, True, True], [False, True, False]),
        ("object", 3, [False, False, False], [False, False, False]),
        ("background", 1, [False], [False]),
    ],
)
def test_crowds_follow_the_policy(
    tmp_path: Path, policy: str, boxes: int, ignored: list[bool], crowd: list[bool]
) -> None:
    one(tmp_path, [annotation(1, 7), annotation(2, 7, 3, iscrowd=1), annotation(3, 7, 3, ignore=True)])
    data, found = read_dataset(tmp_path, config=DataConfig.model_validate({"crowd": policy}))
    assert len(data[0].boxes) == boxes
    assert (data[0].ignore.tolist(), data[0].crowd.tolist()) == (ignored, crowd)
    assert data[0].labels.tolist() == [1, 0, 0][:boxes]  # a crowd keeps its class
    assert [(f.code, f.line, f.kind) for f in found] == [
        ("D20", -2, "crowd boxes"),
        ("D20", -3, "crowd boxes"),
    ]
    assert found[0].place == f"{tmp_path / 'annotations.json'}: annotations[1]"


@pytest.mark.parametrize(
    "segmentation",
    [
        {"counts": [0, 5, 4795], "size": [60, 80]},  # RLE
        {"counts": "PQ1", "size": [60, 80]},  # compressed RLE
        {"counts": "PQ1", "size": [2**31, 2**31]},
        [[10.5, 5, 30.5, 5, 30.5, 35.25]],
        [],
        None,
    ],
)
@pytest.mark.parametrize("crowd", [0, 1])
def test_crowds_with_any_segmentation(tmp_path: Path, segmentation: object, crowd: int) -> None:
    one(tmp_path, [annotation(1, 7, segmentation=segmentation, iscrowd=crowd), annotation(2, 7)])
    sample = open_dataset(tmp_path)[0]
    assert sample.boxes.tolist() == [[10.5, 5, 30.5, 35.25]] * 2
    assert sample.crowd.tolist() == sample.ignore.tolist() == [bool(crowd), False]


@pytest.mark.parametrize("ids", [(0, 1), (1, 2), (7, 90), (90, 7), ("a", "b")])
def test_any_ids(tmp_path: Path, ids: tuple[int | str, int | str]) -> None:
    categories = [{"id": ids[0], "name": "dog"}, {"id": ids[1], "name": "cat"}]
    one(tmp_path, [annotation(0, 7, ids[1]), annotation(5, 7, ids[0])], categories=categories)  # type: ignore[arg-type]
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog") and data[0].labels.tolist() == [0, 1]
    assert data.source_ids == {"dog": str(ids[0]), "cat": str(ids[1])}


@pytest.mark.parametrize(
    ("raw", "line", "reason"),
    [
        (b"", 1, "is empty"),
        (b"\xef\xbb\xbf \n", 1, "is empty"),
        (b'{"images": [],\n"annotations": [}', 2, "is not JSON (invalid character)"),
        (b'{"images":\n[{"id": 1', 2, "is not JSON (Input data was truncated)"),
        (b"[]", 1, "is not a COCO detection file: expected {...}, got list"),
        (b'{"images": [], "annotations": []}', 1, "is not a COCO detection file: has no categories"),
        (b'{"images": 3, "annotations": [], "categories": []}', 1, "images: expected list, got int"),
        (b'{"images": ' + b"[" * 100_000, 1, "is not JSON"),
        (b"\xff\xfe{", 1, "is not JSON"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, raw: bytes, line: int, reason: str) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "instances_train.json").write_bytes(raw)
    data, found = read_dataset(tmp_path)
    errors = [f for f in found if f.severity == "error"]
    assert len(data) == 0 and [f.code for f in errors] == ["D16"]
    assert reason in errors[0].message and errors[0].line == line
    assert errors[0].splits == ("train",)


@pytest.mark.parametrize(
    ("change", "code", "line", "message"),
    [
        ({"annotations": [3]}, "D16", -1, "expected {...}, got int"),
        ({"annotations": [annotation(1, 7), annotation(2, 8)]}, "D10", -2, "image_id 8 is not in images"),
        ({"annotations": [annotation(1, "7")]}, "D10", -1, "image_id '7' is not in images"),
        ({"annotations": [annotation(1, 7, 4)]}, "D16", -1, "category_id 4 is not in categories"),
        ({"annotations": [{"id": 1, "image_id": 7, "category_id": 3}]}, "D16", -1, "has no bbox"),
        ({"annotations": [annotation(1, 7, bbox=[1, 2, 3])]}, "D16", -1, "bbox: expected list of length 4"),
        (
            {"annotations": [annotation(1, 7, bbox=[1, 2, "3", 4])]},
            "D16",
            -1,
            "bbox[2]: expected float, got str",
        ),
        ({"annotations": [annotation(5, 7), annotation(5, 7)]}, "D09", -2, "has the id 5 of annotations[0]"),
        (
            {"images": [image(7, "a.jpg"), image(7, "b.jpg")]},
            "D09",
            0,
            "images[1]: has the id 7 of images[0]",
        ),
        ({"images": [image(7, "a.jpg"), {"id": 8}]}, "D16", 0, "images[1]: has no file_name"),
        (
            {"images": [image(7, "a.jpg"), image(8, "x.jpg")]},
            "D12",
            0,
            'images[1]: "x.jpg" is not a picture here',
        ),
        ({"images": [image(7, "x.jpg"), image(8, "y.jpg")]}, "D12", 0, "none of its 2 pictures is here"),
        ({"images": [image(7, "a.jpg"), image(8, "")]}, "D12", 0, 'images[1]: "" is not a picture here'),
        (
            {"images": [image(7, "a.jpg"), image(8, "a.jpg")]},
            "D09",
            0,
            "annotates 1 pictures that annotations",
        ),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "cow"}]}, "D09", 0, "categories[2]: has the id 3 of"),
        (
            {"categories": [*CATEGORIES, {"id": 4, "name": "cat"}]},
            "D16",
            0,
            'has the name "cat" of category 3',
        ),
        ({"categories": [*CATEGORIES, {"id": 4, "name": " "}]}, "D16", 0, "categories[2]: has an empty name"),
        ({"categories": [*CATEGORIES, {"id": 4, "name": "cow"}]}, "D08", 0, 'category "cow" has no box'),
    ],
)
def test_entries_that_cannot_be_used_are_named(
    tmp_path: Path, change: dict[str, Any], code: str, line: int, message: str
) -> None:
    one(tmp_path, **({"annotations": [annotation(1, 7, 3), annotation(2, 7, 90)]} | change))
    picture(tmp_path / "images" / "b.jpg")
    found = read_dataset(tmp_path)[1]
    assert any((f.code, f.line) == (code, line) and message in f.message for f in found), found
    assert all(f.path and f.action for f in found)


def test_a_category_with_boxes_in_another_file_is_a_class(tmp_path: Path) -> None:
    for split, category in (("train", 90), ("val", 3)):
        picture(tmp_path / f"{split}2017" / f"{split}.jpg")
        file = tmp_path / f"annotations/instances_{split}2017.json"
        write(file, content([image(1, f"{split}.jpg")], [annotation(1, 1, category)]))
    data, found = read_dataset(tmp_path)
    assert data.classes == ("cat", "dog") and not found
    write(
        tmp_path / "annotations/instances_val2017.json",
        content([image(1, "val.jpg")], [annotation(1, 1)], [*CATEGORIES, {"id": 5, "name": "cow"}]),
    )
    notes = [(f.message, Path(f.path).name) for f in read_dataset(tmp_path)[1]]
    assert notes == [
        ('category "cat" has no box', "instances_train2017.json"),
        ('category "cow" has no box', "instances_val2017.json"),
    ]


def test_all_of_them_are_found_at_once(tmp_path: Path) -> None:
    one(tmp_path, [annotation(1, 7), annotation(2, 8), annotation(3, 7, 5), {"id": 4}, annotation(5, 7, 3)])
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert all(f"annotations[{k}]: " in str(caught.value) for k in (1, 2, 3))
    assert len(read_dataset(tmp_path)[0][0].boxes) == 2


def test_boxes_are_checked_by_their_place_in_the_file(tmp_path: Path) -> None:
    one(tmp_path, [annotation(1, 7), annotation(2, 7, bbox=[1, 1, 0, 5]), annotation(3, 7)])
    report = load_checked(tmp_path, config=Config(), clean=False)[1]
    file = tmp_path / "annotations.json"
    assert [str(f) for f in report.with_code("D01")] == [
        f'{file}: annotations[1]: box (1, 1, 1, 6) of "dog" has no area'
    ]
    assert report.with_code("D06")[0].message.endswith("repeats the box of annotations[0]")
    plain = json.loads(report.to_json())["findings"]
    assert {(f["code"], f["line"], f.get("annotation")) for f in plain} >= {("D01", 0, 1), ("D06", 0, 2)}


def test_a_stated_size_that_is_wrong_names_the_picture(tmp_path: Path) -> None:
    one(tmp_path, [annotation(1, 7)], images=[image(7, "a.jpg") | {"height": 61.0, "width": None}])
    assert not check_dataset(open_dataset(tmp_path)).with_code("D14")
    one(tmp_path, [annotation(1, 7)], images=[image(7, "a.jpg") | {"height": 61.0}])
    found = check_dataset(open_dataset(tmp_path)).with_code("D14")
    assert [f.message for f in found] == ["images/a.jpg: states 80 x 61, the picture has 80 x 60 pixels"]


def test_pictures_of_two_files(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    for name in ("one", "two"):
        write(tmp_path / f"{name}.json", content([image(1, "a.jpg")], [annotation(1, 1)]))
    found = read_dataset(tmp_path)[1]
    assert [(f.code, f.message) for f in found if f.severity == "error"] == [
        ("D09", "annotates 1 pictures that one.json has already, the first is images/a.jpg")
    ]


def test_a_file_without_pictures(tmp_path: Path) -> None:
    write(tmp_path / "instances_train.json", content([], []))
    with pytest.raises(DataError, match="holds COCO annotations and no pictures"):
        open_dataset(tmp_path)


def test_a_missing_split_does_not_stop_another(tmp_path: Path) -> None:
    picture(tmp_path / "val2017" / "a.jpg")
    for split, name in (("train", "gone.jpg"), ("val", "a.jpg")):
        file = tmp_path / f"annotations/instances_{split}2017.json"
        write(file, content([image(1, name)], [annotation(1, 1)]))
    assert len(open_dataset(tmp_path, "val")) == 1
    with pytest.raises(DataError, match="none of its 1 pictures is here"):
        open_dataset(tmp_path)


VALID = json.dumps(
    content([image(1, "a.jpg"), image(2, "b.jpg")], [annotation(1, 1), annotation(2, 2, 3, iscrowd=1)])
).encode()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_reader_never_fails_on_damaged_files(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        stop = at + data.draw(st.integers(0, 12))
        raw[at:stop] = data.draw(
            st.one_of(st.binary(max_size=6), st.sampled_from([b"null", b"[", b"1e400", b'"', b"-1", b"{}"]))
        )
        raw = raw or bytearray(b" ")
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    (tmp_path / "instances_train.json").write_bytes(raw)
    found = read_dataset(tmp_path)
    assert len(found[0]) <= 2
    assert all(f.message and f.path for f in found[1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 8) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "image_id", "category_id", "bbox", "name", "file_name"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.lists(JSON, max_size=3), annotations=st.lists(JSON, max_size=3), categories=JSON)
def test_the_reader_never_fails_on_odd_values(
    tmp_path: Path, images: list[Any], annotations: list[Any], categories: Any
) -> None:
    picture(tmp_path / "a.jpg")
    many = categories if isinstance(categories, list) else [categories]
    write(
        tmp_path / "instances_train.json",
        content([image(7, "a.jpg"), *images], [annotation(1, 7), *annotations], [*CATEGORIES, *many]),
    )
    assert len(read_dataset(tmp_path)[0]) <= 1
