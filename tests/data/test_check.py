from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_sample import make
from voc_files import Box, devkit, picture, text, xml

from frcnn.config import Config, DataConfig
from frcnn.data.check import apply_policies, check_dataset, check_upright, load_checked
from frcnn.data.checks.boxes import resize_scales
from frcnn.data.checks.repeats import repeated_boxes
from frcnn.data.findings import TITLES, CheckReport, Finding
from frcnn.data.sample import DataError
from frcnn.data.split import TrainVal

CAT: Box = ("cat", 1, 1, 10, 20)
NAN = float("nan")


def config(size: int = 60, **data: str) -> Config:
    return Config.model_validate({"data": data, "preprocess": {"min_size": size, "max_size": 2 * size}})


def found(root: Path, settings: Config | None = None, decode: bool = False) -> set[tuple[str, str, str, int]]:
    """(code, severity, file, line) of everything."""
    report = load_checked(root, config=settings or config(), clean=False, decode=decode)[1]
    assert all(f.code in TITLES and f.action and f.message for f in report.findings)
    return {(f.code, f.severity, Path(f.path).name, f.line) for f in report.findings}


def one_box(root: Path, *boxes: Box) -> Path:
    """The boxes on picture b, beside a picture with a good one."""
    return devkit(root, {"a": [CAT], "b": list(boxes)})


def test_good_data_has_no_findings(tmp_path: Path) -> None:
    data, report = load_checked(devkit(tmp_path, {"a": [CAT], "b": [CAT]}), config=config())
    assert report.findings == () and report.errors == ()
    assert report.counts == {"images": 2, "with_boxes": 2, "background": 0, "boxes": 2, "ignored": 0}
    assert len(data) == 2
    assert "images 2: 2 with boxes, 0 background (kept)" in report.format()


def test_data_without_pictures_or_objects() -> None:
    report = check_dataset(make([]))
    assert [f.code for f in report.findings] == ["D17"]
    report = check_dataset(make([0, 0], classes=()))
    assert [f.code for f in report.errors] == ["D17"] and "no object in any of 2 pictures" in report.errors[
        0
    ].message
    report = check_dataset(make([0, 0]))
    assert [(f.code, f.severity) for f in report.with_code("D08")] == [
        ("D08", "warn")
    ] * 2 and not report.errors


@pytest.mark.parametrize(
    ("box", "code", "severity"),
    [
        (("cat", 5, 5, 5, 9), "D01", "error"),
        (("cat", 9, 5, 5, 9), "D01", "error"),
        (("cat", 5, 9, 9, 5), "D01", "error"),
        (("cat", NAN, 5, 9, 9), "D01", "error"),
        (("cat", 5, 5, float("inf"), 9), "D01", "error"),
        (("cat", 5, 5, 1e300, 9), "D01", "error"),
        (("cat", 200, 5, 1e9, 9), "D03", "error"),
        (("cat", 81, 5, 90, 9), "D03", "error"),
        (("cat", -20, 5, -3, 9), "D03", "error"),
        (("cat", 70, 5, 1e9, 9), "D03", "warn"),
        (("cat", -3, 5, 9, 9), "D03", "warn"),
        (("cat", 5, 5, 82.5, 9), "D03", "warn"),
        (("cat", 5, 5, 82, 9), "D03", "note"),
        (("cat", -2, 5, 9, 9), "D03", "note"),
    ],
)
def test_bad_boxes_are_named_by_file_and_line(tmp_path: Path, box: Box, code: str, severity: str) -> None:
    one_box(tmp_path, CAT, box)
    assert found(tmp_path) == {(code, severity, "b.xml", 11)}
    if severity == "error":
        with pytest.raises(DataError, match=rf"^{code} .*b\.xml:11: box .*--bad-boxes drop"):
            load_checked(tmp_path, config=config())
        data, report = load_checked(tmp_path, config=config(bad_boxes="drop"))
        assert [len(s.boxes) for s in data] == [1, 1]
        assert [(f.code, f.severity) for f in report.findings] == [(code, "warn")]
    else:
        data = load_checked(tmp_path, config=config())[0]
        x1, y1, x2, y2 = data[1].boxes[1]
        assert 0 <= x1 < x2 <= 80 and 0 <= y1 < y2 <= 60


