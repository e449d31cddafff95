"""NMS on a GPU without a look from the host: two Triton kernels, imported only where they run.

Letters: B rows (images), k boxes a row, W = k / 32 words of a box.

The first kernel compares all pairs at once and stores one bit for each (k x W words: 2 MB a row at 4,096
boxes, never k x k numbers). The second, one program a row, walks the boxes best first, a word of 32 at a
time: it settles the word by itself, then removes what its survivors suppress among all later boxes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128
"""Boxes that a program compares with 32 others."""


def nms_mask_triton(
    boxes: Tensor, iou_threshold: float, groups: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """What ``nms_mask`` computes, for float32 boxes (B, k, 4) on a GPU; takes B k^2 / 8 bytes meanwhile."""
    rows, k = boxes.shape[:2]
    words = -(-k // 32)
    keep = torch.zeros(rows, k, dtype=torch.bool, device=boxes.device)
    if rows * k == 0:
        return keep
    boxes = boxes.contiguous()
    bits = torch.empty(rows, words * 32, words, dtype=torch.int32, device=boxes.device)
    groups_given = groups.contiguous() if groups is not None else boxes
    valid_given = valid.contiguous() if valid is not None else keep
    compare: Any = _compare[(rows, -(-words * 32 // BLOCK), words)]
    walk: Any = _walk[(rows,)]
    # kernels start on the current device, whatever their tensors are on; -1: no other one (the interpreter's)
    with torch.cuda.device(boxes.device if boxes.is_cuda else -1):
        compare(
            boxes,
            groups_given,
            bits,
            _below(iou_threshold),
            k,
            words,
            grouped=groups is not None,
            size=BLOCK,
            enable_fp_fusion=False,  # a fused multiply-add rounds differently from the CPU
        )
        width = triton.next_power_of_2(words)
        walk(bits, valid_given, keep, k, words, masked=valid is not None, width=width)
    return keep


def _below(threshold: float) -> float:
    """The largest float32 not above ``threshold``: a kernel's comparison with it is the exact one."""
    single = np.float32(threshold)
    # in double precision: beside a float32 numpy would round the threshold, too
    return float(single if float(single) <= threshold else np.nextafter(single, np.float32(-np.inf)))


@triton.jit
def _compare(
    boxes: tl.tensor,
    groups: tl.tensor,
    bits: tl.tensor,
    threshold: tl.tensor,
    k: int,
    words: int,
    grouped: tl.constexpr,
    size: tl.constexpr,
) -> None:
    """Bit t of word w of box i: whether i suppresses box 32 w + t, should both survive until then."""
    row, block, word = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    if (word + 1) * 32 > block * size:  # words before the block's first box are never asked for
        i = block * size + tl.arange(0, size)
        j = word * 32 + tl.arange(0, 32)
        first, second = boxes + (row * k + i) * 4, boxes + (row * k + j) * 4
        has_i, has_j = i < k, j < k
        ax1, ay1 = tl.load(first, has_i, 0.0)[:, None], tl.load(first + 1, has_i, 0.0)[:, None]
        ax2, ay2 = tl.load(first + 2, has_i, 0.0)[:, None], tl.load(first + 3, has_i, 0.0)[:, None]
        bx1, by1 = tl.load(second, has_j, 0.0)[None], tl.load(second + 1, has_j, 0.0)[None]
        bx2, by2 = tl.load(second + 2, has_j, 0.0)[None], tl.load(second + 3, has_j, 0.0)[None]
        across = tl.maximum(tl.minimum(ax2, bx2) - tl.maximum(ax1, bx1), 0.0)
        down = tl.maximum(tl.minimum(ay2, by2) - tl.maximum(ay1, by1), 0.0)
        shared = across * down
        union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
        over = (tl.div_rn(shared, union) > threshold) & (j[None] > i[:, None])  # 0 / 0 is not above
        over = over & has_i[:, None] & has_j[None]
        if grouped:
            mine = tl.load(groups + row * k + i, has_i, 0)[:, None]
            theirs = tl.load(groups + row * k + j, has_j, 0)[None]
            over = over & (mine == theirs)
        packed = tl.sum(over.to(tl.int32) << tl.arange(0, 32)[None], 1)
        tl.store(bits + (row * words * 32 + i) * words + word, packed, i < words * 32)


@triton.jit
def _either(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    return a | b


@triton.jit
def _walk(
    bits: tl.tensor,
    valid: tl.tensor,
    keep: tl.tensor,
    k: int,
    words: int,
    masked: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Greedy suppression of one row."""
    row = tl.program_id(0).to(tl.int64)
    lane, column = tl.arange(0, 32), tl.arange(0, width)
    removed = tl.zeros((width,), tl.int32)
    for word in range(words):
        i = word * 32 + lane
        alive_lanes = i < k
        if masked:
            alive_lanes = tl.load(valid + row * k + i, i < k, 0).to(tl.int32) != 0
            alive_lanes = alive_lanes & (i < k)
        alive = tl.sum(alive_lanes.to(tl.int32) << lane, 0)
        alive = alive & ~tl.sum(tl.where(column == word, removed, 0), 0)
        lines = bits + (row * words * 32 + i) * words
        own = tl.load(lines + word)  # what each of the 32 suppresses among the 32
        for t in range(32):
            line = tl.sum(tl.where(lane == t, own, 0), 0)
            alive = tl.where(((alive >> t) & 1) == 1, alive & ~line, alive)
        kept = (alive >> lane) & 1
        tl.store(keep + row * k + i, kept != 0, i < k)
        rest = (column[None] > word) & (column[None] < words) & (kept[:, None] == 1)
        tile = tl.load(lines[:, None] + column[None], rest, 0)
        removed = removed | tl.reduce(tile, 0, _either)
