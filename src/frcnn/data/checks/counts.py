"""Check for objects that nobody labelled: pictures with far fewer (or more) objects than the others.

Letters: n pictures, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator

import numpy as np
from numpy.typing import NDArray

from frcnn.data.findings import Finding, Severity
from frcnn.data.sample import Bools, Dataset, Floats, Ints

FEWEST_PICTURES = 20
USUAL_SHARE, USUAL_COUNT = 0.9, 4
"""A class is expected everywhere when so many of the pictures show it, so many times in the middle."""
FAR = 3.5
"""Deviations from the middle, of square roots, beyond which a count is far off; more of them where there are
so many counts that one as far off comes by chance."""
LEAST_DEVIATION = 0.25
"""Of square roots; the counts of a Poisson distribution have 0.5."""


def check_counts(dataset: Dataset, broken: Container[str] = ()) -> Iterator[Finding]:
    """D23: where nearly all pictures show a class many times, those that do not, or with a count far off.

    Square roots of counts vary alike whether there are few or many. Middle and deviation are medians, so
    that the odd pictures do not hide themselves.

    Args:
        dataset: that is checked.
        broken: annotation files that could not be read: a picture of theirs may have objects.
    """
    counts = class_counts(dataset)
    named = np.zeros(len(dataset), bool)
    for i in np.flatnonzero(dataset.background()):
        named[i] = str(dataset.annotation_path(int(i)) or "") in broken
    for k, name in enumerate(dataset.classes):
        yield from _odd_pictures(dataset, counts[:, k], f'"{name}"', named)
    if len(dataset.classes) > 1:
        yield from _odd_pictures(dataset, counts.sum(1), "objects", named)


def class_counts(dataset: Dataset) -> Ints:
    """(n, K) int64: boxes of every picture and class, ignored ones left out."""
    real = ~dataset.objects.ignore
    shape = (len(dataset), len(dataset.classes))
    flat = dataset.objects.owners()[real] * shape[1] + dataset.objects.labels[real]
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)


def _odd_pictures(dataset: Dataset, counts: Ints, what: str, named: Bools) -> Iterator[Finding]:
    """The pictures whose count (n,) is odd; ``named`` (n,) says which have been named, and is changed."""
    shows = counts > 0
    if len(counts) < FEWEST_PICTURES or shows.mean() < USUAL_SHARE:
        return
    middle = float(np.median(counts[shows]))
    if middle < USUAL_COUNT:
        return
    far, empty = _deviations(counts, shows), dataset.background()
    share = f"{100 * shows.mean():.1f}".removesuffix(".0")
    limit = max(FAR, math.sqrt(2 * math.log(len(counts) * len(dataset.classes))))
    for i in np.flatnonzero((~shows | (np.abs(far) > limit)) & ~named):
        usual = f"{share} % of the pictures show {what}, {middle:g} at the median"
        severity: Severity = "note"
        if not shows[i]:
            nothing = "objects" if empty[i] else what
            severity, message = "warn", f"has no {nothing}; {usual}"
            action = "look whether they were forgotten: what is not labelled is learnt as background"
        elif far[i] < 0:
            message = f"has {counts[i]} {what}; {usual}"
            action = "far fewer than usual: look whether all are labelled"
        else:
            message = f"has {counts[i]} {what}; {usual}"
            action = "far more than usual: look whether some are labelled twice"
        named[i] = True
        yield Finding("D23", severity, message, str(dataset.picture_path(int(i))), 0, action)


def _deviations(counts: Ints, shows: Bools) -> Floats:
    """(n,) deviations of the square roots of counts (n,) from the middle of those that are not 0."""
    roots: NDArray[np.float64] = np.sqrt(counts)
    middle = np.median(roots[shows])
    spread = 1.4826 * np.median(np.abs(roots[shows] - middle))
    return ((roots - middle) / max(float(spread), LEAST_DEVIATION)).astype(np.float32)