def test_box_at_the_border_is_good(tmp_path: Path) -> None:
    one_box(tmp_path, ("cat", 1, 1, 80, 60))
    assert found(tmp_path) == set()
    assert load_checked(tmp_path, config=config())[0][1].boxes.tolist() == [[0, 0, 80, 60]]


def test_boxes_that_vanish_are_ignored_in_training_only(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [CAT], "b": [CAT, ("cat", 5, 5, 6, 30)]}, {"train": ["a", "b"], "val": ["b"]})
    assert found(tmp_path, config(20)) >= {("D02", "warn", "b.xml", 11)}
    assert "D02" not in {f[0] for f in found(tmp_path, config(60))}
    data = load_checked(tmp_path, TrainVal("train", "none"), config=config(20))[0]
    assert data[1].ignore.tolist() == [False, True]
    assert not load_checked(tmp_path, "val", config=config(20))[0][0].ignore.any()
    both = load_checked(tmp_path, TrainVal("val", "train"), config=config(20))[0]
    assert [s.ignore.tolist() for s in both] == [[False], [False, True]]
    devkit(tmp_path, {"c": [("cat", 5, 5, 6, 30)]}, {"train": ["a"], "val": ["c"]})
    both = load_checked(tmp_path, TrainVal("train", "val"), config=config(20))[0]
    assert [s.ignore.tolist() for s in both] == [[False], [False]]


@pytest.mark.parametrize(
    ("spec", "size", "expected"),
    [
        ({"min_size": 800, "max_size": 1333}, (600, 800), (4 / 3, 4 / 3)),
        ({"min_size": 800, "max_size": 1333}, (500, 2000), (1333 / 2000, 1333 / 2000)),
        ({"fixed_size": (100, 300)}, (200, 100), (0.5, 3.0)),
    ],
)
def test_resize_scales(spec: dict[str, object], size: tuple[int, int], expected: tuple[float, float]) -> None:
    preprocess = Config.model_validate({"preprocess": spec}).preprocess
    assert resize_scales(np.zeros((0, 2), np.int32), preprocess).shape == (0, 2)
    assert resize_scales(np.asarray([size], np.int32), preprocess)[0] == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 25), st.integers(0, 10_000), st.sampled_from([0.3, 5.0]))
