from __future__ import annotations

import pytest

from frcnn.data.formats.flagwords import columns_of, flag_value, plain_word


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (None, 0),
        ("", 0),
        ("no", 0),
        ("Yes", 1),
        (" true ", 1),
        (True, 1),
        (False, 0),
        (2, 2),
        ("0.5", 0.5),
        (-1, 0),  # "not known"
        ("nan", 0),
        (float("inf"), 0),
        ([1], 0),
        ({}, 0),
    ],
)
def test_flag_value(value: object, number: float) -> None:
    assert flag_value(value) == number


def test_columns() -> None:
    empty = columns_of([])
    assert empty.flagged.shape == empty.truncated.shape == empty.occluded.shape == empty.crowd.shape == (0,)
    found = columns_of([{"crowd": 1}, {"difficult": "yes", "truncated": 7, "occluded": "9"}, {}])
    assert found.flagged.tolist() == [True, True, False] and found.crowd.tolist() == [True, False, False]
    assert found.truncated.tolist() == [0, 1, 0] and found.occluded.tolist() == [0, 3, 0]


@pytest.mark.parametrize(("text", "word"), [("", ""), (" Is_Crowd ", "iscrowd"), ("x-min 2", "xmin2")])
def test_plain_word(text: str, word: str) -> None:
    assert plain_word(text) == word
