"""The NMS kernels for GPUs against the plain reference: interpreted on the CPU, compiled, and on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from test_nms import sorted_boxes

from frcnn.ops import nms_mask, nms_mask_reference

pytest.importorskip("triton", reason="Triton is not installed")

INTERPRETED = """
import torch
from frcnn.ops import nms_mask_reference
from frcnn.ops.nms_triton import nms_mask_triton

generator = torch.Generator().manual_seed(0)
compared = 0
for rows, k in ((0, 5), (2, 0), (1, 1), (2, 32), (1, 33), (2, 70), (1, 140)):
    # small integers: many copies, overlaps of exactly the threshold, and boxes without area
    corner = torch.randint(0, 12, (rows, k, 2), generator=generator).float()
    boxes = torch.cat([corner, corner + torch.randint(0, 7, (rows, k, 2), generator=generator)], -1)
    groups = torch.randint(0, 3, (rows, k), generator=generator)
    valid = torch.rand(rows, k, generator=generator) > 0.2
    settings = [(0.5, None, None), (0.3, groups, None), (1 / 3, None, valid), (0.7, groups, valid)]
    for threshold, of, mask in settings[:: 1 if k < 64 else 3]:
        ours = nms_mask_triton(boxes, threshold, of, mask)
        assert ours.equal(nms_mask_reference(boxes, threshold, of, mask)), (rows, k, threshold)
        compared += ours.numel()
print(compared)
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from frcnn.ops import nms_triton

compare = dict(boxes="*fp32", groups="*i64", bits="*i32", threshold="fp32", k="i32", words="i32")
walk = dict(bits="*i32", valid="*i1", keep="*i1", k="i32", words="i32")
for kernel, arguments, constants in (
    (nms_triton._compare, compare, {"grouped": True, "size": nms_triton.BLOCK}),
    (nms_triton._walk, walk, {"masked": True, "width": 128}),
):
    source = ASTSource(kernel, arguments | dict.fromkeys(constants, "constexpr"), constants)
    built = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": False})
    print(len(built.asm["cubin"]), "fma" in built.asm["ptx"])
"""


def child(program: str, **environment: str) -> list[str]:
    """What the program prints; in a process of its own, as Triton decides at import whether to interpret."""
    arguments = [sys.executable, "-W", "ignore", "-c", program]
    env = os.environ | environment
    done = subprocess.run(arguments, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_kernels_equal_the_reference() -> None:
    assert int(child(INTERPRETED, TRITON_INTERPRET="1")[0]) > 500


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton brings its assembler for Linux")
def test_the_kernels_compile_without_a_gpu(tmp_path: object) -> None:
    size, fused, walk_size, _ = child(COMPILED, TRITON_CACHE_DIR=str(tmp_path))
    assert int(size) > 0 and int(walk_size) > 0
    assert fused == "False", "a fused multiply-add would round differently from the CPU"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("count", [1, 31, 300, 4096, 12000])
def test_equal_on_a_gpu_without_a_host_sync(count: int) -> None:
    boxes = sorted_boxes(3, count, spread=1000.0)
    groups = torch.arange(count).remainder(5).expand(3, -1)
    valid = torch.rand(3, count, generator=torch.Generator().manual_seed(0)) > 0.1
    expected = nms_mask(boxes, 0.5, groups, valid)
    on_gpu = [t.cuda() for t in (boxes, groups, valid)]
    nms_mask(on_gpu[0], 0.5, *on_gpu[1:])  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = nms_mask(on_gpu[0], 0.5, *on_gpu[1:])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.cpu().equal(expected)
    if count <= 300:
        assert found.cpu().equal(nms_mask_reference(boxes, 0.5, groups, valid))