def test_repeated_boxes_equal_the_plain_search(count: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    data = make([count, 0, count])
    corner = rng.integers(0, 3, (2 * count, 2))
    side = rng.integers(100, 102, (2 * count, 2))
    boxes = np.concatenate([corner * spread, corner * spread + side], 1).astype(np.float32)
    data.objects.boxes[:] = boxes
    owner, labels = data.objects.owners(), data.objects.labels
    expected: dict[tuple[int, int], float] = {}
    for j in range(2 * count):
        for i in range(j):
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            shared = (high - low).astype(float).prod()
            areas = sum((boxes[k, 2:] - boxes[k, :2]).astype(float).prod() for k in (i, j))
            iou = shared / (areas - shared)
            if owner[i] == owner[j] and labels[i] == labels[j] and iou > 0.9:
                expected[i, j] = iou
    pairs = repeated_boxes(data, np.ones(2 * count, bool))
    for (i, j), iou in zip(pairs.rows.tolist(), pairs.iou.tolist(), strict=True):
        assert expected[i, j] == pytest.approx(iou, abs=1e-6)
    assert {j for _, j in pairs.rows.tolist()} == {j for _, j in expected}


def test_many_equal_boxes_cost_a_finding_each() -> None:
    data = make([3000])
    data.objects.boxes[:] = [5, 5, 40, 50]
    data.objects.labels[:] = 0
    assert repeated_boxes(data, np.ones(3000, bool)).rows.tolist() == [[0, j] for j in range(1, 3000)]


def test_duplicates_are_reported_at_the_later_box(tmp_path: Path) -> None:
    one_box(tmp_path, CAT, ("dog", 1, 1, 10, 20), CAT, ("cat", 1, 1, 10, 17))
    assert found(tmp_path) == {("D06", "warn", "b.xml", 16)}
    report = load_checked(tmp_path, config=config())[1]
    assert "repeats the box in line 6" in report.findings[0].message
    assert report.findings[0].rows == (3, 1)


def test_near_duplicates_are_named_once_with_the_box_they_are_most_like(tmp_path: Path) -> None:
    boxes: list[Box] = [
        ("cat", 1, 1, 40, 40),
        ("cat", 2, 1, 40, 40),
        ("dog", 1, 1, 40, 39),
        ("cat", 2, 1, 40, 41),
    ]
    one_box(tmp_path, *boxes)
    report = load_checked(tmp_path, config=config())[1]
    assert [(f.code, f.severity, f.line) for f in report.findings] == [
        ("D21", "warn", 11),
        ("D21", "warn", 21),
    ]
    assert [f.message.partition("nearly ")[2] for f in report.findings] == [
        "repeats the box in line 6 (IoU 0.97)",
        "repeats the box in line 11 (IoU 0.98)",
    ]


def test_class_names(tmp_path: Path) -> None:
    boxes: list[Box] = [("hipped_roof", i, 1, i + 5, 20) for i in range(1, 60)]
    devkit(
        tmp_path,
        {"a": boxes, "b": [("Hipped Roof", 1, 1, 9, 9), ("hipped_rof", 1, 1, 9, 9), ("part1", 1, 1, 9, 9)]},
    )
    assert found(tmp_path) == {("D07", "warn", "b.xml", 6), ("D07", "warn", "b.xml", 11)}
    messages = {f.message for f in load_checked(tmp_path, config=config())[1].findings}
    assert messages == {
        'class "Hipped Roof" and class "hipped_roof" differ in spelling only',
        'class "hipped_rof" is rare; did you mean "hipped_roof"?',
    }


def test_a_class_that_is_unknown_stops_with_a_suggestion(tmp_path: Path) -> None:
    one_box(tmp_path, ("hipped_rof", 1, 1, 9, 9))
    with pytest.raises(
        DataError, match=r'b\.xml:6: class "hipped_rof" is not in .*; did you mean "hipped_roof"\?'
    ):
        load_checked(tmp_path, classes=["hipped_roof", "cat"], config=config())


def test_classes_without_boxes(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [CAT], "b": [("dog", 1, 1, 9, 9)]}, {"train": ["a"], "val": ["b"]})
    report = load_checked(tmp_path, clean=False, config=config())[1]
    assert [(f.code, f.severity, f.message) for f in report.findings] == [
        ("D08", "error", 'class "dog" has no box in split "train"'),
        ("D08", "warn", 'class "cat" has no box in split "val"'),
    ]
    assert not load_checked(tmp_path, "val", config=config())[1].errors


def test_background_is_kept_and_counted(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [CAT], "b": []})
    picture(tmp_path / "JPEGImages" / "c.jpg")
    data, report = load_checked(tmp_path, config=config())
    assert len(data) == 3 and report.counts["background"] == 2
    assert {(f.code, Path(f.path).name, f.message) for f in report.findings} == {
        ("D11", "b.jpg", "its annotation has no usable object"),
        ("D11", "c.jpg", "has no annotation"),
    }
    assert "1 with boxes, 2 background (kept)" in report.summary()


