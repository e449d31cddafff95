"""Objects that are too large for the tiles of a run: they are counted, and a class without others stops it.

Letters: K classes.
"""

from __future__ import annotations

import numpy as np

from frcnn.config import Config
from frcnn.data.feed.tiles import never_shown
from frcnn.data.sample import DataError, Dataset

STEP = 32
"""Sides of tiles that are advised are multiples of it."""


def tile_notes(pictures: Dataset, config: Config) -> list[str]:
    """How many objects of each class no tile shows enough of to learn from; nothing where there are none.

    Args:
        pictures: the training pictures, before they are cut.
        config: of the run.

    Raises:
        DataError: naming every class of which nothing is left to learn from.
    """
    lost = never_shown(pictures, config)
    if not lost.any():
        return []
    counts = np.bincount(pictures.objects.labels[lost], minlength=len(pictures.classes))  # (K,)
    boxes = pictures.objects.boxes[lost]
    longest = float((boxes[:, 2:] - boxes[:, :2]).max())
    spec, least = config.preprocess, config.data.min_visible
    why = f"no tile of {spec.tile} px shows {least:.0%} of"
    advice = f"use larger tiles, such as --tile {-(-int(np.ceil(longest)) // STEP) * STEP}"
    names = pictures.classes
    gone = [
        f'class "{names[k]}" ({counts[k]} objects)'
        for k in np.flatnonzero((counts > 0) & (counts == pictures.class_counts()))
    ]
    if gone:
        raise DataError(
            f"D08 {pictures.root}: {why} any object of {', '.join(gone)}, so nothing of it can be learnt; "
            f"{advice}, whole pictures (--tile 0), or a smaller data.min_visible"
        )
    by_class = ", ".join(f'{counts[k]} of "{names[k]}"' for k in np.flatnonzero(counts))
    return [f"{why} {int(lost.sum())} objects ({by_class}), so that nothing is learnt from them; {advice}"]
