"""The page of a run: complete, self-contained, and safe with whatever names the data has."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

import frcnn.report
from frcnn.config import Config
from frcnn.evaluation.report import measure
from frcnn.report.page import MAX_PICTURES, read_metrics, write_run_report
from frcnn.settings import to_yaml

EVIL = "<script>alert('x')</script> & \"cell\""
COLUMNS = (
    "epoch,step,lr,train_total,train_rpn_objectness,train_rpn_box,train_roi_class,train_roi_box,val_total,AP,AP50,"
    "images_per_second,data_share"
)
VOID = {"meta", "img", "link", "br"}


class Checked(HTMLParser):
    """Tags must close in order; addresses and scripts are collected."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(folder: Path) -> tuple[str, Checked]:
    path = write_run_report(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    checked = Checked()
    checked.feed(text)
    assert checked.open == []
    return text, checked


def fill(folder: Path) -> None:
    """A run with everything, all names hostile."""
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 0, "name": EVIL}, {"id": 1, "name": "absent"}],
        "annotations": [{"image_id": 1, "category_id": 0, "bbox": [0, 0, 40, 40]}],
    }
    found = [{"image_id": 1, "category_id": 0, "bbox": [0, 0, 40, 30], "score": 0.9}]
    (folder / "evaluation.json").write_text(measure(truth, found).to_json())
    (folder / "config.yaml").write_text(to_yaml(Config(recipe=EVIL)))
    (folder / "run.json").write_text(
        json.dumps({"data": EVIL, "train_images": 1234, "seconds": 3725.2, "none": None})
    )
    (folder / "notes.txt").write_text(f"2 boxes dropped\n\n{EVIL}\n")
    rows = [
        f"{e},{10 * e},{0.01 / e},{3 / e},1,1,0.5,0.5,{2 / e},{0.1 * e},{0.2 * e},10.5,0.1" for e in (1, 2, 3)
    ]
    (folder / "metrics.csv").write_text("\n".join([COLUMNS, *rows, ""]))
    (folder / "samples").mkdir()
    for i in range(3):
        Image.new("RGB", (2000, 100), (9, 99, i)).save(folder / "samples" / f"{i}_&_a.png")


def test_an_empty_folder_gives_a_page_and_none_an_error(tmp_path: Path) -> None:
    text, _ = page_of(tmp_path)
    assert tmp_path.name in text and "<svg" not in text and "n/a" not in text
    with pytest.raises(ValueError, match="no such run folder"):
        write_run_report(tmp_path / "missing")


def test_a_whole_run(tmp_path: Path) -> None:
    fill(tmp_path)
    text, checked = page_of(tmp_path)
    for heading in (
        "Training",
        "Classes",
        "Precision by recall",
        "Pictures",
        "Details",
        "What to know about",
    ):
        assert f"<h2>{heading}" in text
    for title in ("Loss", "Validation AP", "Parts of the training loss", "Learning rate"):
        assert f"<h3>{title}</h3>" in text
    assert (
        checked.tags.count("svg") == 5 and checked.tags.count("img") == 3
    )  # four charts, one class with a curve
    assert "1,234" in text and "1 h 02 min" in text and "2 boxes dropped" in text
    assert "n/a" in text and "0.300" in text and "epoch 3" in text  # the best validation AP
    assert "coco, IoU 0.50:0.95, max-dets 100, score &gt;= 0.0, 1 images, 1 gt, 0 ignored" in text
    assert "learning rate 0.01" not in text and "prefers-color-scheme: dark" in text


def test_nothing_is_loaded_and_no_name_becomes_markup(tmp_path: Path) -> None:
    fill(tmp_path)
    text, checked = page_of(tmp_path)
    assert "script" not in checked.tags and "link" not in checked.tags
    assert all(address.startswith("data:image/jpeg;base64,") for address in checked.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    assert text.count("&lt;script&gt;") >= 5  # class, curve, recipe, data, note


def test_pictures_are_reduced_limited_and_broken_ones_counted(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    for i in range(MAX_PICTURES + 2):
        Image.new("RGB", (40, 30)).save(samples / f"{i:03}.jpg")
    (samples / "000.jpg").write_bytes(b"not a picture")
    (samples / "notes.md").write_text("")
    text, checked = page_of(tmp_path)
    assert checked.tags.count("img") == MAX_PICTURES - 1 and "3 more in the folder" in text


def test_damaged_and_partial_files_do_not_stop_the_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train_total,AP\n1,2.5\n2,nan,\n3,x,0.5,9,9\n4,1.5,inf\n")
    (tmp_path / "evaluation.json").write_text('{"metrics": {"AP": null}, "classes": [{"name": "a"}]')
    (tmp_path / "config.yaml").write_text("recipe: [unclosed")
    (tmp_path / "run.json").write_text("[1, 2]")
    text, _ = page_of(tmp_path)
    assert "<h3>Loss</h3>" in text and "unclosed" in text and "nan" not in text.split("</style>")[1].lower()
    assert read_metrics(tmp_path / "metrics.csv")[0] == {"step": 1, "train_total": 2.5}
    (tmp_path / "evaluation.json").write_text('{"metrics": {"AP": null}, "classes": [{"name": "a"}]}')
    text, _ = page_of(tmp_path)
    assert "n/a" in text and "<td>a</td>" in text


def test_the_template_is_part_of_the_package() -> None:
    assert (Path(frcnn.report.__file__).parent / "run.html").is_file()