def test_files_that_are_missing_broken_or_cut_are_in_one_report(tmp_path: Path) -> None:
    devkit(tmp_path, {name: [CAT] for name in "abcde"})
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    text(tmp_path / "Annotations" / "b.xml", "<annotation>\n<object>\n")
    cut = tmp_path / "JPEGImages" / "c.jpg"
    cut.write_bytes(cut.read_bytes()[:-20])
    text(tmp_path / "Annotations" / "d.xml", xml("d.jpg", [("cat", 5, 5, 5, 5)]))
    assert found(tmp_path) == {
        ("D01", "error", "d.xml", 6),
        ("D12", "error", "a.xml", 0),
        ("D13", "error", "c.jpg", 0),
        ("D16", "error", "b.xml", 3),
    }
    with pytest.raises(DataError) as caught:
        load_checked(tmp_path, config=config(bad_boxes="drop"))
    text_ = str(caught.value)
    assert "3 errors in the data" in text_ and "D01" not in text_
    assert all(code in text_ for code in ("D12 error", "D13 error", "D16 error", "b.xml:3: not well-formed"))


def damaged(root: Path) -> Path:
    """A data set with a good picture, and b.tif, which only decoding finds to be damaged."""
    devkit(root, {"a": [CAT]})
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    file = root / "JPEGImages" / "b.tif"
    noise.save(file, compression="tiff_lzw")
    content = bytearray(file.read_bytes())
    content[400:3000] = b"\xff" * 2600
    file.write_bytes(content)
    return root


def test_decoding_finds_what_the_header_does_not_show(tmp_path: Path) -> None:
    damaged(tmp_path)
    assert ("D13", "error", "b.tif", 0) not in found(tmp_path)
    assert ("D13", "error", "b.tif", 0) in found(tmp_path, decode=True)
    data = load_checked(tmp_path, config=config(on_bad_image="skip"), decode=True)[0]
    assert [s.path.name for s in data] == ["a.jpg"]


def test_few_pictures_are_decoded_unless_one_says_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = Image.fromarray(np.random.default_rng(1).integers(0, 255, (6, 8, 3), np.uint8))
    for name, size in (("c", (80, 60)), ("d", (88, 66))):
        coarse.resize(size).save(damaged(tmp_path) / "JPEGImages" / f"{name}.png")

    def codes(decode: bool | None) -> tuple[bool, set[str]]:
        report = load_checked(tmp_path, config=config(), clean=False, decode=decode)[1]
        return report.decoded, {f.code for f in report.findings} & {"D13", "D22"}

    assert codes(False) == (False, set())
    assert codes(True) == (True, {"D13", "D22"})
    assert codes(None) == (True, {"D13"}), "nothing is compared"
    monkeypatch.setattr("frcnn.data.check.DECODED", 80 * 60 * 3 + 88 * 66)
    assert codes(None)[0]
    monkeypatch.setattr("frcnn.data.check.DECODED", 80 * 60 * 3 + 88 * 66 - 1)
    assert codes(None) == (False, set())
    with pytest.raises(DataError, match=r"D13 .*b\.tif"):
        load_checked(tmp_path, config=config(), decode=True)


