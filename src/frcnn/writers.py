"""Predictions as files: annotated pictures, JSON, CSV, and labels in the formats of annotation tools.

Every file is written at once, so that a stopped run leaves no half file. Pictures of the same name from
different folders get different files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from frcnn.files import write_bytes, write_text
from frcnn.labels import (
    FORMATS,
    CocoTable,
    LabelFormat,
    Labelled,
    picture_file,
    voc_xml,
    yolo_text,
    yolo_yaml,
)
from frcnn.results import Result

CSV_COLUMNS = ("file", "label", "name", "score", "x1", "y1", "x2", "y2")


class ResultWriter:
    """Writes results one after another; a context manager, so that the tables are complete in the end.

    Below ``folder``: ``pictures/NAME.jpg`` (annotated), ``predictions.json``, ``predictions.csv``, and for
    ``save_as`` labels without scores, to be corrected by hand:

    * ``voc``: ``annotations/NAME.xml``, 1-based and inclusive: readers take 1 off xmin and ymin;
    * ``yolo``: ``labels/NAME.txt``, ``classes.txt``, ``data.yaml``;
    * ``coco``: ``annotations.json``, ids of pictures, boxes and classes from 1.

    NAME is the picture's path below ``root`` without its ending, so that labels lie as the pictures do.
    """

    def __init__(
        self,
        folder: str | Path,
        classes: tuple[str, ...],
        *,
        root: str | Path | None = None,
        pictures: bool = True,
        tables: bool = True,
        save_as: LabelFormat | None = None,
    ) -> None:
        """Choose what is written.

        Args:
            folder: made if it is not there.
            classes: names, in the order of labels.
            root: folder that all pictures lie below; None: names alone, with the folder's where they repeat.
            pictures: write annotated pictures.
            tables: write JSON and CSV.
            save_as: write labels in this format, too.

        Raises:
            ValueError: for an unknown format.
        """
        if save_as is not None and save_as not in FORMATS:
            raise ValueError(f"unknown label format {save_as!r}; choose one of {', '.join(FORMATS)}")
        self.folder, self.classes, self.save_as = Path(folder), tuple(classes), save_as
        self._pictures, self._tables = pictures, tables
        self._names = OutputNames(root)
        self._entries: list[dict[str, Any]] = []
        self._coco = CocoTable(self.classes)
        self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> ResultWriter:
        """The writer itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write what was collected, also after an error or Ctrl-C: what was done is not lost."""
        self.close()

    def add(self, result: Result) -> None:
        """Write one result.

        Raises:
            ValueError: when its classes are not the writer's, or labels need a size that is not known.
        """
        if result.classes != self.classes:
            raise ValueError(f"a result with the classes {result.classes}; this writer has {self.classes}")
        name = self._names.next(result.path)
        if self._pictures:
            self._write_picture(result, name)
        if self._tables:
            self._entries.append(result.to_dict())
        if self.save_as is None:
            return
        picture = labelled(result)
        if self.save_as == "voc":
            write_text(self.folder / "annotations" / f"{name}.xml", voc_xml(picture))
        elif self.save_as == "yolo":
            write_text(self.folder / "labels" / f"{name}.txt", yolo_text(picture))
        else:
            suffix = result.path.suffix if result.path is not None else ""
            self._coco.add(replace(picture, file=name + suffix))

    def close(self) -> None:
        """Write the files that hold all results."""
        if self._tables:
            data = {"classes": list(self.classes), "images": self._entries}
            write_text(self.folder / "predictions.json", json.dumps(data, indent=1, ensure_ascii=False))
            write_text(self.folder / "predictions.csv", _csv(self._entries))
        if self.save_as == "coco":
            write_text(self.folder / "annotations.json", self._coco.text())
        if self.save_as == "yolo":
            write_text(self.folder / "classes.txt", "".join(f"{name}\n" for name in self.classes))
            places = {"train": "images", "val": "images"}
            write_text(self.folder / "data.yaml", yolo_yaml(self.classes, places))

    def _write_picture(self, result: Result, name: str) -> None:
        target = self.folder / "pictures" / f"{name}.jpg"
        if result.path is not None and target.resolve() == result.path.resolve():
            raise ValueError(
                f"{target}: the annotated picture would replace its original; choose another folder"
            )
        write_picture(target, result.plot())


class OutputNames:
    """Different names for different pictures, also on file systems that do not tell A from a."""

    def __init__(self, root: str | Path | None = None) -> None:
        """Names below ``root`` keep their folders; elsewhere the name alone is used."""
        self._root = Path(root).resolve() if root is not None else None
        self._taken: set[str] = set()
        self._unnamed = 0

    def next(self, path: Path | None) -> str:
        """The name for the next picture, without an ending, "/" between folders."""
        for name in self._candidates(path):
            if name.casefold() not in self._taken:
                self._taken.add(name.casefold())
                return name
        raise AssertionError("numbers do not end")

    def _candidates(self, path: Path | None) -> Iterator[str]:
        if path is None:
            self._unnamed += 1
            base = f"picture_{self._unnamed}"
        else:
            whole = path.resolve()
            inside = self._root is not None and whole.is_relative_to(self._root)
            base = (
                whole.relative_to(self._root).with_suffix("").as_posix()
                if inside and self._root
                else path.stem
            )
            yield base
            if not inside:
                base = f"{whole.parent.name}_{path.stem}"
                yield base
            base = f"{base}_{path.suffix.lstrip('.').lower()}"
        yield base
        number = 2
        while True:
            yield f"{base}_{number}"
            number += 1


def write_picture(path: Path, image: Image.Image) -> None:
    """Write a picture at once, in the format of its ending."""
    buffer = io.BytesIO()
    kind = Image.registered_extensions()[path.suffix.lower()]
    image.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}))
    write_bytes(path, buffer.getvalue())


def labelled(result: Result) -> Labelled:
    """What label files hold of a result.

    Raises:
        ValueError: when the size of its picture is not known.
    """
    file, folder = picture_file(result.path)
    return Labelled(result.boxes, result.labels, result.classes, _size(result), file, folder)


def _csv(entries: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for entry in entries:
        for found in entry["detections"]:
            corners = (f"{value:.2f}" for value in found["box"])
            writer.writerow([entry["path"], found["label"], found["name"], f"{found['score']:.4f}", *corners])
    return out.getvalue()


def _size(result: Result) -> tuple[int, int]:
    """(height, width), read from the file's header where the result does not say."""
    if result.size is not None:
        return result.size
    if result.path is not None:
        from frcnn.data.pictures.image import image_size

        return image_size(result.path, result.upright)
    raise ValueError("labels need the size of the picture, and this result has neither a size nor a file")
