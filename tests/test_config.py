"""The configuration tree: YAML in and out, settings on top, and all errors at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from frcnn.config import Config
from frcnn.recipes import RECIPES, recipe
from frcnn.settings import (
    MODEL_SECTIONS,
    ConfigError,
    from_dict,
    known_keys,
    load_yaml,
    to_yaml,
    with_settings,
)


def test_nothing_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert from_dict({}) == load_yaml(tmp_path / "empty.yaml") == with_settings(Config(), []) == Config()
    assert load_yaml(tmp_path / "empty.yaml", recipe("vgg16")) == recipe("vgg16")


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_and_json_come_back_equal(tmp_path: Path, name: str) -> None:
    config = recipe(name)
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert load_yaml(tmp_path / "c.yaml") == config
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert list(yaml.safe_load(to_yaml(config))) == list(Config.model_fields), "in the order of the file"


def test_a_section_is_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.roi.hidden = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.recipe = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "section", "field", "value"),
    [
        ("roi.hidden=64", "roi", "hidden", 64),
        ("model.roi.hidden=64", "roi", "hidden", 64),
        ("train.lr=1e-3", "train", "lr", 1e-3),
        ("  train.lr = 0.5 ", "train", "lr", 0.5),
        ("preprocess.fixed_size=[320, 480]", "preprocess", "fixed_size", (320, 480)),
        ("preprocess.fixed_size=null", "preprocess", "fixed_size", None),
        ("backbone.weights=a=b.pth", "backbone", "weights", "a=b.pth"),
        ("rpn.nms_iou=0.6", "proposals", "nms_iou", 0.6),
        ("model.rpn.nms_iou=0.6", "proposals", "nms_iou", 0.6),
        ("roi.aligned=true", "roi", "aligned", True),
        ("data.classes=[]", "data", "classes", ()),
        ("data.classes=person", "data", "classes", ("person",)),
        ("data.classes=[person]", "data", "classes", ("person",)),
        ("data.classes=[red cell, b]", "data", "classes", ("red cell", "b")),
    ],
)
def test_settings(setting: str, section: str, field: str, value: object) -> None:
    base = recipe("lite0-fpn")
    changed = with_settings(base, [setting])
    assert getattr(getattr(changed, section), field) == value
    tree, before = changed.model_dump(), base.model_dump()
    before[section][field] = tree[section][field]
    assert tree == before, "nothing else changes"


def test_a_later_setting_wins_and_the_base_stays_as_it_was() -> None:
    base = Config()
    assert with_settings(base, ["roi.hidden=5", "roi.hidden=6"]).roi.hidden == 6
    assert base == Config()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", "'' has no '='"),
        ("roi.hidden", "'roi.hidden' has no '='; write key=value"),
        ("=3", "unknown key ''"),
        ("roi=3", "unknown key 'roi'"),
        ("roi.hiden=3", "unknown key 'roi.hiden'; did you mean 'roi.hidden'?"),
        ("hidden=3", "unknown key 'hidden'; did you mean 'roi.hidden'?"),
        ("box.hidden=3", "did you mean 'roi.hidden'?"),
        ("zzz=3", "sections are recipe, detector, data, preprocess"),
        ("roi.hidden=[1", "'[1' is not a value YAML can read"),
        ("roi.hidden=", "roi.hidden: input should be a valid integer (got None)"),
        ("roi.hidden=abc", "roi.hidden: input should be a valid integer"),
        ("roi.hidden=0", "roi.hidden: input should be greater than 0 (got 0)"),
        ("rpn.nms_iou=7", "proposals.nms_iou: input should be less than or equal to 1 (got 7)"),
        ("rpn.positive_iou=0.2", "rpn: negative_iou 0.3 is above positive_iou 0.2"),
        ("preprocess.max_size=10", "preprocess: max_size 10 is below min_size 800"),
        ("anchors.sizes=[[8]]", "anchors.sizes for 1 levels, the features have 5"),
        ("anchors.sizes=[]", "at least one value for every level"),
        ("anchors.sizes=[[8], [8], [8], [8], [0]]", "must be above 0"),
        ("anchors.sizes=[[8], [8], [8], [8], [8, 9]]", "same number of sizes"),
        ("rpn.first_level=5", "rpn.first_level 5 leaves none of the 5 levels"),
        ("fpn.channels=0", "anchors.sizes for 5 levels, the features have 4"),
        ("roi.pool=roipool", "works on a single level"),
        ("roi.pool=max", "roi.pool: input should be 'roialign' or 'roipool' (got 'max')"),
        ("roi.negative_iou=[0.5, 0.1]", "low below high"),
        ("roi.negative_iou=[0, 1.5]", "roi.negative_iou.1"),
        ("roi.delta_weights=[1, 1, 0, 1]", "roi.delta_weights.2: input should be greater than 0 (got 0)"),
        ("data.scale_jitter=[1.5, 0.5]", "must be (smallest, largest)"),
        ("data.scale_jitter=[0, 1]", "data.scale_jitter.0"),
        ("preprocess.std=[0, 1, 1]", "preprocess.std.0: input should be greater than 0"),
        ("preprocess.fixed_size=[0, 8]", "preprocess.fixed_size.0"),
        ("train.lr=.inf", "train.lr: input should be a finite number (got inf)"),
        ("train.lr=.nan", "train.lr: input should be a finite number (got nan)"),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_near(setting: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_settings(Config(), [setting])
    assert str(caught.value).startswith("--set: ")
    assert expected in str(caught.value)
    assert "pydantic" not in str(caught.value) and "Value error" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("roi.box_loss=giou", "box_loss giou"),
        ("roi.box_weight=2", r"box_weight 2\.0"),
        ("roi.target_std=[0.1,0.1,0.2,0.2]", r"target_std \(0\.1, 0\.1, 0\.2, 0\.2\)"),
    ],
)
def test_a_head_without_boxes_takes_no_box_loss(setting: str, key: str) -> None:
    base = recipe("regnetx400mf-fpn")
    assert base.roi.box_regression == "none"
    with pytest.raises(
        ConfigError, match=rf"{key} is for a box loss, and with box_regression 'none'.*leave it out"
    ):
        with_settings(base, [setting])
    assert with_settings(base, ["roi.box_regression=per_class", setting]).roi.box_regression == "per_class"


def test_all_errors_are_shown_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        with_settings(Config(), ["roi.hiden=3", "bar", "roi.hidden=abc", "train.lr=-1"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for word in ("roi.hiden", "bar", "roi.hidden:", "train.lr:"):
        assert sum(word in line for line in lines) >= 1
    with pytest.raises(ConfigError) as caught:
        from_dict({"roi": {"hiden": 3}, "trian": {}, "train": {"lr": -1}})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b", "a mapping of sections is expected, not list"),
        ("just words", "a mapping of sections is expected, not str"),
        ("roi: 4", "roi: input should be a valid dictionary"),
        ("roi:\n  hidden: 3\n hidden: 4", ":3: not valid YAML"),
        ("roi: {hidden: [", "not valid YAML"),
        ("roi:\n  hiden: 3", "did you mean 'roi.hidden'"),
        ("1: 2", "keys should be strings"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
@pytest.mark.parametrize("with_base", [False, True])
def test_bad_files_are_named(tmp_path: Path, text: str, expected: str, with_base: bool) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, recipe("vgg16") if with_base else None)
    assert str(path) in str(caught.value) and expected in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read .*check the path"):
            load_yaml(path)


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("roi: {hidden: 64}\ntrain:\n  lr: 0.5\n")
    base = recipe("vgg16")
    changed = load_yaml(tmp_path / "c.yaml", base)
    assert changed == with_settings(base, ["roi.hidden=64", "train.lr=0.5"])
    alone = load_yaml(tmp_path / "c.yaml")
    assert alone == with_settings(Config(), ["roi.hidden=64", "train.lr=0.5"])


def test_known_keys_are_the_leaves_of_the_tree() -> None:
    def leaves(tree: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for key, value in tree.items():
            found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [prefix + key]
        return found

    assert known_keys() == leaves(Config().model_dump())
    assert set(MODEL_SECTIONS) < set(Config.model_fields)


@settings(max_examples=100, deadline=None)
@given(setting=st.text(max_size=30), key=st.sampled_from(known_keys()))
def test_no_setting_crashes(setting: str, key: str) -> None:
    for text in (setting, f"{key}={setting}"):
        try:
            assert isinstance(with_settings(Config(), [text]), Config)
        except ConfigError as error:
            assert str(error).startswith("--set: ")


def test_reading_a_configuration_does_not_import_torch() -> None:
    code = "import sys, frcnn.recipes as r; r.recipe('vgg16'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
