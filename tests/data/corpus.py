"""Small data sets in every format, from one description: what the tests of the data check are run on.

A further format is a function here and an entry of ``FORMATS``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from PIL import Image

Box = tuple[str, float, float, float, float]
"""Class and x1, y1, x2, y2: half-open pixels from 0."""
Splits = Mapping[str, Sequence[str]]
Ability = Literal["splits", "size", "flag", "beyond", "own file"]


@dataclass(frozen=True)
class Shot:
    """A picture and what is annotated on it.

    Attributes:
        boxes: the objects.
        size: (height, width) of the file.
        stated: (height, width) that the annotation states; None: the right one.
        flagged: a region that the format flags; None: none.
        noise: the picture's content: pictures of one number look alike.
    """

    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] = (60, 80)
    stated: tuple[int, int] | None = None
    flagged: Box | None = None
    noise: int = 0

    @property
    def said(self) -> tuple[int, int]:
        """The stated size."""
        return self.stated or self.size


@dataclass(frozen=True)
class Format:
    """How a data set is written.

    Attributes:
        write: pictures by name, and the names in each split, into a folder.
        picture: the file of a picture.
        annotation: the annotation file of a picture.
        can: ``splits``: has some. ``size``: states the picture's. ``flag``: flags regions. ``beyond``: a box
            may lie wholly outside. ``own file``: each picture has its own annotation file.
    """

    write: Callable[[Path, Mapping[str, Shot], Splits], None]
    picture: Callable[[Path, str], Path]
    annotation: Callable[[Path, str], Path]
    can: frozenset[Ability]


def photo(path: Path, shot: Shot) -> None:
    """A picture in which something is to be seen, another one for every number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(shot.noise).integers(0, 256, (6, 8, 3), np.uint8)
    height, width = shot.size
    Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC).save(path)


