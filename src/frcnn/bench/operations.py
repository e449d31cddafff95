"""The operators' section: times in turn, equality, and the memory of matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from frcnn.bench.memory import (
    NoFigureError,
    TooLargeError,
    available,
    cuda_peak,
    enough_memory,
    measure_in_child,
)
from frcnn.bench.operators import Pair, anchors_at, matching_call, nms_pairs, roi_align_pairs
from frcnn.bench.report import NOT_MEASURED, Row, Section, compare
from frcnn.bench.turns import take_turns
from frcnn.bench.workload import Side
from frcnn.doctor import first_line
from frcnn.ops.roi_align import Method

SIZE, MATCHING_SIZE = (800, 1066), (800, 1333)
ROIS, BOXES, OBJECTS = 1000, (4000, 4096), (500, 2000)
QUICK_SIZE, QUICK_ROIS, QUICK_BOXES, QUICK_OBJECTS = (128, 128), 20, (100, 100), (20,)
GPU_IMAGES, GPU_ROIS = 16, 512
SECONDS = 10.0
DENSE_BYTES = 34
"""torchvision's matching takes this much for every pair of an anchor and an object: four tables of two
numbers each live at the same time.
"""
FILL = 0.75
"""Share of the free memory that torchvision's matching may take."""
MATCHING_ROUNDS = 2
METHODS: dict[bool, tuple[Method, ...]] = {True: ("auto",), False: ("gather", "levels")}
"""Ways of RoIAlign that are measured on a CPU, and on other devices, where they are rivals."""
Say = Callable[[str], None]


def operators_section(
    device: torch.device, threads: int, rounds: int | None, quick: bool, say: Say
) -> Section:
    """Every operator beside torchvision's; one that the memory is too small for, or that the device lacks, is
    a note.
    """
    height, width = QUICK_SIZE if quick else SIZE
    channels = 16 if quick else 256
    section = Section(f"operators, {device}", [])
    counts = [(1, QUICK_ROIS if quick else ROIS)]
    if device.type == "cuda" and not quick:
        counts.append((GPU_IMAGES, GPU_ROIS))
    say("RoIAlign")
    for images, rois in counts:
        for method in METHODS[device.type == "cpu"]:
            way = "" if method == "auto" else f", {method}"
            with _noting(section, f"RoIAlign, {images} x {rois} RoIs{way}"):
                _add_all(
                    section,
                    roi_align_pairs(device, images, rois, height, width, channels, method),
                    device,
                    rounds,
                )
    say("NMS")
    with _noting(section, "NMS"):
        boxes, images = QUICK_BOXES if quick else BOXES, [several for several, _ in counts]
        _add_all(section, nms_pairs(device, height, width, boxes, images), device, rounds)
    say("matching")
    for objects in QUICK_OBJECTS if quick else OBJECTS:
        with _noting(section, f"matching, {objects} objects"):
            _matching(section, objects, device, threads, rounds or MATCHING_ROUNDS, quick)
    if device.type != "cuda":
        section.notes.append(f"RoIAlign at {GPU_IMAGES} x {GPU_ROIS} RoIs on a GPU: {NOT_MEASURED}")
        section.notes.append(f"NMS of {GPU_IMAGES} pictures at once on a GPU: {NOT_MEASURED}")
    return section


@contextmanager
def _noting(section: Section, what: str) -> Iterator[None]:
    """Go on where the memory ends or an operator is missing: what was measured before took minutes."""
    try:
        with enough_memory(what, "free some"):
            yield
    except TooLargeError as error:
        section.notes.append(f"{NOT_MEASURED}: {error}")
    except NotImplementedError as error:
        section.notes.append(f"{NOT_MEASURED}: {what}: {first_line(error)}")


def _add_all(section: Section, pairs: Sequence[Pair], device: torch.device, rounds: int | None) -> None:
    """Nothing of the pairs is held afterwards: their maps take gigabytes on a GPU."""
    for pair in pairs:
        _add(section, pair, device, rounds)


def _add(section: Section, pair: Pair, device: torch.device, rounds: int | None) -> None:
    names = {"ours": f"{pair.name}: frcnn", "theirs": f"{pair.name}: torchvision"}
    times = take_turns({names["ours"]: pair.ours, names["theirs"]: pair.theirs}, device, rounds, SECONDS)
    rows = [Row(name, times[name]) for name in names.values()]
    section.rows += rows
    section.ratios.append(compare(pair.name, *rows))
    section.facts.setdefault("largest_difference", {})[pair.name] = pair.difference


def _matching(
    section: Section, objects: int, device: torch.device, threads: int, rounds: int, quick: bool
) -> None:
    """Time and memory; torchvision's only where its table fits."""
    size = QUICK_SIZE if quick else MATCHING_SIZE
    name = f"matching, {objects} objects, {size[0]}x{size[1]}"
    need, free = anchors_at(size) * objects * DENSE_BYTES, available(device)
    fits = free is None or need < FILL * free
    sides: list[Side] = ["frcnn", "torchvision"] if fits else ["frcnn"]
    calls = {side: matching_call(side, objects, device, size) for side in sides}
    if fits:
        differ = (calls["frcnn"]() != calls["torchvision"]()).sum()  # type: ignore[union-attr]
        section.facts.setdefault("largest_difference", {})[name] = float(differ)
    else:
        section.notes.append(
            f"{name}: torchvision's {NOT_MEASURED}, it needs about {need / 1e9:.0f} GB of memory"
        )
    times = take_turns({f"{name}: {side}": calls[side] for side in sides}, device, rounds, SECONDS)
    rows = [Row(each, taken) for each, taken in times.items()]
    for side, row in zip(sides, rows, strict=True):
        row.memory = cuda_peak(calls[side], device, 1)
        if device.type == "cpu" and not quick:
            order: dict[str, Any] = {"matching": side, "objects": objects, "threads": threads}
            try:
                row.memory = measure_in_child(order)["bytes"]
            except NoFigureError as error:
                section.notes.append(f"peak memory of {row.name} {NOT_MEASURED}: {error}")
    section.rows += rows
    if len(rows) == 2:
        section.ratios.append(compare(name, *rows))
