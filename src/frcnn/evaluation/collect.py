"""Runs a network over batches and keeps what it finds as COCO results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from frcnn.data.feed.loader import Batch
from frcnn.evaluation.report import Counts
from frcnn.model.detector import Network, detect
from frcnn.model.postprocess import Limits
from frcnn.model.seams import Found, Tile, Window, merge_pieces, seam_iou
from frcnn.precision import Precision
from frcnn.structures import Detections

Progress = Callable[[int], None]
"""Called with the number of pictures done so far."""


@dataclass
class Collector:
    """Detections of many batches as COCO results.

    Attributes:
        results: one dictionary a detection.
        capped: pictures in which as many were found as may be.
        inexact: pictures in which the candidate limit before NMS may have cost a detection.
        images: pictures (or tiles) seen.
        iou: threshold of the NMS that merges tiles.
        unread: files that could not be read; a set in order. Nothing counts that is found in them.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    capped: int = 0
    inexact: int = 0
    images: int = 0
    iou: float = 0.5
    unread: dict[str, None] = field(default_factory=dict)
    _tiles: defaultdict[int, list[Tile]] = field(default_factory=lambda: defaultdict(list))

    def add(
        self,
        found: Detections,
        image_ids: Sequence[int],
        windows: Sequence[Window | None] = (),
        left_out: Sequence[int] = (),
    ) -> None:
        """Take the detections of one batch; boxes become (x, y, width, height), labels ``category_id``.

        Those of tiles (``windows`` says where each picture lies in its file) wait for ``finish``. Pictures at
        the positions ``left_out`` do not count.
        """
        counts = torch.ones(len(image_ids), dtype=torch.bool, device=found.valid.device)
        for i in left_out:
            counts[i] = False
        self.capped += int((found.valid.all(dim=1) & counts).sum())
        self.inexact += int((~found.exact & counts).sum())
        self.images += len(image_ids)
        for i, (boxes, scores, labels) in enumerate(found.per_image()):
            if i in left_out:
                continue
            window = windows[i] if windows else None
            if window is None:
                self._write(image_ids[i], boxes.float(), scores.float(), labels)
            else:
                part = Found(boxes.float().numpy(), scores.float().numpy(), labels.numpy())
                self._tiles[int(image_ids[i])].append(Tile(window, part))

    def finish(self) -> None:
        """Merge the tiles of every picture."""
        for image_id, tiles in self._tiles.items():
            boxes, scores, labels = merge_pieces(tiles, self.iou)
            self._write(image_id, *(torch.from_numpy(values) for values in (boxes, scores, labels)))
        self._tiles.clear()

    def _write(
        self, image_id: int, corners: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor
    ) -> None:
        sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).clamp(min=-1e9, max=1e9)
        rows = zip(sides.tolist(), scores.tolist(), labels.tolist(), strict=True)
        self.results += [
            {"image_id": int(image_id), "category_id": k, "bbox": box, "score": score}
            for box, score, k in rows
        ]

    @property
    def counts(self) -> Counts:
        """For the report."""
        return Counts(len(self.results), self.capped, self.inexact)


def collect_detections(
    model: Network,
    batches: Iterable[Batch],
    device: torch.device | str,
    precision: Precision | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Collector:
    """Run a model over batches.

    Args:
        model: in any mode; it is put into evaluation mode for the run and back after it.
        batches: of ``frcnn.data.feed.loader.eval_loader``.
        device: where the model is.
        precision: number format; None: as the surroundings have it.
        limits: other limits than the model's own for scores and the number of detections.
        progress: called after every batch.

    Returns:
        The detections and what the limits did. Where the candidate limit before NMS may have cost a
        detection, that batch was searched again without it, as ``predict`` does.
    """
    kind = torch.device(device).type
    collector, was_training = Collector(iou=seam_iou(model.config)), model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                with precision.autocast(kind) if precision is not None else nullcontext():
                    found = detect(model, batch.images.to(device, non_blocking=True), limits)
                collector.add(found, batch.image_ids, batch.windows, batch.unread)
                collector.unread |= dict.fromkeys(batch.skipped)
                if progress is not None:
                    progress(collector.images)
    finally:
        model.train(was_training)
    collector.finish()
    return collector
