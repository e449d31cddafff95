"""Presets of variation: what each sets, and that a key named beside it wins."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from frcnn.config import PRESETS, VARIED, Config, DataConfig, VariationConfig
from frcnn.recipes import recipe
from frcnn.settings import ConfigError, load_yaml, to_yaml, with_settings


def parts(config: VariationConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in VARIED}


def test_no_preset_is_the_recipe_as_it_is() -> None:
    base = recipe("lite0-fpn")
    assert base.data.augment == "recipe"
    assert with_settings(base, ["data.augment=recipe"]) == base
    assert parts(VariationConfig()) == {**parts(DataConfig(augment="none")), "flip": 0.5}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_decides_about_every_part_of_any_recipe(name: str) -> None:
    on_top = [with_settings(recipe(r), [f"data.augment={name}"]).data for r in ("lite0-fpn", "r50-fpn")]
    assert parts(on_top[0]) == parts(on_top[1]) == parts(VariationConfig(augment=name))  # type: ignore[arg-type]
    for key in VARIED:
        default = DataConfig(augment="none")
        assert getattr(on_top[0], key) == PRESETS[name].get(key, getattr(default, key))


def test_none_is_really_none() -> None:
    data = with_settings(recipe("lite0-fpn"), ["data.augment=none"]).data
    assert not any(value for name, value in parts(data).items() if not name.endswith("jitter"))
    assert data.scale_jitter == data.large_scale_jitter == (1, 1)
    assert data.describe() == "nothing is varied"
    assert "mosaic 0.25" in DataConfig(augment="strong").describe()
    assert "multi_scale 320, 384" in DataConfig(multi_scale=(320, 384)).describe()


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_beside_a_preset_wins_in_any_order(order: int) -> None:
    settings = ["data.augment=strong", "data.mosaic=0", "data.flip=0.1"][::order]
    data = with_settings(recipe("lite0-fpn"), settings).data
    assert (data.mosaic, data.flip, data.iou_crop) == (0, 0.1, PRESETS["strong"]["iou_crop"])
    assert DataConfig(augment="strong", mosaic=0).mosaic == 0


def test_a_file_names_a_preset_and_a_whole_file_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: {augment: aerial, flip: 0.0}\n")
    config = load_yaml(file, recipe("lite0-fpn"))
    assert (config.data.flip, config.data.quarter_turns) == (0, PRESETS["aerial"]["quarter_turns"])
    assert config.data.scale_jitter == (1, 1), "the recipe's own is not kept"
    changed = with_settings(config, ["data.hue=0.2"])
    file.write_text(to_yaml(changed))
    assert load_yaml(file) == load_yaml(file, recipe("r50-fpn")) == changed
    assert yaml.safe_load(file.read_text())["data"]["augment"] == "aerial"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.augment=stong"], r"data\.augment: input should be .*'strong'.*got 'stong'"),
        (["data.augment=[1]"], r"data\.augment"),
        (["data.mosaic=2"], r"data\.mosaic: .*less than or equal to 1"),
        (["data.large_scale_jitter=[2, 1]"], r"large_scale_jitter \(2\.0, 1\.0\) must be"),
        (
            ["data.multi_scale=[320]", "preprocess.fixed_size=[64, 64]"],
            r"multi_scale \(320,\) changes nothing",
        ),
        (["preprocess.overlap=0.9"], r"preprocess\.overlap"),
        (["preprocess.tile=8"], r"tile 8 shows too little"),
    ],
)
def test_what_does_not_fit_is_said(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(Config(), settings)


def test_a_preset_is_no_free_text() -> None:
    with pytest.raises(ValidationError):
        DataConfig(augment="wild")  # type: ignore[arg-type]


def test_the_documented_table_is_what_the_presets_contain() -> None:
    lines = (Path(__file__).parents[2] / "docs/augment.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    head, *body = rows
    names = [cell.strip("`") for cell in head[3:]]
    assert names == list(PRESETS)
    assert sorted(row[0].strip("`") for row in body) == sorted(VARIED)
    default = VariationConfig(augment="none")
    for key, _, off, *cells in body:
        for name, cell in zip(names, cells, strict=True):
            wanted = yaml.safe_load(cell or off)
            value = getattr(VariationConfig(augment=name), key.strip("`"))  # type: ignore[arg-type]
            assert value == (tuple(wanted) if isinstance(wanted, list) else wanted), f"{key} of {name}"
        assert getattr(default, key.strip("`")) == (
            tuple(yaml.safe_load(off)) if off[0] == "[" else float(off)
        )
