"""What validation during training says: the loss and the detections of one pass, judged by the
COCO protocol, or by average recall where there are proposals alone.

Letters: N pictures, D detections, P losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frcnn.config import Config
from frcnn.data.feed.loader import Batch
from frcnn.data.feed.tiles import picture_limit
from frcnn.data.sample import Dataset
from frcnn.evaluation.protocols import RECALL, choose_protocol
from frcnn.evaluation.report import Counts, Report, measure
from frcnn.evaluation.run import default_limits, ground_truth
from frcnn.model.seams import Found, Tile, merge_pieces, seam_iou
from frcnn.structures import Output

COLUMNS = 11
"""Of a row of detections: picture id, label, score, x1, y1, x2, y2, and where its tile lies (zeros: a whole
picture); float64, which holds every id exactly."""
PRECISIONS = ("AP", "AP50")
RECALLS = ("AR100", "AR300", "AR1000")
EXTRA_SUMS = 3
"""After the losses times pictures: pictures, pictures at the detection limit, pictures cut before NMS."""


def validation_config(config: Config) -> Config:
    """The configuration under which validation detects: limits as ``frcnn eval`` sets them."""
    floor, most = default_limits(config, choose_protocol(config.detector))
    limited = config.with_limits(most, floor)
    if config.detector != "rpn" or config.proposals.post_nms_scope == "level":
        return limited
    counts = {n: max(getattr(config.proposals, n), most) for n in ("pre_nms_test", "post_nms_test")}
    return limited.model_copy(update={"proposals": config.proposals.model_copy(update=counts)})


@dataclass(frozen=True)
class Validation:
    """One validation.

    Attributes:
        losses: mean losses by name and ``total``.
        report: metrics, class table and thresholds.
    """

    losses: dict[str, float]
    report: Report

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics that stand in ``metrics.csv``; the first one says which weights are best."""
        return RECALLS if self.report.protocol == RECALL else PRECISIONS

    @property
    def value(self) -> float:
        """That metric; 0 where the pictures hold no object, so that any weights count as equally good."""
        return self.report.metrics.get(self.shown[0]) or 0.0


class Collector:
    """Gathers a validation pass on the device; the host reads it once, at the end.

    Attributes:
        unread: files of the pictures that could not be read; a set in order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """``names``: of the losses."""
        self._names = tuple(names)
        self._ids: list[Tensor] = []  # stay on the host: a copy for each batch would wait for the device
        self._rows: list[Tensor] = []
        self._valid: list[Tensor] = []
        self._losses: list[Tensor] = []
        self.unread: dict[str, None] = {}

    def add(self, batch: Batch, output: Output) -> None:
        """Take the losses and detections of a batch of N pictures."""
        found, losses = output.detections, output.losses
        assert found is not None and losses is not None
        home = summed_on(found.scores.device)
        found, losses = found.to(home), losses.to(home)
        windows = batch.windows or (None,) * len(batch)
        known = [(i, *(w or (0, 0, 0, 0))) for i, w in zip(batch.image_ids, windows, strict=True)]
        places = torch.tensor(known, dtype=torch.float64)  # (N, 5)
        self._ids.append(places.repeat_interleave(found.scores.shape[1], 0))  # (N * D, 5)
        columns = [found.labels.double(), found.scores.double(), *found.boxes.double().unbind(-1)]
        self._rows.append(torch.stack(columns, -1).flatten(0, 1))  # (N * D, 6)
        self._valid.append(found.valid.flatten())
        full, inexact = found.valid.all(1), ~found.exact
        if batch.skipped:  # black pictures have no losses and reach no limits
            self.unread |= dict.fromkeys(batch.skipped)
            read = torch.ones_like(full)
            read[list(batch.unread)] = False
            full, inexact = full & read, inexact & read
        count = len(batch) - len(batch.unread)
        values = [part.double() * count for part in losses.parts()]
        limits = [full.sum().double(), inexact.sum().double()]
        self._losses.append(torch.stack([*values, values[0].new_full((), count), *limits]))  # (P + 3,)

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """This rank's detections (n, 11) and sums (P + 3,), float64; the collector is empty afterwards."""
        device = summed_on(device)
        rows = torch.zeros(0, COLUMNS, dtype=torch.float64, device=device)
        sums = torch.zeros(len(self._names) + EXTRA_SUMS, dtype=torch.float64, device=device)
        if self._rows:
            known = torch.cat(self._ids).to(device)
            parts = [known[:, :1], torch.cat(self._rows), known[:, 1:]]
            rows = torch.cat(parts, 1)[torch.cat(self._valid)]
            sums = torch.stack(self._losses).sum(0)
        for kept in (self._ids, self._rows, self._valid, self._losses):
            kept.clear()
        return rows, sums


