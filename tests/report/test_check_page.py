from __future__ import annotations

import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from corpus import FORMATS, Box, Shot
from markupsafe import Markup
from PIL import Image

from frcnn.config import Config
from frcnn.data.check import load_checked
from frcnn.data.checks.locate import Place, locate
from frcnn.data.findings import CheckReport, Finding
from frcnn.recipes import recipe
from frcnn.report.bars import bar_chart
from frcnn.report.check_page import in_turns, render
from frcnn.report.thumbnails import Budget, chosen, thumbnails, view_of
from frcnn.survey.survey import survey

CAT: Box = ("cat", 5, 5, 30, 40)
EVIL = '<script>alert("x")</script>'
CONFIG = recipe("lite0-fpn")


def page(root: Path, config: Config = CONFIG, fit: bool = False, decode: bool = False) -> str:
    data, report = load_checked(root, config=config, clean=False, decode=decode)
    return render(data, report, survey(data, config, fit), config)


class Elements(HTMLParser):
    """Counts elements, and gathers addresses and the cards' data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.cards: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        values = dict(attrs)
        self.addresses += [values[k] or "" for k in ("src", "href") if k in values]
        if tag == "article":
            self.cards.append(values)


def test_a_clean_data_set_says_so(tmp_path: Path) -> None:
    FORMATS["voc"].write(tmp_path, {"a": Shot((CAT,), noise=1)}, {})
    text = page(tmp_path)
    assert "<b>Clean.</b> Nothing was found." in text
    assert Elements(text).count["article"] == 0 and "One by one" not in text


def test_a_data_set_without_an_object(tmp_path: Path) -> None:
    FORMATS["voc"].write(tmp_path, {"a": Shot(noise=1)}, {})
    elements = Elements(page(tmp_path, fit=True))
    assert {c["data-code"] for c in elements.cards} == {"D17", "D11"}


def test_findings_are_cards_with_what_filters_need(tmp_path: Path) -> None:
    shots = {
        "a": Shot((CAT, ("cat", 20, 9, 20, 30)), noise=1),
        "b": Shot((CAT, CAT), noise=2),
        "c": Shot(noise=3),
    }
    FORMATS["coco"].write(tmp_path, shots, {"train": ["a", "c"], "val": ["b"]})
    elements = Elements(page(tmp_path))
    seen = [(c["data-code"], c["data-severity"], c["data-name"], c["data-splits"]) for c in elements.cards]
    assert seen == [
        ("D01", "error", "cat", "train"),
        ("D06", "warn", "cat", "val"),
        ("D11", "note", "", "train"),
    ]
    assert elements.cards[0]["data-place"] == "annotations/instances_train.json: annotations[1]"
    assert elements.count["image"] == 3
    for address in elements.addresses:  # nothing is loaded from elsewhere
        assert address.startswith("data:image/jpeg;base64,")
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
            assert image.format == "JPEG"


def test_nothing_from_files_becomes_markup(tmp_path: Path) -> None:
    root = tmp_path / "<b>set"
    shots = {"<i>&a": Shot(((EVIL, 5, 5, 5, 40), (EVIL, 5, 5, 30, 40), CAT), noise=1)}
    FORMATS["labelme"].write(root, shots, {})
    text = page(root, fit=True)
    elements = Elements(text)
    assert elements.count["script"] == 1 and elements.count["b"] == 1 and elements.count["i"] < 30
    assert EVIL not in text and "&lt;script&gt;alert(" in text
    assert "<i>&a" not in text and "<b>set" not in text
    assert elements.cards[0]["data-name"] == EVIL


def test_no_address_of_elsewhere(tmp_path: Path) -> None:
    FORMATS["voc"].write(tmp_path, {"a": Shot((CAT, CAT), noise=1)}, {})
    text = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", page(tmp_path))
    assert "http:" not in text and "https:" not in text and "//" not in text.partition("<script>")[0]
    assert "@import" not in text and "url(" not in text


def test_two_pictures_that_look_alike_stand_side_by_side(tmp_path: Path) -> None:
    shots = {"a": Shot((CAT,), noise=1), "b": Shot((CAT,), (66, 88), noise=1)}
    FORMATS["voc"].write(tmp_path, shots, {"train": ["a"], "val": ["b"]})
    elements = Elements(page(tmp_path, decode=True))
    assert "pair" in (elements.cards[0]["class"] or "") and elements.count["image"] == 2


def test_pictures_are_limited_in_number_and_bytes(tmp_path: Path) -> None:
    shots = {f"p{i}": Shot((CAT, CAT), noise=i) for i in range(6)}
    FORMATS["voc"].write(tmp_path, shots, {})
    data, report = load_checked(tmp_path, config=CONFIG, clean=False)
    places = locate(data, report.findings)
    assert len(thumbnails(data, report.findings, places)) == 6
    assert len(thumbnails(data, report.findings, places, Budget(pictures=2))) == 2
    assert len(thumbnails(data, report.findings, places, Budget(size=1))) == 1
    assert thumbnails(data, (), ()) == {}


def test_every_kind_of_finding_gets_its_turn() -> None:
    many = [Finding("D06", "warn", f"{i}", "a.xml") for i in range(50)]
    few = [Finding("D01", "error", f"{i}", "a.xml") for i in range(2)]
    findings = [*few, *many]
    places = [Place(0, (), ())] * len(findings)
    assert chosen(findings, places, 6) == [0, 2, 1, 3, 4, 5]
    assert chosen(findings, [Place(-1, (), ())] * len(findings), 6) == []
    report = CheckReport("", tuple(many + few))
    assert [f.code for f in in_turns(report, 4)] == ["D01", "D01", "D06", "D06"]
    assert len(in_turns(report, 100)) == 52 and in_turns(CheckReport("", ()), 4) == []


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 12, 12),
        (630, 470, 640, 480),
        (600, 400, 700, 470),
        (0, 0, 640, 480),
        (20, 30, 20, 30),
        (-40, 5, 60, 90),
        (650, 10, 700, 60),
    ],
)
def test_the_view_holds_the_box(box: tuple[float, float, float, float]) -> None:
    x, y, wide, tall = view_of([np.asarray(box, float)], (640, 480))
    assert x <= box[0] and y <= box[1] and x + wide >= box[2] and y + tall >= box[3]
    assert wide >= 0.2 * 640 and tall > 0


@pytest.mark.parametrize("box", [(float("nan"), 1, 5, 5), (5, 5, 1e9, 9), (-1e30, 0, 5, 5)])
def test_a_box_that_cannot_be_shown_gives_the_whole_picture(box: tuple[float, ...]) -> None:
    assert view_of([np.asarray(box)], (640, 480)) == (0, 0, 640, 480)
    assert view_of([], (640, 480)) == (0, 0, 640, 480)


def test_bars_of_nothing_and_of_many_classes() -> None:
    assert bar_chart((0, 1), [[0], [0]], ["a"], "x") == Markup("")
    names = [f"<{i}>" for i in range(9)]
    chart = bar_chart((0, 1, 2), [[1] * 9, [0] * 9, [2] * 9], names, "x", mark=0.5)
    assert chart.count("<rect") == 12 and "&lt;0&gt;" in chart and "<0>" not in chart
    assert "others, 0 to 1: 4" in chart and "2 or more: 2" in chart and "mark-line" in chart


def test_an_outline_is_drawn_over_the_bars() -> None:
    chart = bar_chart((0, 1, 2), [[1], [2]], ["recipe"], "IoU", open_end=False, outline=("fitted", (4, 0)))
    assert 'class="line c2"' in chart and "fitted" in chart
    assert ">4</text>" in chart  # the axis reaches the higher of the two
