"""The pictures of a run as options choose them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_config

from frcnn.config import DataConfig
from frcnn.data.open import open_dataset
from frcnn.data.sample import DataError
from frcnn.data.split import TrainVal
from frcnn.settings import with_settings
from frcnn.training.options import TrainOptions
from frcnn.training.pictures import choose_data


def test_a_share_leaves_the_split_for_validation_alone(voc: Path) -> None:
    named = choose_data(voc, TrainOptions(), tiny_config(), None, None)
    assert named.val is not None and (len(named.train), len(named.val)) == (5, 3)
    asked = choose_data(voc, TrainOptions(val="0.4"), tiny_config(), None, None)
    assert asked.val is not None and len(asked.train) + len(asked.val) == 5 > len(asked.train)
    assert all(path.startswith("JPEGImages/train") for path in asked.both.pictures.paths)
    assert TrainVal(**asked.source["choice"]).asked


def test_a_data_set_that_was_opened_the_other_way_round_is_refused(voc: Path) -> None:
    data = open_dataset(voc, config=DataConfig(exif="ignore"))
    with pytest.raises(DataError, match=r"data\.exif=ignore, and data\.exif=apply is wanted"):
        choose_data(data, TrainOptions(), tiny_config(), None, None)
    as_stored = with_settings(tiny_config(), ["data.exif=ignore"])
    assert len(choose_data(data, TrainOptions(), as_stored, None, None).train) == 5


def test_pictures_are_decoded_unless_one_says_no(voc: Path) -> None:
    for decode, decoded in ((None, True), (False, False)):
        chosen = choose_data(voc, TrainOptions(decode=decode), tiny_config(), None, None)
        assert chosen.report.decoded is decoded
