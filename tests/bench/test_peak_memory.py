"""Peak memory, and refusing what does not fit."""

import os
import subprocess

import pytest
import torch

from frcnn.bench import memory
from frcnn.bench.memory import (
    NoFigureError,
    available,
    cuda_peak,
    enough_memory,
    is_out_of_memory,
    measure_in_child,
    require_memory,
    resident_growth,
)
from frcnn.bench.workload import Workload

CPU = torch.device("cpu")
MB = 1_000_000


def test_growth_is_the_peak_and_not_the_end() -> None:
    if resident_growth(lambda: None) is None:
        pytest.skip("this system does not tell a process its peak memory")
    # thrice, as the system may take unused pages of this process away at any moment, or give them back
    nothing = [resident_growth(lambda: None) or 0 for _ in range(3)]
    much = [
        resident_growth(lambda: torch.ones(25 * MB).sum()) or 0 for _ in range(3)
    ]  # 100 MB, freed at once
    assert min(nothing) < 20 * MB
    assert max(much) > 90 * MB and min(much) < 160 * MB


def test_a_cpu_has_no_cuda_peak() -> None:
    assert cuda_peak(lambda: None, CPU) is None


def test_free_memory_is_known_or_not() -> None:
    free = available(CPU)
    if free is not None:
        assert MB < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
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
    ("done", "said"),
    [
        (Done(-9), "ran out of memory"),
        (Done(1, error="Traceback\nRuntimeError: DefaultCPUAllocator: can't allocate memory"), "ran out"),
        (Done(1, error="Traceback\nKeyError: 'x'"), "failed: KeyError: 'x'"),
        (Done(1), "no message"),
        (subprocess.TimeoutExpired("python", 900), "took more than 900 s"),
        (OSError(12, "Cannot allocate memory"), r"could not be started \(Cannot allocate memory\)"),
    ],
)
def test_a_child_that_fails_says_why(
    done: Done | Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Done:
        if isinstance(done, Done):
            return done
        raise done

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(NoFigureError, match=said):
        measure_in_child({})


def test_a_child_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: Done(0, 'noise\n{"bytes": 5}\n'))
    assert measure_in_child({}) == {"bytes": 5}
