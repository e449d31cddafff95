"""Peak memory, and refusing what does not fit."""

import subprocess

import pytest
import torch

from frcnn.bench import memory
from frcnn.bench import run as bench
from frcnn.bench.memory import (
    TooLargeError,
    available,
    cuda_peak,
    enough_memory,
    is_out_of_memory,
    measure_in_child,
    require_memory,
    resident_growth,
)
from frcnn.bench.report import Section
from frcnn.bench.workload import Workload

CPU = torch.device("cpu")
MB = 1_000_000


def test_growth_is_the_peak_and_not_the_end() -> None:
    if resident_growth(lambda: None) is None:
        pytest.skip("this system does not tell a process its peak memory")
    nothing = resident_growth(lambda: None)
    much = resident_growth(lambda: torch.ones(25 * MB).sum())  # 100 MB, freed at once
    assert nothing is not None and much is not None
    assert nothing < 20 * MB
    assert 90 * MB < much < 160 * MB


def test_a_cpu_has_no_cuda_peak() -> None:
    assert cuda_peak(lambda: None, CPU) is None


def test_free_memory_is_known_or_not() -> None:
    free = available(CPU)
    assert free is None or free > MB
    assert available(torch.device("meta")) is None


def test_a_small_workload_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda _: None)
    require_memory(Workload("infer", "r50", 100_000, 100_000, 1))  # nothing is known: try
    monkeypatch.setattr(memory, "available", lambda _: 8_000 * MB)
    require_memory(Workload("infer", "r50", 64, 64, 1))


def test_a_large_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 8_000 * MB)
    with pytest.raises(
        ValueError, match=r"20000x20000.* GB of memory, 8.0 GB are free; use a smaller --size"
    ):
        require_memory(Workload("infer", "r50", 20_000, 20_000, 1))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("out of memory"), False),
        (RuntimeError("size mismatch"), False),
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
    ],
)
def test_failed_allocations(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
    with pytest.raises(Exception) as found, enough_memory("a step"):
        raise error
    assert (found.value is error) != expected
    assert ("a step: not enough memory; use a smaller --size or --batch" == str(found.value)) == expected


def test_a_real_allocation_that_fails() -> None:
    with pytest.raises(ValueError, match="a step: not enough memory"), enough_memory("a step"):
        torch.empty(2**58, dtype=torch.uint8)


class Done:
    """What ``subprocess.run`` returns."""

    def __init__(self, code: int, out: str = "", error: str = "") -> None:
        self.returncode, self.stdout, self.stderr = code, out, error


@pytest.mark.parametrize(
    ("done", "kind", "said"),
    [
        (Done(-9), ValueError, "ran out of it"),
        (
            Done(1, error="Traceback\nRuntimeError: DefaultCPUAllocator: can't allocate memory"),
            ValueError,
            "ran out",
        ),
        (Done(1, error="Traceback\nKeyError: 'x'"), RuntimeError, "KeyError"),
        (Done(1), RuntimeError, "no message"),
    ],
)
def test_a_child_that_fails(
    done: Done, kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(kind, match=said):
        measure_in_child({})


def test_a_child_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: Done(0, 'noise\n{"bytes": 5}\n'))
    assert measure_in_child({}) == {"bytes": 5}


def test_several_workloads_go_on_without_the_one_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = Workload("infer", "r50", 64, 64, 1), Workload("infer", "r50", 20_000, 20_000, 1)
    monkeypatch.setattr(memory, "available", lambda _: 8_000 * MB)
    monkeypatch.setattr(bench, "workloads", lambda *_: [large, small])
    monkeypatch.setattr(bench, "workload_section", lambda workload, *_: Section(workload.title, []))
    monkeypatch.setattr(bench, "convolution_rate", lambda *_: 1e9)
    report = bench.run(bench.Plan(("infer",)), lambda _: None)
    assert [section.title for section in report.sections["infer"]] == [small.title]
    assert "not measured: inference, r50-fpn, 20000x20000" in report.notes[-1]
    monkeypatch.setattr(bench, "workloads", lambda *_: [large])
    with pytest.raises(TooLargeError, match="GB of memory"):
        bench.run(bench.Plan(("infer",)), lambda _: None)