def test_unreadable_pictures_are_left_out_where_allowed(tmp_path: Path) -> None:
    devkit(tmp_path, {name: [CAT] for name in "abc"}, {"train": ["a", "b"], "val": ["c"]})
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(b"")
    data, report = load_checked(tmp_path, TrainVal(), config=config(on_bad_image="skip"))
    assert [s.image_id for s in data.subset("train")] == [2]
    assert [(f.code, f.severity) for f in report.findings] == [("D13", "warn")]
    (tmp_path / "JPEGImages" / "b.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"of 2 boxes 2 on pictures that cannot be read; mend"):
        load_checked(tmp_path, TrainVal(), config=config(on_bad_image="skip"))
    with pytest.raises(DataError, match=r'no pictures left in split "val": all 2 cannot be read'):
        load_checked(tmp_path, TrainVal("val", "train"), config=config(on_bad_image="skip"))


@pytest.mark.parametrize(
    ("orientation", "stated", "message"),
    [
        (1, (60, 80), ""),
        (1, (80, 60), "width and height are exchanged"),
        (1, (61, 80), "states 80 x 61, the picture has 80 x 60 pixels"),
        (6, (80, 60), ""),
        (6, (60, 80), "after its EXIF rotation (6)"),
        (6, (61, 80), "states 80 x 61, the picture has 60 x 80 pixels"),
        (3, (60, 80), "carries an EXIF rotation (3)"),
    ],
)
def test_stated_sizes(tmp_path: Path, orientation: int, stated: tuple[int, int], message: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (80, 60)).save(tmp_path / "a.jpg", exif=exif)
    text(tmp_path / "a.xml", xml("a.jpg", [("cat", 40, 40, 58, 58)], stated))
    findings = load_checked(tmp_path, clean=False, config=config())[1].findings
    assert [f.code for f in findings] == (["D14"] if message else [])
    assert all(message in f.message for f in findings)
    assert all(f.severity == ("note" if orientation == 3 else "error") for f in findings)
    if orientation == 6 and stated == (60, 80):
        assert "boxes were drawn on the unrotated picture" in findings[0].action


def test_other_kinds_of_pictures_are_stated(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [CAT], "b": [CAT]})
    for name in "ab":
        Image.new("L", (80, 60)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
    assert found(tmp_path) == {("D15", "note", "a.jpg", 0), ("D15", "note", "b.jpg", 0)}
    picture(tmp_path / "JPEGImages" / "a.jpg")
    assert found(tmp_path) == {("D15", "warn", "b.jpg", 0)}
    assert "gray, repeated" in load_checked(tmp_path, config=config())[1].findings[0].message


def test_empty_splits_are_named(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [CAT]}, {"train": ["a"], "val": []})
    assert found(tmp_path) == {("D17", "error", tmp_path.name, 0)}


def test_the_same_picture_in_two_splits(tmp_path: Path) -> None:
    devkit(
        tmp_path,
        {n: [CAT] for n in "abcd"},
        {"train": ["a", "b"], "val": ["b", "c", "d"], "trainval": list("abcd")},
    )
    shutil.copy(tmp_path / "JPEGImages" / "a.jpg", tmp_path / "JPEGImages" / "c.jpg")
    assert found(tmp_path) == {("D18", "warn", "b.jpg", 0), ("D18", "warn", "c.jpg", 0)}
    messages = {f.message for f in load_checked(tmp_path, config=config())[1].findings}
    assert messages == {"is in train and in val", "in val is the same file as JPEGImages/a.jpg in train"}


