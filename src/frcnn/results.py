"""What is found in one picture, in the pixels and names of its owner."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from PIL import Image

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Result:
    """The detections of one picture, best first as the detector gives them.

    Attributes:
        boxes: (n, 4) float32, (x1, y1, x2, y2), half-open, pixels of the picture as it is shown.
        scores: (n,) float32.
        labels: (n,) int64, 0..K-1.
        classes: K names; a label is an index into them.
        path: the picture file, where there is one.
        size: (height, width) of the picture, where it is known.
        picture: a picture that was given in memory (not copied); None where ``path`` leads to it.
        upright: whether the boxes are on the picture with its EXIF orientation applied (``data.exif``).
        capped: whether there are as many detections as allowed (``max_dets``; of tiles: in one of them), so
            that more may have been left out.

    Raises:
        ValueError: when the shapes do not fit each other or a label is not one of the classes.
    """

    boxes: Floats
    scores: Floats
    labels: Ints
    classes: tuple[str, ...]
    path: Path | None = None
    size: tuple[int, int] | None = None
    picture: Image.Image | NDArray[np.uint8] | None = field(default=None, repr=False)
    upright: bool = True
    capped: bool = False

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32)
        boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
        scores, labels = np.asarray(self.scores, np.float32), np.asarray(self.labels, np.int64)
        if (
            boxes.ndim != 2
            or boxes.shape[1] != 4
            or scores.shape != (len(boxes),)
            or labels.shape != scores.shape
        ):
            shapes = f"boxes {boxes.shape}, scores {scores.shape}, labels {labels.shape}"
            raise ValueError(f"{shapes} do not belong together; (n, 4), (n,) and (n,) are expected")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
            bad = next(int(k) for k in labels if not 0 <= k < len(self.classes))
            raise ValueError(
                f"label {bad} is not one of the {len(self.classes)} classes (0 to {len(self.classes) - 1})"
            )
        for name, value in (("boxes", boxes), ("scores", scores), ("labels", labels)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "path", Path(self.path) if self.path is not None else None)

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.boxes)

    def __getitem__(self, index: ArrayLike | slice) -> Result:
        """The detections chosen by a mask (n,), positions, a slice or one position: ``r[r.scores > 0.5]``."""
        which: Any = index if isinstance(index, slice) else np.atleast_1d(np.asarray(index))
        if isinstance(which, np.ndarray) and which.size == 0 and which.dtype != np.bool_:
            which = which.astype(np.int64)
        return replace(self, boxes=self.boxes[which], scores=self.scores[which], labels=self.labels[which])

    @property
    def names(self) -> list[str]:
        """Class name of every detection."""
        return [self.classes[k] for k in self.labels]

    def plot(self, image: Image.Image | NDArray[np.uint8] | None = None) -> Image.Image:
        """The picture with boxes, names and scores drawn on a copy of it.

        Args:
            image: draw on this one instead (RGB, as large as the picture).

        Raises:
            ValueError: when there is neither a file nor a picture in memory.
        """
        from frcnn.data.pictures.image import read_image
        from frcnn.drawing import annotate

        shown = image if image is not None else self.picture
        if shown is None:
            if self.path is None:
                raise ValueError("this result knows no picture; give it: result.plot(image)")
            shown = read_image(self.path, upright=self.upright)[0]
        return annotate(shown, self.boxes, self.labels, self.classes, self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to JSON."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names, strict=True)
        return {
            "path": str(self.path) if self.path is not None else None,
            "height": self.size[0] if self.size else None,
            "width": self.size[1] if self.size else None,
            "detections": [{"box": b, "score": s, "label": k, "name": name} for b, s, k, name in rows],
        }

    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, Any]]:
        """COCO results: ``bbox`` is (x, y, width, height), ``category_id`` the label (0..K-1).

        Args:
            image_id: id of the picture; None: the file's name without its ending, as a number where it is one
                (``000000397133.jpg`` is 397133), or 0 for a picture without a file.
        """
        if image_id is None:
            stem = self.path.stem if self.path is not None else "0"
            image_id = int(stem) if stem.isascii() and stem.isdigit() else stem
        boxes = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        rows = zip(boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        return [{"image_id": image_id, "category_id": k, "bbox": b, "score": s} for b, s, k in rows]

    def to_supervision(self) -> Any:
        """A ``supervision.Detections`` with the class names under ``data["class_name"]``.

        Raises:
            ImportError: when the package supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError:
            raise ImportError(
                "to_supervision needs the package supervision: pip install supervision"
            ) from None
        return Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )
