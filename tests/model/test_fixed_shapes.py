"""No Python loop over images and no host copy: the whole path as one graph, of one size for all batch sizes.

``fullgraph`` alone would unroll a loop over images, so the number of nodes is compared for 1 and 4 pictures.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from small import batch_of, build, small, targets_of

import frcnn
from frcnn.model.detector import FasterRCNN
from frcnn.structures import Trace

SIZE = (64, 96)


@cache
def detector(name: str) -> FasterRCNN:
    return build(small(name))


def run(name: str, images: int, train: bool, stages: Callable[..., Trace] | None = None) -> Trace:
    """Losses and detections (``train``), or detections only."""
    model = detector(name)
    batch = batch_of(model.config, [SIZE] * images)
    anchors = model.anchors(*SIZE)
    stages = stages or model.stages
    if not train:
        with torch.no_grad():
            return stages(batch, anchors)
    objects = [[((4.0, 4, 50, 40), 0), ((40.0, 20, 90, 60), 2)][: i % 3] for i in range(images)]
    targets = targets_of(objects)
    return stages(batch, anchors, targets, model.draw_noise(batch, targets, 0), True)


def compiled(name: str, images: int, train: bool) -> tuple[Trace, int]:
    """The stages as one graph run by plain PyTorch, and its number of nodes, also in inner graphs."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Any]) -> Callable[..., Any]:
        inner = [m for m in graph.modules() if isinstance(m, torch.fx.GraphModule)]
        graphs.append(sum(len(m.graph.nodes) for m in inner))
        return graph.forward

    torch._dynamo.reset()
    stages = torch.compile(detector(name).stages, fullgraph=True, backend=backend, dynamic=False)
    trace = run(name, images, train, stages)
    assert len(graphs) == 1, "one graph"
    return trace, graphs[0]


@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("lite0-fpn", True),
        ("vgg16", True),
        ("vgg16", False),
        pytest.param("lite0-fpn", False, marks=pytest.mark.slow),
    ],
)
def test_one_graph_of_one_size_for_one_and_four_pictures(name: str, train: bool) -> None:
    plain = run(name, 4, train)
    _, nodes_of_one = compiled(name, 1, train)
    trace, nodes_of_four = compiled(name, 4, train)
    assert nodes_of_one == nodes_of_four > 100
    if train:
        assert trace.losses is not None and plain.losses is not None
        torch.testing.assert_close(trace.losses.total, plain.losses.total)
    assert trace.detections is not None and plain.detections is not None
    torch.testing.assert_close(trace.detections.boxes, plain.detections.boxes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r50-fpn", "r50-fpn-v2"])
@pytest.mark.parametrize("train", [True, False])
def test_one_graph_of_one_size_for_torchvisions_recipes(name: str, train: bool) -> None:
    assert compiled(name, 1, train)[1] == compiled(name, 4, train)[1]


def shapes(record: Any) -> Any:
    if isinstance(record, torch.Tensor):
        return tuple(record.shape)
    if isinstance(record, tuple):
        return [shapes(v) for v in record]
    return {k: shapes(v) for k, v in vars(record).items()} if hasattr(record, "__dict__") else record


@pytest.mark.parametrize("name", ["lite0-fpn", "vgg16"])
@pytest.mark.parametrize("train", [True, False])
def test_shapes_do_not_depend_on_what_the_pictures_show(name: str, train: bool) -> None:
    model = detector(name)
    seen = []
    for seed, objects in ((0, []), (1, [((8.0, 8, 56, 56), 1)] * 8)):
        batch = batch_of(model.config, [SIZE, (40, 70)] if seed else [SIZE, SIZE], seed)
        targets = targets_of([objects, []])
        with torch.no_grad():
            extra = (targets, model.draw_noise(batch, targets, seed)) if train else ()
            seen.append(shapes(model.trace(batch, *extra)))
    assert seen[0] == seen[1]


HOST_COPIES = {"item", "cpu", "tolist", "numpy", "nonzero", "argwhere", "masked_select", "unique"}
DEVICE_COPIES = {"tensor", "new_tensor", "as_tensor", "from_numpy"}  # of the host's numbers, in every step
PER_IMAGE = {"n", "images", "batch", "proposals", "detections", "rois", "boxes", "scores", "targets"}
ALLOWED = {
    # inside the operator
    "ops/nms.py": {"_nms_mask", "_greedy", "_survivors", "nms_mask_reference", "_pair_iou"},
    "ops/roi_align.py": {"pyramid_roi_align_reference", "_bilinear"},
    "ops/roi_align_bags.py": {"_by_level"},  # inside the operator of the CPU
    "ops/roi_pool.py": {"roi_pool_reference"},
    "model/anchors.py": {"cell_anchors"},  # cached for each padded size
    "model/buckets.py": {"padded_sizes"},  # on the host, before the run
    "model/network.py": {"detect"},  # after the graph: whether the candidate limit cost anything
    # on the host, before the step; to_uint8 for people
    "model/preprocess.py": {"pad_batch", "resize_image", "to_uint8"},
    "model/sparse.py": {"cells_of"},  # backwards, on the CPU only
    "model/seams.py": {"_neighbours", "_suppressed"},  # on the host, after prediction
    "model/winograd.py": {"_matrices"},  # on import
}


def offences(path: Path, allowed: set[str]) -> list[str]:
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef) and node.name in allowed:
            return
        iterators = [node.iter] if isinstance(node, ast.For | ast.comprehension) else []
        for iterator in iterators:
            words = {n.id for n in ast.walk(iterator) if isinstance(n, ast.Name)}
            shape = "shape[0]" in ast.unparse(iterator)
            if words & PER_IMAGE or shape:
                found.append(f"{path.name}:{iterator.lineno} loop over {ast.unparse(iterator)}")
        called = node.func if isinstance(node, ast.Call) else None
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        asks = name == "bool" and isinstance(called, ast.Name)  # x.bool() is a dtype, bool(x) an answer
        if asks or name in HOST_COPIES | DEVICE_COPIES:
            found.append(f"{path.name}:{node.lineno} {name}()")  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def test_the_source_has_no_loop_over_images_and_no_host_copy() -> None:
    root = Path(frcnn.__file__).parent
    files = [p for folder in ("model", "ops") for p in sorted((root / folder).glob("*.py"))]
    assert len(files) > 14
    rest = [o for p in files for o in offences(p, ALLOWED.get(p.relative_to(root).as_posix(), set()))]
    assert rest == []


def test_the_search_finds_what_it_forbids(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "def f(x, boxes):\n    for b in boxes:\n        x.item()\n    [i for i in range(x.shape[0])]\n"
        "    if bool(x.all()):\n        return x * torch.tensor([1, 2])\n"
    )
    assert len(offences(bad, set())) == 5
    assert offences(bad, {"f"}) == []
