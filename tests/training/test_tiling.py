"""Objects that are larger than tiles show: counted, and refused where a class has no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import Object, tiny_config, write_voc

from frcnn.config import Config
from frcnn.data.open import open_dataset
from frcnn.data.sample import DataError
from frcnn.settings import with_settings
from frcnn.training.options import TrainOptions
from frcnn.training.pictures import choose_data
from frcnn.training.tiling import tile_notes

LARGE: Object = ("red", 0, 0, 80, 64)
SMALL: list[Object] = [("red", 5, 5, 20, 20), ("blue", 40, 30, 60, 50)]


def config(tile: int, *settings: str) -> Config:
    return with_settings(tiny_config(), [f"preprocess.tile={tile}", *settings])


def test_nothing_is_said_where_tiles_show_everything(tmp_path: Path) -> None:
    data = open_dataset(write_voc(tmp_path, {"train": [SMALL, [LARGE]]}))
    assert tile_notes(data.subset([]), config(32)) == []
    assert tile_notes(data.subset([0]), config(32)) == []
    assert tile_notes(data, config(0)) == tile_notes(data, config(80)) == []
    assert tile_notes(data, config(32, "data.min_visible=0.1")) == []


def test_objects_that_no_tile_shows_are_counted_by_class(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"train": [SMALL, [LARGE]]})
    note = (
        'no tile of 32 px shows 30% of 1 objects (1 of "red"), so that nothing is learnt from them; '
        "use larger tiles, such as --tile 96"
    )
    assert tile_notes(open_dataset(root), config(32)) == [note]
    assert choose_data(root, TrainOptions(val="none"), config(32), None, None).notes == (note,)


def test_a_class_of_such_objects_alone_is_refused(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"train": [[SMALL[1]], [LARGE], [LARGE]]})
    assert not choose_data(root, TrainOptions(val="none"), config(0), None, None).notes
    sentence = (
        r'D08 .*no tile of 32 px shows 30% of any object of class "red" \(2 objects\), so nothing of it can '
        r"be learnt; use larger tiles, such as --tile 96, whole pictures \(--tile 0\), or a smaller"
    )
    with pytest.raises(DataError, match=sentence):
        choose_data(root, TrainOptions(val="none"), config(32), None, None)