def summed_on(device: torch.device) -> torch.device:
    """Where float64 numbers from a device are kept: there, or on the host where it has none (MPS)."""
    return torch.device("cpu") if device.type == "mps" else device


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks, by tensors alone: nothing is pickled on the way."""
    world = torch.distributed.get_world_size()
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world)]
    torch.distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    most = int(max(counts))
    padded = torch.cat([rows, rows.new_zeros(most - len(rows), COLUMNS)])
    parts = [torch.empty_like(padded) for _ in range(world)]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def merged(rows: Tensor, iou: float) -> Tensor:
    """Detections of pictures (n, 7) from those of pictures and tiles (n, 11)."""
    whole = rows[:, -1] == 0  # x2 of the tile
    parts = [rows[whole][:, :7]]
    cut = rows[~whole].cpu().numpy()
    for image_id in np.unique(cut[:, 0]):
        mine = cut[cut[:, 0] == image_id]
        windows, which = np.unique(mine[:, 7:].astype(np.int64), axis=0, return_inverse=True)
        tiles = []
        for t, (x1, y1, x2, y2) in enumerate(windows.tolist()):
            _, labels, scores, *boxes = mine[which == t, :7].T
            found = Found(np.stack(boxes, 1).astype(np.float32), scores, labels.astype(np.int64))
            tiles.append(Tile((x1, y1, x2, y2), found))
        boxes, scores, labels = merge_pieces(tiles, iou)
        columns = [np.full(len(scores), image_id), labels, scores, *boxes.T]
        parts.append(torch.from_numpy(np.stack(columns, 1).astype(np.float64)).to(rows.device))
    return torch.cat(parts)


def judge(
    rows: Tensor,
    sums: Tensor,
    dataset: Dataset,
    config: Config,
    names: Sequence[str],
    trained: Sequence[str] | None = None,
) -> Validation:
    """Mean losses and the report over ``dataset``.

    Args:
        rows: detections (n, 11) in original pixels of the picture or tile; those of pictures that are not in
            ``dataset`` do not count.
        sums: (P + 3,) as ``Collector.tensors`` gives them.
        dataset: the pictures.
        config: of the run.
        names: of the P losses.
        trained: those of them that make the total; None: all.
    """
    values: list[float] = sums.tolist()
    losses = {name: value / max(values[len(names)], 1) for name, value in zip(names, values, strict=False)}
    known = set(dataset.pictures.ids.tolist())
    results: list[dict[str, Any]] = [
        {"image_id": int(i), "category_id": int(k), "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for i, k, score, x1, y1, x2, y2 in merged(rows, seam_iou(config)).tolist()
        if int(i) in known
    ]
    protocol = choose_protocol(config.detector)
    floor, most = default_limits(config, protocol)
    most = picture_limit(dataset, config, most)
    report = measure(
        ground_truth(dataset),
        results,
        most,
        floor,
        protocol,
        counts=Counts(capped_images=int(values[-2]), inexact_images=int(values[-1])),
    )
    total = sum(losses[name] for name in (names if trained is None else trained))
    return Validation(losses | {"total": total}, report)
