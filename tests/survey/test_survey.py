from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus import FORMATS, Box, Shot

from frcnn.config import Config
from frcnn.data.check import load_checked
from frcnn.recipes import recipe
from frcnn.settings import with_settings
from frcnn.survey.document import as_text, document
from frcnn.survey.lines import survey_lines
from frcnn.survey.survey import Survey, survey

CAT: Box = ("cat", 5, 5, 30, 40)
DOG: Box = ("dog", 40, 10, 70, 50)
CONFIG = recipe("lite0-fpn")
MIXED = {
    "a": Shot((CAT, DOG), noise=1),
    "b": Shot((DOG, ("dog", 5, 5, 5, 20), ("cat", 90, 5, 99, 20), ("cat", 60, 5, 95, 20)), noise=2),
    "c": Shot((CAT,), flagged=("cat", 40, 5, 70, 20), noise=3),
    "d": Shot((("cat", 50, 30, 79, 59),), (30, 40), stated=(60, 80), noise=4),
}


def look(root: Path, config: Config = CONFIG, fit: bool = False) -> Survey:
    return survey(load_checked(root, config=config, clean=False)[0], config, fit)


def test_usable_objects_are_measured_at_training_size(tmp_path: Path) -> None:
    FORMATS["voc"].write(tmp_path, MIXED, {})
    found = look(tmp_path)
    # without area, outside, ignored, and beyond the real size of their picture are left out
    assert found.objects == 5 and found.classes == ("cat", "dog")
    assert found.sides.counts.sum(0).tolist() == [3, 2]
    assert found.sides.middle == pytest.approx(25 * 320 / 60, rel=2e-3)
    assert found.covered is not None and found.covered.total.objects == 5
    assert found.fitted is None and found.setting == ""


def test_advice_is_about_tiles_where_there_are_some(tmp_path: Path) -> None:
    small: Box = ("cat", 10, 10, 15, 40)
    FORMATS["voc"].write(
        tmp_path, {n: Shot((small, DOG), (400, 600), noise=i) for i, n in enumerate("ab")}, {}
    )
    whole, tiles, smaller = (
        look(tmp_path, with_settings(CONFIG, [f"preprocess.tile={tile}"])) for tile in (0, 192, 128)
    )
    assert whole.advice.tile == tiles.advice.tile == 128
    assert tiles.advice.kind == "tile", "to enlarge a tile of 192 pixels to 480 shows nothing more"
    assert smaller.advice.kind == "enough" and smaller.advice.large_enough == 1


def test_without_objects(tmp_path: Path) -> None:
    FORMATS["voc"].write(tmp_path, {"a": Shot(noise=1)}, {})
    found = look(tmp_path, fit=True)
    assert found.objects == 0 and found.fitted is None
    assert survey_lines(found) == ["no usable object to measure"]


def test_points_have_no_anchors(tmp_path: Path) -> None:
    FORMATS["voc"].write(tmp_path, MIXED, {})
    found = look(tmp_path, recipe("fcos-regnetx400mf"), fit=True)
    assert found.covered is None and found.fitted is None
    assert "anchors: this detector has points instead" in survey_lines(found)


def test_lines_say_what_to_set(tmp_path: Path) -> None:
    FORMATS["voc"].write(tmp_path, MIXED, {})
    found = look(tmp_path, fit=True)
    lines = survey_lines(found)
    assert lines[0] == "short sides at training size, pixels (5 objects):"
    assert any(line.startswith("  train with: --set 'anchors.sizes=[[") for line in lines)
    assert "  so few objects say little about others" in lines
    assert lines[-1].startswith("advice: 100% of the objects have 12 px or more")


def test_everything_is_in_the_document(tmp_path: Path) -> None:
    FORMATS["coco"].write(tmp_path, MIXED, {"train": ["a", "b"], "val": ["c", "d"]})
    data, report = load_checked(tmp_path, config=CONFIG, clean=False)
    values = json.loads(as_text(document(data, report, survey(data, CONFIG, True), CONFIG)))
    assert values["version"] == 1 and values["format"] == "COCO" and values["training_size"] == [320, 640]
    assert values["tile"] == 0
    assert values["counts"]["errors"] == len(report.errors) > 0
    assert values["splits"] == {"train": 2, "val": 2}
    assert [(c["name"], c["by_split"]) for c in values["classes"]] == [
        ("cat", {"train": 3, "val": 2}),
        ("dog", {"train": 3, "val": 0}),
    ]
    area = next(f for f in values["findings"] if f["code"] == "D01")
    assert (area["picture"], area["class"], area["splits"]) == ("images/b.png", "dog", ["train"])
    assert area["boxes"] == [[5, 5, 5, 20]] and area["annotation"] == 3 and "rows" not in area
    assert sum(values["survey"]["short_side"]["counts"]) == values["survey"]["objects"] == 5
    fitted = values["survey"]["fitted_anchors"]
    assert fitted["coverage"]["total"]["objects"] == 5 and len(fitted["sizes"]) == 4


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    nan = float("nan")
    FORMATS["voc"].write(tmp_path, {"a": Shot((CAT, ("cat", nan, 5, 9, 9)), noise=1)}, {})
    data, report = load_checked(tmp_path, config=CONFIG, clean=False)
    values = json.loads(as_text(document(data, report, survey(data, CONFIG), CONFIG)))
    assert values["findings"][0]["boxes"] == [[None, 5, 9, 9]]
