"""Room 9 (training): a fixed number of anchors and RoIs, and targets only for what was sampled.

Letters: N images, A anchors or RoIs, G padded objects, P proposals, S sampled anchors, R sampled RoIs, K
classes.
Papers: Faster R-CNN, section 3.1.3 (256 anchors, half positive); Fast R-CNN, section 2.3 (a quarter
positive).

Sampling without replacement is a top-k on random keys, so every image has the same count and a mask for what
is
missing: no ``nonzero``, no loop over images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.boxes import clip, encode_deltas
from frcnn.config import RoiConfig
from frcnn.model.coding import encode_targets
from frcnn.structures import Matches, Proposals, RoiSamples, Samples, Targets


@torch.no_grad()
def sample(labels: Tensor, noise: Tensor, count: int, positives: int) -> Samples:
    """Draw up to ``positives`` positives and fill up with negatives.

    Args:
        labels: (N, A) in {1, 0, -1}.
        noise: (N, A) uniform in [0, 1); decides who is drawn.
        count: S, entries of every image.
        positives: largest number of positives.

    Returns:
        (N, S) samples, valid ones first, positives before negatives. Entries that are not valid repeat a
        valid one where the image has any, so that a head with batch norm sees no foreign values.
    """
    a = labels.shape[1]
    count = min(count, a)
    positive_key, positive = torch.where(labels == 1, noise, -1.0).topk(min(positives, count), dim=1)
    negative_key, negative = torch.where(labels == 0, noise, -1.0).topk(count, dim=1)
    is_positive = positive_key >= 0
    index = torch.cat([positive, negative], 1)
    valid = torch.cat([is_positive, negative_key >= 0], 1)
    order = (~valid).byte().sort(dim=1, stable=True).indices[:, :count]
    valid = valid.gather(1, order)
    foreground = torch.nn.functional.pad(is_positive, (0, count)).gather(1, order)
    index = index.gather(1, order)
    return Samples(torch.where(valid, index, index[:, :1]), foreground, valid)


@torch.no_grad()
def sample_batch(labels: Tensor, noise: Tensor, count: int, positives: int) -> Samples:
    """Draw ``count`` times N from all images together, so that an image with few positives leaves room.

    Arguments as those of ``sample``; S is min(N ``count``, A), because one image may hold all that is drawn.
    """
    n, a = labels.shape
    chosen = sample(labels.reshape(1, -1), noise.reshape(1, -1), n * count, n * positives)
    times = noise.new_zeros(n * a).index_add_(0, chosen.index[0], chosen.valid[0].to(noise.dtype))
    kept = torch.where((times > 0).view(n, a), labels, -1)
    return sample(kept, noise, n * count, n * positives)


@torch.no_grad()
def rpn_targets(
    anchors: Tensor,
    matches: Matches,
    samples: Samples,
    targets: Targets,
    weights: tuple[float, float, float, float],
) -> Tensor:
    """Deltas from the sampled anchors to their objects -> (N, S, 4); 0 where not foreground."""
    gt_index = matches.index.gather(1, samples.index)
    boxes = _gather_boxes(targets.boxes, gt_index)
    deltas = encode_deltas(anchors[samples.index], boxes, weights)
    return torch.where(samples.foreground[..., None], deltas, 0.0)


@torch.no_grad()
def with_objects(proposals: Proposals, targets: Targets, boxes: Tensor | None = None) -> Proposals:
    """Proposals (N, P) and after them the real objects -> (N, P + G): early on nothing else would be
    positive.

    ``boxes`` (N, G, 4): copies of the objects that join in their place, for example jittered ones.
    """
    real = targets.real
    return Proposals(
        torch.cat([proposals.boxes, targets.boxes if boxes is None else boxes], 1),
        torch.cat([proposals.scores, real.float()], 1),
        torch.cat([proposals.level, torch.zeros_like(targets.labels)], 1),
        torch.cat([proposals.valid, real], 1),
    )


@torch.no_grad()
def jittered(boxes: Tensor, noise: Tensor, amount: float, sizes: Tensor) -> Tensor:
    """Boxes (N, G, 4) with every side moved by up to ``amount`` of the box's width or height.

    An exact copy of an object would have a box loss of 0 (reference system S1).

    Args:
        boxes: (N, G, 4).
        noise: (N, G, 4) uniform in [0, 1).
        amount: largest share.
        sizes: (N, 2) true picture sizes; the result lies inside.
    """
    sides = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)  # (N, G, 4): width, height, width, height
    return clip(boxes + (2 * noise - 1) * amount * sides, sizes)


@torch.no_grad()
def roi_samples(
    proposals: Proposals,
    matches: Matches,
    samples: Samples,
    targets: Targets,
    config: RoiConfig,
    background: int,
) -> RoiSamples:
    """RoIs and their targets from what was sampled.

    Args:
        proposals: (N, P) candidates.
        matches: (N, P) their labels and objects.
        samples: (N, R) which were drawn.
        targets: (N, G) objects.
        config: the deltas' weights.
        background: K, the label of background inside the heads.
    """
    boxes = _gather_boxes(proposals.boxes, samples.index)  # (N, R, 4)
    gt_index = matches.index.gather(1, samples.index)
    gt_labels = _pad_objects(targets.labels, -1).gather(1, gt_index)
    labels = torch.where(samples.foreground, gt_labels, background)
    labels = torch.where(samples.valid, labels, -1)
    deltas = encode_targets(boxes, _gather_boxes(targets.boxes, gt_index), config)
    deltas = torch.where(samples.foreground[..., None], deltas, 0.0)
    image = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand(samples.index.shape)
    return RoiSamples(boxes, image, labels, gt_index, deltas, samples.foreground, samples.valid)


def _pad_objects(values: Tensor, fill: float) -> Tensor:
    """One more object, so that index 0 exists in a batch without objects."""
    pad = values.new_full((values.shape[0], 1, *values.shape[2:]), fill)
    return torch.cat([values, pad], 1)


def _gather_boxes(boxes: Tensor, index: Tensor) -> Tensor:
    return _pad_objects(boxes, 0).gather(1, index[..., None].expand(-1, -1, 4))
