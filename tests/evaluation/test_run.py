"""From a detector and a data set to a report, with a network that knows the answer and with a real one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from frcnn.config import Config
from frcnn.data.open import open_dataset
from frcnn.data.sample import DataError, Dataset
from frcnn.evaluation.collect import Collector, collect_detections
from frcnn.evaluation.protocols import PROTOCOLS
from frcnn.evaluation.run import class_map, evaluate, ground_truth
from frcnn.recipes import recipe
from frcnn.settings import with_settings
from frcnn.structures import Detections

Box = tuple[str, int, int, int, int, int]
PICTURES: dict[str, tuple[int, int, list[Box]]] = {
    "a": (120, 90, [("dog", 11, 11, 50, 60, 0), ("ant", 61, 21, 110, 80, 0)]),
    "b": (90, 120, [("ant", 5, 6, 40, 90, 0), ("dog", 31, 41, 80, 100, 1)]),
    "c": (100, 100, []),
}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Three pictures in VOC's format: two classes, one difficult object, one picture without any."""
    rng = np.random.default_rng(0)
    for name, (width, height, boxes) in PICTURES.items():
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(tmp_path / f"{name}.png")
        objects = "".join(
            f"<object><name>{kind}</name><difficult>{hard}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for kind, x1, y1, x2, y2, hard in boxes
        )
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
        (tmp_path / f"{name}.xml").write_text(text)
    return open_dataset(tmp_path)


def padded(rows: list[list[tuple[list[float], float, int]]], most: int = 4) -> Detections:
    """(box, score, label) of every picture as ``Detections``."""
    boxes, scores = torch.zeros(len(rows), most, 4), torch.zeros(len(rows), most)
    labels, valid = (
        torch.zeros(len(rows), most, dtype=torch.int64),
        torch.zeros(len(rows), most, dtype=torch.bool),
    )
    for i, row in enumerate(rows):
        for j, (box, score, label) in enumerate(row):
            boxes[i, j], scores[i, j], labels[i, j], valid[i, j] = torch.tensor(box), score, label, True
    return Detections(boxes, scores, labels, valid, labels, torch.ones(len(rows), dtype=torch.bool))