def put(path: Path, text: str) -> None:
    """A text file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_voc(root: Path, shots: Mapping[str, Shot], splits: Splits) -> None:
    """The devkit; coordinates from 1, both ends included."""
    for name, shot in shots.items():
        photo(root / "JPEGImages" / f"{name}.png", shot)
        height, width = shot.said
        flags = [(box, 0) for box in shot.boxes] + ([(shot.flagged, 1)] if shot.flagged else [])
        rows = [
            f"<object>\n<name>{label}</name>\n<difficult>{flag}</difficult>\n<bndbox><xmin>{x1 + 1}</xmin>"
            f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>\n</object>\n"
            for (label, x1, y1, x2, y2), flag in flags
        ]
        put(
            root / "Annotations" / f"{name}.xml",
            f"<annotation>\n<filename>{name}.png</filename>\n<size><width>{width}</width>"
            f"<height>{height}</height></size>\n{''.join(rows)}</annotation>\n",
        )
    for split, names in splits.items():
        put(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{n}\n" for n in names))


def write_coco(root: Path, shots: Mapping[str, Shot], splits: Splits) -> None:
    """A file for each split, or one for all; ids are neither from 0 nor in order."""
    labels = sorted(
        {box[0] for s in shots.values() for box in (*s.boxes, *([s.flagged] if s.flagged else []))}
    )
    ids = {label: 90 - 7 * i for i, label in enumerate(labels)}
    for name, shot in shots.items():
        photo(root / "images" / f"{name}.png", shot)
    for split, names in (splits or {"": list(shots)}).items():
        images, annotations = [], []
        for i, name in enumerate(names):
            shot = shots[name]
            height, width = shot.said
            images.append({"id": 10 + i, "file_name": f"{name}.png", "height": height, "width": width})
            flags = [(box, 0) for box in shot.boxes] + ([(shot.flagged, 1)] if shot.flagged else [])
            annotations += [
                {
                    "id": 0,
                    "image_id": 10 + i,
                    "category_id": ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": flag,
                }
                for (label, x1, y1, x2, y2), flag in flags
            ]
        for number, annotation in enumerate(annotations, 1):
            annotation["id"] = number
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": ids[label], "name": label} for label in labels],
        }
        put(root / "annotations" / f"instances_{split or 'all'}.json", json.dumps(content))


def write_kitti(root: Path, shots: Mapping[str, Shot], splits: Splits) -> None:
    """15 columns; no splits."""
    assert not splits
    for name, shot in shots.items():
        photo(root / "training" / "image_2" / f"{name}.png", shot)
        rows = [*shot.boxes, *([("DontCare", *shot.flagged[1:])] if shot.flagged else [])]
        text = "".join(f"{b[0]} 0 0 0 {b[1]} {b[2]} {b[3]} {b[4]} 1 1 1 0 0 0 0\n" for b in rows)
        put(root / "training" / "label_2" / f"{name}.txt", text)


def write_pennfudan(root: Path, shots: Mapping[str, Shot], splits: Splits) -> None:
    """Text records; no splits; coordinates from 1, both ends included."""
    assert not splits
    for name, shot in shots.items():
        photo(root / "PNGImages" / f"{name}.png", shot)
        height, width = shot.said
        boxes = [
            f'Bounding box for object {i} "{b[0]}" (Xmin, Ymin) - (Xmax, Ymax) : ({b[1] + 1}, {b[2] + 1}) - '
            f"({b[3]}, {b[4]})\n"
            for i, b in enumerate(shot.boxes, 1)
        ]
        head = f'Image filename : "PennFudanPed/PNGImages/{name}.png"\n'
        head += f"Image size (X x Y x C) : {width} x {height} x 3\n"
        put(
            root / "Annotation" / f"{name}.txt",
            f"{head}Objects with ground truth : {len(boxes)}\n{''.join(boxes)}",
        )


def write_yolo(root: Path, shots: Mapping[str, Shot], splits: Splits) -> None:
    """Ultralytics' layout with lists; shares of the picture's sides."""
    labels = sorted({box[0] for s in shots.values() for box in s.boxes}) or ["cat"]
    for name, shot in shots.items():
        photo(root / "images" / f"{name}.png", shot)
        height, width = shot.size
        rows = [
            f"{labels.index(b[0])} {(b[1] + b[3]) / 2 / width:.7f} {(b[2] + b[4]) / 2 / height:.7f} "
            f"{(b[3] - b[1]) / width:.7f} {(b[4] - b[2]) / height:.7f}\n"
            for b in shot.boxes
        ]
        put(root / "labels" / f"{name}.txt", "".join(rows))
    setup = {"names": labels, **{split: f"{split}.txt" for split in splits}}
    if not splits:
        setup["train"] = "images"
    put(root / "data.yaml", yaml.safe_dump(setup))
    for split, names in splits.items():
        put(root / f"{split}.txt", "".join(f"./images/{n}.png\n" for n in names))


def write_labelme(root: Path, shots: Mapping[str, Shot], splits: Splits) -> None:
    """A JSON file beside each picture; no splits."""
    assert not splits
    for name, shot in shots.items():
        photo(root / f"{name}.png", shot)
        height, width = shot.said
        flags = [(box, False) for box in shot.boxes] + ([(shot.flagged, True)] if shot.flagged else [])
        shapes = [
            {
                "label": label,
                "points": [[x1, y1], [x2, y2]],
                "shape_type": "rectangle",
                "flags": {"difficult": flag},
            }
            for (label, x1, y1, x2, y2), flag in flags
        ]
        content: dict[str, object] = {
            "version": "5",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{name}.png",
        }
        content |= {"imageHeight": height, "imageWidth": width}
        put(root / f"{name}.json", json.dumps(content, indent=2))


def write_csv(root: Path, shots: Mapping[str, Shot], splits: Splits) -> None:
    """One table with a column for the split."""
    split_of = {name: split for split, names in splits.items() for name in names}
    rows = ["path,xmin,ymin,xmax,ymax,class,difficult,width,height" + (",split" if splits else "")]
    for name, shot in shots.items():
        photo(root / "images" / f"{name}.png", shot)
        height, width = shot.said
        flags = [(box, 0) for box in shot.boxes] + ([(shot.flagged, 1)] if shot.flagged else [])
        ends = f",{width},{height}" + (f",{split_of[name]}" if splits else "")
        rows += [f"images/{name}.png,{b[1]},{b[2]},{b[3]},{b[4]},{b[0]},{flag}{ends}" for b, flag in flags]
        if not flags:
            rows.append(f"images/{name}.png,,,,,,{ends}")
    put(root / "boxes.csv", "\n".join(rows) + "\n")


def _below(folder: str, ending: str) -> Callable[[Path, str], Path]:
    return lambda root, name: root / folder / f"{name}{ending}"


def _always(file: str) -> Callable[[Path, str], Path]:
    return lambda root, name: root / file


FORMATS: dict[str, Format] = {
    "voc": Format(
        write_voc,
        _below("JPEGImages", ".png"),
        _below("Annotations", ".xml"),
        frozenset({"splits", "size", "flag", "beyond", "own file"}),
    ),
    "coco": Format(
        write_coco,
        _below("images", ".png"),
        _always("annotations/instances_all.json"),
        frozenset({"splits", "size", "flag", "beyond"}),
    ),
    "kitti": Format(
        write_kitti,
        _below("training/image_2", ".png"),
        _below("training/label_2", ".txt"),
        frozenset({"flag", "beyond", "own file"}),
    ),
    "pennfudan": Format(
        write_pennfudan,
        _below("PNGImages", ".png"),
        _below("Annotation", ".txt"),
        frozenset({"size", "beyond", "own file"}),
    ),
    "yolo": Format(
        write_yolo, _below("images", ".png"), _below("labels", ".txt"), frozenset({"splits", "own file"})
    ),
    "labelme": Format(
        write_labelme,
        _below("", ".png"),
        _below("", ".json"),
        frozenset({"size", "flag", "beyond", "own file"}),
    ),
    "csv": Format(
        write_csv,
        _below("images", ".png"),
        _always("boxes.csv"),
        frozenset({"splits", "size", "flag", "beyond"}),
    ),
}
