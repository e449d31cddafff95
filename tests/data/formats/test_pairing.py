from __future__ import annotations

import pytest

from frcnn.data.formats.pairing import by_base_name, stated_pictures

KNOWN = by_base_name(["train/1.jpg", "val/1.jpg", "images/2.jpg", "a/b/3.jpg", "b/3.jpg"])


def test_nothing() -> None:
    assert by_base_name([]) == {}
    assert stated_pictures([], KNOWN) == []
    assert stated_pictures(["1.jpg"], {}) == [("", '"1.jpg" is not a picture here')]


@pytest.mark.parametrize(
    ("name", "near", "picture"),
    [
        ("2.jpg", [], "images/2.jpg"),
        (" ./images/2.jpg ", [], "images/2.jpg"),
        ("/home/me/set/2.jpg", [], "images/2.jpg"),
        ("C:\\set\\2.jpg", [], "images/2.jpg"),
        ("val/1.jpg", [], "val/1.jpg"),
        ("1.jpg", ["val"], "val/1.jpg"),
        ("/home/me/train/1.jpg", ["train"], "train/1.jpg"),
        ("a/b/3.jpg", [], "a/b/3.jpg"),
        ("2.JPG", [], ""),
        ("../../etc/passwd", [], ""),
        ("", [], ""),
        ("..", [], ""),
    ],
)
def test_paths(name: str, near: list[str], picture: str) -> None:
    found, reason = stated_pictures([name], KNOWN, near)[0]
    assert found == picture and bool(reason) is not bool(picture)


def test_what_is_not_clear() -> None:
    assert stated_pictures(["1.jpg"], KNOWN) == [("", '"1.jpg" may be 2 pictures: train/1.jpg, val/1.jpg')]
    # two paths of another machine with one name: neither can be told from the other
    assert [p for p, _ in stated_pictures(["/x/2.jpg", "/y/2.jpg"], KNOWN)] == ["", ""]
    assert [p for p, _ in stated_pictures(["/x/2.jpg", "/x/2.jpg"], KNOWN)] == ["images/2.jpg"] * 2