class Knowing(nn.Module):
    """Finds every object of the pictures above, told apart by their sizes; difficult ones too."""

    def __init__(self, config: Config, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.weight = nn.Parameter(torch.zeros(1))
        self.modes: list[bool] = []
        self.compiled = None

    def trace(self, batch: Any, limits: Any = None) -> Any:
        self.modes.append(self.training)
        rows = []
        for height, width in batch.original_sizes.tolist():
            boxes = next(b for w, h, b in PICTURES.values() if (w, h) == (width, height))
            rows.append(
                [
                    ([x1 - 1.0, y1 - 1.0, x2, y2], 0.9, self.classes.index(kind))
                    for kind, x1, y1, x2, y2, _ in boxes
                ]
            )
        stage = torch.zeros(1)
        found = padded(rows)
        return SimpleNamespace(
            detections=found, proposals=stage, moved=stage, class_logits=stage, deltas=stage, batch=batch
        )


def knowing(*classes: str) -> Any:
    config = with_settings(recipe("lite0-fpn"), ["data.workers=0", "preprocess.min_size=64", "eval.batch=2"])
    return SimpleNamespace(model=Knowing(config, classes), config=config, classes=classes)


def test_ground_truth_of_nothing(data: Dataset) -> None:
    empty = ground_truth(data.subset([]))
    assert empty["images"] == empty["annotations"] == [] and [c["name"] for c in empty["categories"]] == [
        "ant",
        "dog",
    ]


def test_ground_truth_has_ids_from_1_labels_and_flags(data: Dataset) -> None:
    truth = ground_truth(data)
    assert [image["id"] for image in truth["images"]] == [1, 2, 3]
    assert [a["id"] for a in truth["annotations"]] == [1, 2, 3, 4]
    first, last = truth["annotations"][0], truth["annotations"][-1]
    assert (first["category_id"], first["bbox"], first["area"], first["ignore"]) == (
        1,
        [10, 10, 40, 50],
        2000,
        0,
    )
    assert last["ignore"] == 1 and last["iscrowd"] == 0
    other = ground_truth(data, ("dog", "cat", "ant"))
    assert [a["category_id"] for a in other["annotations"]] == [0, 2, 2, 0] and len(other["categories"]) == 3


def test_a_region_without_class_counts_for_every_class_and_flat_boxes_are_ignored(data: Dataset) -> None:
    objects = data.objects
    objects.labels[0], objects.ignore[0] = -1, True
    objects.boxes[1, 2] = objects.boxes[1, 0]
    rows = ground_truth(data)["annotations"]
    assert [(a["category_id"], a["iscrowd"], a["ignore"]) for a in rows[:3]] == [
        (0, 1, 1),
        (1, 1, 1),
        (0, 0, 1),
    ]


def test_ground_truth_hands_on_what_protocols_ask_for(data: Dataset) -> None:
    objects = data.objects
    objects.truncated[:], objects.occluded[:], objects.crowd[:] = [0.25, 0, 1, 0], [0, 3, 1, 0], True
    objects.ignore[:] = [False, True, False, True]
    rows = ground_truth(data)["annotations"]
    assert [(a["truncated"], a["occluded"]) for a in rows] == [(0.25, 0), (0, 3), (1, 1), (0, 0)]
    # a crowd with a class is a region of that class alone, and only while it is ignored
    assert [(a["category_id"], a["iscrowd"]) for a in rows] == [(1, 0), (0, 1), (0, 0), (1, 1)]


def test_class_names_are_matched_by_name() -> None:
    assert class_map((), ("a",)) == () and class_map(("b", "a"), ("a", "c", "b")) == (2, 0)
    with pytest.raises(
        ValueError, match=r'"hipped_rof"; did you mean "hipped_roof".*model: roof, hipped_roof'
    ):
        class_map(("roof", "hipped_rof"), ("roof", "hipped_roof"))


def test_a_perfect_detector_whatever_the_order_of_its_classes(data: Dataset) -> None:
    for classes in (("ant", "dog"), ("dog", "cat", "ant")):
        report = evaluate(knowing(*classes), data)
        assert report["AP"] == report["AP50"] == 1.0 and report.classes == classes
        assert (report.settings.images, report.settings.objects, report.settings.ignored) == (3, 3, 1)
        by_name = {row.name: row for row in report.rows}
        assert by_name["dog"].objects == 1 and by_name["dog"].ignored == 1 and by_name["dog"].precision == 1.0
    assert by_name["cat"].ap is None and any('"cat"' in note for note in report.notes)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_perfect_detector_by_every_protocol(data: Dataset, protocol: str) -> None:
    report = evaluate(knowing("ant", "dog"), data, protocol=protocol)
    assert report.protocol == protocol and {v for k, v in report.metrics.items() if k != "AR1"} <= {1.0, None}
    assert (report.settings.images, report.settings.objects, report.settings.ignored) == (3, 3, 1)
    assert report.settings.score_floor == (0 if protocol == "recall" else 0.05)


def test_recall_needs_no_common_class_names(data: Dataset) -> None:
    detector = knowing("ant", "dog")
    detector.classes = ("object",)
    with pytest.raises(ValueError, match='"dog"'):
        evaluate(detector, data)
    report = evaluate(detector, data, protocol="recall")
    assert report["AR100"] == 1.0 and report.classes == ("object",)


def test_proposals_alone_are_measured_by_recall(data: Dataset) -> None:
    from frcnn.model.detector import build_network

    small = ["data.workers=0", "preprocess.min_size=64", "backbone.weights=none"]
    config = with_settings(recipe("lite0-fpn"), ["detector=rpn", "roi.cascade=[]", *small])
    torch.manual_seed(0)
    detector = SimpleNamespace(model=build_network(config, 1).eval(), config=config, classes=("object",))
    report = evaluate(detector, data)
    assert report.protocol == "recall" and set(report.metrics) >= {"AR100", "AR300", "AR1000", "R50@1000"}
    assert report.counts.detections > 3 * 100 and report.settings.max_dets == 1000  # not the model's own 100
    assert report.settings.objects == 3 and report.settings.ignored == 1
    assert 0 <= report.metrics["AR100"] <= report.metrics["AR1000"] <= 1  # type: ignore[operator]
    assert evaluate(detector, data, max_dets=20).counts.detections <= 60
    with pytest.raises(ValueError, match=r"detector rpn.*protocol coco.*--protocol recall"):
        evaluate(detector, data, protocol="coco")


def test_data_as_a_folder_and_what_is_wrong_with_it(data: Dataset) -> None:
    assert evaluate(knowing("ant", "dog"), data.root)["AP"] == 1.0
    with pytest.raises(ValueError, match='"dog"'):
        evaluate(knowing("ant", "cat"), data)
    with pytest.raises(ValueError, match="no pictures"):
        evaluate(knowing("ant", "dog"), data.subset([]))
    with pytest.raises(ValueError, match='no split "test"'):
        evaluate(knowing("ant", "dog"), data, "test")
    with pytest.raises(ValueError, match="unknown protocol"):
        evaluate(knowing("ant", "dog"), data, protocol="voc99")


def test_a_folder_is_checked_and_cleaned_as_the_command_does(data: Dataset) -> None:
    file = data.root / "c.xml"
    flat = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>5</ymax></bndbox>"
    text = file.read_text().replace("</annotation>", f"<object><name>ant</name>{flat}</object></annotation>")
    file.write_text(text)
    detector = knowing("ant", "dog")
    with pytest.raises(DataError, match=r"D01 .*c\.xml.*--bad-boxes drop"):
        evaluate(detector, data.root)
    detector.config = with_settings(detector.config, ["data.bad_boxes=drop"])
    report = evaluate(detector, data.root)
    assert report["AP"] == 1.0 and report.settings.objects == 3
    assert not any("without area" in note for note in report.notes), "left out, not only ignored"
    twice = data.root / "a.xml"
    objects = twice.read_text()
    first = objects[objects.index("<object>") : objects.index("</object>") + len("</object>")]
    twice.write_text(objects.replace("</annotation>", f"{first}</annotation>"))
    assert evaluate(detector, data.root).settings.objects == 4
    detector.config = with_settings(detector.config, ["data.dedupe=true"])
    assert evaluate(detector, data.root).settings.objects == 3


def test_pictures_that_cannot_be_read_are_left_out_by_name_where_allowed(data: Dataset) -> None:
    (data.root / "a.png").write_bytes(b"")  # after it was opened
    detector = knowing("ant", "dog")
    with pytest.raises(DataError, match=r"a\.png"):
        evaluate(detector, data)
    detector.config = with_settings(detector.config, ["data.on_bad_image=skip"])
    by_header = evaluate(detector, data.root)
    while_reading = evaluate(detector, data)
    assert while_reading.to_json() == by_header.to_json()
    assert (by_header.settings.images, by_header.settings.objects, by_header["AP"]) == (2, 1, 1.0)
    assert by_header.counts.detections == 2, "nothing that is found in it counts"
    note = f"1 pictures could not be read and were left out: {data.root / 'a.png'}"
    assert by_header.notes[-1] == note
    for name in "bc":
        (data.root / f"{name}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture can be read, the first is .*\.png"):
        evaluate(detector, data)


def test_a_data_set_that_was_opened_the_other_way_round_is_refused(data: Dataset) -> None:
    detector = knowing("ant", "dog")
    with pytest.raises(DataError, match=r"data\.exif=ignore, and data\.exif=apply is wanted"):
        evaluate(detector, replace(data, upright=False))
    detector.config = with_settings(detector.config, ["data.exif=ignore"])
    assert evaluate(detector, replace(data, upright=False))["AP"] == 1.0


def test_the_mode_of_the_network_comes_back_and_progress_is_told(data: Dataset) -> None:
    detector, seen = knowing("ant", "dog"), []
    detector.model.train()
    evaluate(detector, data, progress=seen.append)
    assert detector.model.training and detector.model.modes == [False, False] and seen[-1] == 3


def test_collecting_nothing_and_counting_limits() -> None:
    model = knowing("a").model
    none: Iterator[Any] = iter(())
    assert collect_detections(model, none, "cpu").results == []
    collector = Collector()
    found = padded([[([0.0, 0.0, 4.0, 8.0], 0.5, 2)] * 3, []], most=3)
    found.exact[1] = False
    collector.add(found, (7, 9))
    assert (collector.capped, collector.inexact, collector.images) == (1, 1, 2)
    assert collector.results[0] == {"image_id": 7, "category_id": 2, "bbox": [0, 0, 4, 8], "score": 0.5}
    assert len(collector.results) == 3 and collector.counts.capped_images == 1
    collector.add(found, (11, 13), left_out=(0, 1))
    assert (collector.capped, collector.inexact, collector.images) == (1, 1, 4)
    assert len(collector.results) == 3 and collector.unread == {}


def test_a_real_network_with_other_limits(data: Dataset) -> None:
    from frcnn.model.detector import FasterRCNN

    config = with_settings(
        recipe("lite0-fpn"), ["data.workers=0", "preprocess.min_size=64", "backbone.weights=none"]
    )
    torch.manual_seed(0)
    detector = SimpleNamespace(model=FasterRCNN(config, 2).eval(), config=config, classes=("ant", "dog"))
    report = evaluate(detector, data, score=0.0, max_dets=5)
    assert report.counts.detections == 15 and report.counts.capped_images == 3
    assert "max-dets (5) reached in 3 images; raise --max-dets" in report.notes
    assert report.settings.score_floor == 0 and "AR5" in report.metrics
    assert evaluate(detector, data, score=0.999).counts.detections == 0
