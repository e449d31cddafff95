from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_sample import make
from voc_files import devkit

from frcnn.config import Config, DataConfig
from frcnn.data.check import load_checked
from frcnn.data.findings import CheckReport
from frcnn.data.flags import BOXES, Flag, policy, refuse_object, unused_rules, without_effect
from frcnn.data.formats.assemble import Reading, Record, assemble
from frcnn.data.sample import DataError
from frcnn.settings import with_settings


@pytest.mark.parametrize(
    ("settings", "flag", "flagged", "expected"),
    [
        ({}, "difficult", 0, []),
        ({}, "dontcare", 4, []),
        ({"dontcare": "background"}, "dontcare", 4, []),
        ({"dontcare": "background"}, "dontcare", 0, ["data.dontcare=background"]),
        ({"dontcare": "background"}, "difficult", 3, ["data.dontcare=background"]),
        (
            {"difficult": "object", "crowd": "object"},
            "dontcare",
            4,
            ["data.difficult=object", "data.crowd=object"],
        ),
    ],
)
def test_policies_without_effect_are_said(
    settings: dict[str, str], flag: Flag, flagged: int, expected: list[str]
) -> None:
    found = without_effect(DataConfig.model_validate(settings), flag, flagged)
    assert [f.message.partition(" has no effect")[0] for f in found] == expected
    assert all(f.severity == "note" and f.message.endswith(" boxes") for f in found)


@pytest.mark.parametrize("flag", BOXES)
def test_every_flag_has_its_own_policy(flag: Flag) -> None:
    config = DataConfig.model_validate({flag: "background"})
    assert {other: policy(config, other) for other in BOXES if other != flag} == {
        other: "ignore" for other in BOXES if other != flag
    }
    assert policy(config, flag) == "background"


def test_regions_without_a_class_are_no_objects() -> None:
    refuse_object(DataConfig(), "dontcare", "here")
    refuse_object(DataConfig(difficult="object"), "dontcare", "here")
    with pytest.raises(DataError, match=r"data\.dontcare=object: .*; use data\.dontcare=ignore or"):
        refuse_object(DataConfig(dontcare="object"), "dontcare", "here")


def flagged_reading(root: Path, flag: Flag) -> Reading:
    """A picture with an object and two flagged boxes, one of them a crowd."""
    boxes = np.array([[0, 0, 5, 5], [1, 1, 6, 6], [2, 2, 7, 7]], np.float32)
    flagged, crowd = np.array([False, True, True]), np.array([False, False, True])
    lines = np.array([3, 4, 5], np.int32)
    record = Record("a.png", "a.txt", (0, 0), boxes, ("cat",) * 3, flagged, lines, crowd=crowd)
    return Reading(root, [record], flag=flag)


@pytest.mark.parametrize("flag", BOXES)
@pytest.mark.parametrize(
    ("value", "rows", "ignored", "words"),
    [
        ("ignore", 3, 2, "ignore regions, neither object nor background"),
        ("object", 3, 0, "ordinary objects"),
        ("background", 1, 0, "left out, their pixels count as background"),
    ],
)
def test_one_rule_for_all_flags(
    tmp_path: Path, flag: Flag, value: str, rows: int, ignored: int, words: str
) -> None:
    config = DataConfig.model_validate({flag: value})
    data, found = assemble(flagged_reading(tmp_path, flag), config=config)
    assert len(data.objects.boxes) == rows
    assert int(data.objects.ignore.sum()) == ignored
    assert not (data.objects.crowd & ~data.objects.ignore).any()
    report = CheckReport("", tuple(f for f in found if f.code == "D20"))
    line = f"2 {BOXES[flag]}: {words} (data.{flag}={value})"
    assert report.flag_lines() == [line]
    assert f"    -> {line}" in report.format().splitlines()


def test_rules_for_ignored_boxes_without_any_are_said() -> None:
    data = make([2, 1])
    assert unused_rules(data, Config()) == []
    config = with_settings(Config(recipe="mine"), ["rpn.ignore_wins=true", "roi.ignore_rule=iou"])
    assert [f.message for f in unused_rules(data, config)] == [
        "recipe mine has rpn.ignore_wins=True, roi.ignore_rule=iou: this data set has no boxes to ignore"
    ]
    data.objects.ignore[0] = True
    assert unused_rules(data, config) == []


def test_no_note_without_flags_and_policies(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [("cat", 1, 1, 9, 9)]})
    report = load_checked(tmp_path)[1]
    assert report.findings == () and report.flag_lines() == []
