from __future__ import annotations

import pytest

from frcnn.training.skipped import describe_skipped, gather_names


def test_names_of_one_device() -> None:
    assert gather_names([], 1) == []
    assert gather_names(["b", "a", "b"], 1) == ["b", "a"]


@pytest.mark.parametrize(
    ("skipped", "pictures", "many"),
    [(1, 1, False), (1, 5, False), (2, 5, True), (2, 200, False), (3, 200, True), (10, 1000, False)],
)
def test_more_than_a_hundredth_are_too_many(skipped: int, pictures: int, many: bool) -> None:
    names = [f"{i}.jpg" for i in range(skipped)]
    text, stop = describe_skipped(names, pictures, 3)
    assert stop == many
    assert text.startswith(f"epoch 3: {skipped} of {pictures} pictures could not be read") and "0.jpg" in text


def test_long_lists_are_cut() -> None:
    text, _ = describe_skipped([f"{i}.jpg" for i in range(12)], 20, 1)
    assert text.endswith("9.jpg and 2 more")


def test_validation_pictures_are_told_from_others() -> None:
    text, many = describe_skipped(["a.jpg"], 3, 2, validation=True)
    assert text == "epoch 2: 1 of 3 validation pictures could not be read and were left out: a.jpg"
    assert not many and describe_skipped(["a.jpg", "b.jpg"], 3, 2, validation=True)[1]
