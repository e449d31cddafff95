"""The operators beside torchvision's: the same input, the same outcome."""

import pytest
import torch

from frcnn.bench import operations
from frcnn.bench.machine import require_operators
from frcnn.bench.memory import NoFigureError
from frcnn.bench.operations import operators_section
from frcnn.bench.operators import anchors_at, matching_call, nms_pairs, random_boxes, roi_align_pairs
from frcnn.ops.roi_align import Method

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [0, 1, 200])
def test_boxes_lie_in_the_picture(count: int) -> None:
    boxes = random_boxes((count,), 60, 100, torch.Generator().manual_seed(0))
    assert boxes.shape == (count, 4)
    assert (boxes[:, 2:] - boxes[:, :2] > 7.9).all()
    assert (boxes >= -1e-3).all() and (boxes[:, 2:] <= torch.tensor([100.001, 60.001])).all()


def test_both_sides_pool_the_same() -> None:
    forward, both = roi_align_pairs(CPU, 2, 10, 128, 160, 8)
    assert forward.difference < 1e-4 and both.difference < 1e-4
    assert forward.ours().shape == (2, 10, 8, 7, 7)  # type: ignore[attr-defined]
    assert forward.theirs().shape == (20, 8, 7, 7)  # type: ignore[attr-defined]


def test_both_sides_keep_the_same_boxes() -> None:
    pairs = nms_pairs(CPU, 128, 160, (300, 300), (1, 3))
    assert [pair.name for pair in pairs] == [
        f"NMS by {kind}, {several}300 boxes" for several in ("", "3 x ") for kind in ("level", "class")
    ]
    for pair, images in zip(pairs, (1, 1, 3, 3), strict=True):
        kept: list[torch.Tensor] = pair.theirs()  # type: ignore[assignment]
        assert pair.difference == 0 and len(kept) == images
        assert all(0 < len(index) < 300 for index in kept)


def test_both_sides_match_the_same_anchors() -> None:
    size = (128, 128)
    mine, other = (matching_call(side, 12, CPU, size)() for side in ("frcnn", "torchvision"))  # type: ignore[arg-type]
    assert mine.shape == (anchors_at(size),)  # type: ignore[attr-defined]
    assert torch.equal(mine, other)  # type: ignore[arg-type]
    assert set(mine.unique().tolist()) == {-1, 0, 1}  # type: ignore[attr-defined]


def test_torchvisions_matching_is_left_out_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "available", lambda _: 1000)
    section = operators_section(CPU, 0, 1, True, lambda _: None)
    assert any("torchvision's not measured, it needs about" in note for note in section.notes)
    assert not any(row.name.startswith("matching") and "torchvision" in row.name for row in section.rows)
    assert len(section.ratios) == 4


def test_operators_go_on_where_the_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(operations, "roi_align_pairs", fail)
    section = operators_section(CPU, 0, 1, True, lambda _: None)
    assert section.notes[0] == "not measured: RoIAlign, 1 x 20 RoIs: not enough memory; free some"
    assert {row.name.split()[0] for row in section.rows} == {"NMS", "matching,"}


def test_operators_go_on_where_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("Could not run 'torchvision::_roi_align_backward'\nwith more lines")

    monkeypatch.setattr(operations, "roi_align_pairs", fail)
    section = operators_section(CPU, 0, 1, True, lambda _: None)
    said = "not measured: RoIAlign, 1 x 20 RoIs: Could not run 'torchvision::_roi_align_backward'"
    assert section.notes[0] == said
    assert {row.name.split()[0] for row in section.rows} == {"NMS", "matching,"}


@pytest.mark.parametrize("method", operations.METHODS[False])
def test_the_ways_of_other_devices_pool_the_same(method: Method) -> None:
    for pair in roi_align_pairs(CPU, 2, 10, 128, 160, 8, method):
        assert pair.difference < 1e-4 and pair.name.endswith(f"128x160, {method}")


def test_a_matching_without_its_memory_keeps_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise NoFigureError("the process that measures it ran out of memory")

    monkeypatch.setattr(operations, "measure_in_child", fail)
    monkeypatch.setattr(operations, "OBJECTS", (20,))
    for name in ("SIZE", "MATCHING_SIZE", "ROIS", "BOXES"):
        monkeypatch.setattr(operations, name, getattr(operations, f"QUICK_{name.removeprefix('MATCHING_')}"))
    section = operators_section(CPU, 0, 1, False, lambda _: None)
    name = "matching, 20 objects, 128x128"
    assert [row.name for row in section.rows[-2:]] == [f"{name}: frcnn", f"{name}: torchvision"]
    assert section.notes[:2] == [
        f"peak memory of {name}: {side} not measured: the process that measures it ran out of memory"
        for side in ("frcnn", "torchvision")
    ]


def test_a_device_without_an_operator_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    require_operators(CPU)

    def missing(*_: object) -> None:
        raise NotImplementedError(
            "Could not run 'torchvision::nms' with arguments from the 'X' backend.\nmore"
        )

    monkeypatch.setattr("torchvision.ops.nms", missing)
    with pytest.raises(
        ValueError, match=r"torchvision's nms does not run on cpu .*; use --device cpu"
    ) as found:
        require_operators(CPU)
    assert "\n" not in str(found.value)
