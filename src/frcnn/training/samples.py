"""Pictures in the run folder: what the network really sees in training, and what it finds in validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from frcnn.config import PreprocessConfig
from frcnn.data.feed.loader import Batch
from frcnn.data.pictures.image import read_image
from frcnn.drawing import annotate
from frcnn.model.preprocess import to_uint8
from frcnn.structures import Detections

TRAIN_PICTURES = 8
VAL_PICTURES = 8


def save_training_batch(
    folder: Path, batch: Batch, classes: Sequence[str], spec: PreprocessConfig, start: int
) -> int:
    """Draw the objects of a training batch onto its pictures, ``train-00.jpg`` and so on.

    Args:
        folder: made where it is missing.
        batch: on any device.
        classes: names of the labels.
        spec: how the pixels were made.
        start: number of the first picture; those from ``TRAIN_PICTURES`` on are left out.

    Returns:
        The number of the next picture.
    """
    folder.mkdir(exist_ok=True)
    targets = batch.targets
    for i in range(min(len(batch), TRAIN_PICTURES - start)):
        shown = targets.real[i] | targets.ignore[i]
        boxes, labels = targets.boxes[i][shown].cpu().numpy(), targets.labels[i][shown].cpu().numpy()
        ignore = targets.ignore[i][shown].cpu().numpy()
        picture = annotate(to_uint8(batch.images, i, spec), boxes, labels, classes, ignore=ignore)
        picture.save(folder / f"train-{start + i:02d}.jpg", quality=90)
    return start + len(batch)


def save_validation_batch(
    folder: Path,
    batch: Batch,
    found: Detections,
    classes: Sequence[str],
    score: float,
    start: int,
    upright: bool,
) -> int:
    """Draw detections of at least ``score`` onto the validation pictures, ``val-00.jpg`` and so on.

    ``upright`` says whether their EXIF orientation is applied.

    Returns:
        The number of the next picture.
    """
    folder.mkdir(exist_ok=True)
    for i, (boxes, scores, labels) in enumerate(found.per_image()[: max(VAL_PICTURES - start, 0)]):
        if i in batch.unread:
            continue
        keep = scores >= score
        image = read_image(Path(batch.paths[i]), upright=upright)[0]
        window = batch.windows[i]
        image = image if window is None else image.crop(window)
        picture = annotate(
            image, boxes[keep].numpy(), labels[keep].numpy(), classes, scores[keep].float().numpy()
        )
        picture.save(folder / f"val-{start + i:02d}.jpg", quality=90)
    return start + len(batch)
