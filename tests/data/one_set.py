"""One set of pictures and boxes in every format, for the tests that all of them are read alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from voc_files import picture, text


class Thing(NamedTuple):
    """An object: class, (x1, y1, x2, y2) half-open pixels from 0, and its flags."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False


SIZES = {"a": (375, 1242), "b": (60, 80), "c": (61, 97)}
"""(height, width) of the pictures; c is background."""
CLASSES = ("Car", "Cyclist", "Person", "traffic light")
PLAIN: dict[str, list[Thing]] = {
    "a": [
        Thing("traffic light", (387.63, 181.54, 423.81, 203.12)),
        Thing("Car", (0, 0, 1242, 375)),
        Thing("Person", (676.6, 163.95, 688.98, 193.93)),
    ],
    "b": [Thing("Person", (10, 20, 31, 42)), Thing("Cyclist", (0.25, 1.5, 79.75, 60))],
    "c": [],
}
FLAGGED = PLAIN | {
    "b": [
        Thing("Person", (10, 20, 31, 42), difficult=True),
        Thing("Cyclist", (0.25, 1.5, 79.75, 60), truncated=True),
        Thing("Car", (5, 5, 25, 25), occluded=True),
    ]
}
Things = dict[str, list[Thing]]


def voc(root: Path, things: Things) -> None:
    """The devkit: 1-based, both ends included."""
    for name, found in things.items():
        picture(root / "JPEGImages" / f"{name}.jpg", SIZES[name])
        objects = "".join(
            f"<object><name>{t.name}</name><truncated>{int(t.truncated)}</truncated>"
            f"<occluded>{int(t.occluded)}</occluded><difficult>{int(t.difficult)}</difficult><bndbox>"
            f"<xmin>{t.box[0] + 1}</xmin><ymin>{t.box[1] + 1}</ymin><xmax>{t.box[2]}</xmax>"
            f"<ymax>{t.box[3]}</ymax></bndbox></object>\n"
            for t in found
        )
        text(root / "Annotations" / f"{name}.xml", f"<annotation>\n{objects}</annotation>\n")
    for split, names in (("train", "ab"), ("val", "c")):
        text(root / "ImageSets/Main" / f"{split}.txt", "\n".join(names))


def coco(root: Path, things: Things, ids: tuple[int, ...] = (90, 7, 1, 13)) -> None:
    """Two files with sparse, shuffled ids."""
    categories = [{"id": number, "name": name} for number, name in zip(ids, CLASSES, strict=True)]
    categories.sort(key=lambda category: category["id"])
    of = dict(zip(CLASSES, ids, strict=True))
    for split, names in (("train", "ba"), ("val", "c")):
        images, boxes = [], []
        for name in names:
            picture(root / f"{split}2017" / f"{name}.jpg", SIZES[name])
            images.append({"id": ord(name) * 100, "file_name": f"{name}.jpg"})
            for t in things[name]:
                x1, y1, x2, y2 = t.box
                box = {
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "category_id": of[t.name],
                    "ignore": int(t.difficult),
                }
                boxes.append({"id": len(boxes), "image_id": ord(name) * 100, "iscrowd": 0, **box})
        content = {"images": images, "annotations": boxes, "categories": categories}
        text(root / f"annotations/instances_{split}2017.json", json.dumps(content))


def yolo(root: Path, things: Things) -> None:
    """Ultralytics' folders; the numbers of the classes are not in the order of their names."""
    order = CLASSES[::-1]
    for name, found in things.items():
        split, (height, width) = "val" if name == "c" else "train", SIZES[name]
        picture(root / f"images/{split}/{name}.jpg", SIZES[name])
        rows = []
        for t in found:
            x1, y1, x2, y2 = t.box
            shares = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            rows.append(f"{order.index(t.name)} {' '.join(f'{share:.7f}' for share in shares)}\n")
        text(root / f"labels/{split}/{name}.txt", "".join(rows))
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(order))
    text(root / "data.yaml", f"path: ../elsewhere\ntrain: images/train\nval: images/val\nnames:\n{names}")


def kitti(root: Path, things: Things) -> None:
    """``training/`` with lists; a class is one word, so "traffic light" is written "traffic_light"."""
    for name, found in things.items():
        picture(root / f"training/image_2/{name}.png", SIZES[name])
        rows = [
            f"{t.name.replace(' ', '_')} {float(t.truncated)} {int(t.occluded)} -10 "
            f"{' '.join(map(str, t.box))} 1 1 1 0 0 0 0\n"
            for t in found
        ]
        text(root / f"training/label_2/{name}.txt", "".join(rows))
    for split, names in (("train", "ab"), ("val", "c")):
        text(root / "ImageSets" / f"{split}.txt", "\n".join(names))


def labelme(root: Path, things: Things) -> None:
    """A file beside every picture."""
    for name, found in things.items():
        folder = root / ("val" if name == "c" else "train")
        picture(folder / f"{name}.jpg", SIZES[name])
        shapes = [
            {
                "label": t.name,
                "points": [t.box[:2], t.box[2:]],
                "shape_type": "rectangle",
                "flags": {"difficult": t.difficult, "truncated": t.truncated, "occluded": t.occluded},
            }
            for t in found
        ]
        text(folder / f"{name}.json", json.dumps({"shapes": shapes, "imagePath": f"{name}.jpg"}))


def csv(root: Path, things: Things) -> None:
    """One table."""
    rows = ["split,filename,xmin,ymin,xmax,ymax,class,difficult,truncated,occluded"]
    for name, found in things.items():
        picture(root / "pictures" / f"{name}.jpg", SIZES[name])
        split = "val" if name == "c" else "train"
        rows += [
            f"{split},{name}.jpg,{','.join(map(str, t.box))},{t.name},{int(t.difficult)},{int(t.truncated)},"
            f"{int(t.occluded)}"
            for t in found
        ] or [f"{split},{name}.jpg,,,,,,,,"]
    text(root / "boxes.csv", "\n".join(rows))


WRITERS: dict[str, Callable[[Path, Things], None]] = {
    "voc": voc,
    "coco": coco,
    "yolo": yolo,
    "kitti": kitti,
    "labelme": labelme,
    "csv": csv,
}
HOLDS = {
    "voc": {"difficult", "truncated", "occluded"},
    "coco": {"difficult"},
    "yolo": set[str](),
    "kitti": {"truncated", "occluded"},
    "labelme": {"difficult", "truncated", "occluded"},
    "csv": {"difficult", "truncated", "occluded"},
}
"""The flags that a format has."""