def test_unusual_pictures(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [CAT]})
    picture(tmp_path / "JPEGImages" / "long.png", (10, 51))
    Image.new("1", (10_000, 5001)).save(tmp_path / "JPEGImages" / "large.png")
    text(
        tmp_path / "Annotations" / "a.xml",
        xml("a.jpg", [("cat", 1, 1, 2 + i % 70, 2 + i // 20) for i in range(1001)]),
    )
    messages = [f.message for f in load_checked(tmp_path, clean=False, config=config())[1].with_code("D19")]
    assert messages == [
        "has 1001 boxes",
        "has 50 million pixels (143 MB decoded)",
        "is 51 x 10, more than 5 times as long as wide",
    ]


def test_flagged_boxes_are_counted_with_their_policy(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [CAT]})
    text(tmp_path / "Annotations" / "b.xml", xml("b.jpg", [CAT], difficult=1))
    picture(tmp_path / "JPEGImages" / "b.jpg")
    data, report = load_checked(tmp_path, config=config())
    assert [(f.code, f.severity, f.line) for f in report.findings] == [("D20", "note", 6)]
    assert report.counts["ignored"] == 1 and data[1].ignore.all()
    assert "ignore regions" in report.findings[0].action


def test_errors_in_other_splits_do_not_matter(tmp_path: Path) -> None:
    devkit(tmp_path, {n: [CAT] for n in "abc"}, {"train": ["a"], "val": ["b"], "test": ["c", "gone"]})
    text(tmp_path / "Annotations" / "c.xml", "<broken")
    assert len(load_checked(tmp_path, TrainVal(), config=config())[0]) == 2
    assert len(load_checked(tmp_path, "val", config=config())[0]) == 1
    with pytest.raises(DataError, match="2 errors"):
        load_checked(tmp_path, "test", config=config())


def test_a_file_of_splits_is_used_again(tmp_path: Path) -> None:
    devkit(tmp_path / "d", {f"{i}": [CAT] for i in range(6)})
    file = tmp_path / "splits.json"
    names = [f"JPEGImages/{i}.jpg" for i in range(6)]
    file.write_text(json.dumps({"splits": {"train": names[:4], "val": names[4:]}}))
    data = load_checked(tmp_path / "d", TrainVal(seed=3), config=config(), splits=file)[0]
    assert [s.image_id for s in data.subset("val")] == [5, 6]
    assert len(load_checked(tmp_path / "d", "val", config=config(), splits=file)[0]) == 2
    file.write_text(json.dumps({"splits": {"train": names, "val": []}}))
    assert "val" not in load_checked(tmp_path / "d", TrainVal(), config=config(), splits=file)[0].splits


def test_the_report_groups_and_limits(tmp_path: Path) -> None:
    findings = [Finding("D01", "error", f"box {i}", "a.xml", i, "fix") for i in range(1, 8)]
    report = CheckReport("data", (Finding("D11", "note", "empty", "b.jpg", 0, "kept"), *findings))
    lines = report.format().splitlines()
    assert lines[1] == "D01 error: box has no area (7)" and lines[2] == "    a.xml:1: box 1"
    assert lines[7:9] == ["    and 2 more", "    -> fix"]
    assert lines[9:11] == ["D11 note: background picture (1)", "    b.jpg: empty"]
    content = json.loads(report.to_json())
    assert len(content["findings"]) == 8 and content["findings"][1]["line"] == 1
    with pytest.raises(DataError, match=r"^data: 7 errors in the data\.\nD01 error"):
        report.raise_errors()
    CheckReport("data", ()).raise_errors()
    assert CheckReport("data", ()).groups() == []


def test_policies_leave_the_checked_data_as_it_was(tmp_path: Path) -> None:
    one_box(tmp_path, ("cat", 5, 5, 90, 9))
    data, report = load_checked(tmp_path, config=config(), clean=False)
    before = data.objects.boxes.copy()
    cleaned = apply_policies(data, report, config())
    assert (data.objects.boxes == before).all() and cleaned[1].boxes[0, 2] == 80


def test_boxes_and_pixels_are_the_same_way_round() -> None:
    as_stored = DataConfig(exif="ignore")
    plain, nothing = make([1, 0]), make([])
    for data in (nothing, replace(nothing, upright=False), plain):
        check_upright(data, DataConfig())
        check_upright(data, as_stored)
    turned = np.array([1, 3], np.int8)
    marked = replace(plain, pictures=replace(plain.pictures, orientations=turned))
    check_upright(marked, DataConfig())
    with pytest.raises(DataError, match=r"with data\.exif=apply, and data\.exif=ignore .*p1\.jpg has one"):
        check_upright(marked, as_stored)
    check_upright(marked.subset([0]), as_stored)
    stored = replace(plain, upright=False)  # which orientations there are is not known then
    check_upright(stored, as_stored)
    with pytest.raises(DataError, match=r"with data\.exif=ignore, and data\.exif=apply .*open_dataset"):
        check_upright(stored, DataConfig())
