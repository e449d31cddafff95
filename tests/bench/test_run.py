"""The whole benchmark: what fails costs nothing that was measured before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from frcnn.bench import memory
from frcnn.bench import run as bench
from frcnn.bench.memory import NoFigureError, TooLargeError
from frcnn.bench.report import Section
from frcnn.bench.workload import Workload, contenders

MB = 1_000_000
SMALL, LARGE = Workload("infer", "r50", 64, 64, 1), Workload("infer", "r50", 20_000, 20_000, 1)


@pytest.fixture
def quick_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections without rows, and plenty of memory."""
    monkeypatch.setattr(memory, "available", lambda _: 20_000 * MB)
    monkeypatch.setattr(bench, "workload_section", lambda workload, *_: Section(workload.title, []))
    monkeypatch.setattr(bench, "operators_section", lambda *_: Section("operators", []))
    monkeypatch.setattr(bench, "convolution_rate", lambda *_: 1e9)


def quiet(_: str) -> None: ...


@pytest.mark.usefixtures("quick_parts")
def test_several_workloads_go_on_without_the_one_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "workloads", lambda *_: [LARGE, SMALL])
    report = bench.run(bench.Plan(("infer",)), quiet)
    assert [section.title for section in report.sections["infer"]] == [SMALL.title]
    assert "not measured: inference, r50-fpn, 20000x20000" in report.notes[-1]
    monkeypatch.setattr(bench, "workloads", lambda *_: [LARGE])
    with pytest.raises(TooLargeError, match="GB of memory"):
        bench.run(bench.Plan(("infer",)), quiet)


def failing(error: Exception) -> Callable[..., Section]:
    def section(workload: Workload, *_: object) -> Section:
        if workload.task == "infer":
            raise error
        return Section(workload.title, [])

    return section


@pytest.mark.usefixtures("quick_parts")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "800x1066, batch 1, cpu: not enough memory; use a smaller --size or --batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (ValueError("w.pth: does not fit"), "w.pth: does not fit"),
        (
            NotImplementedError("Could not run '_roi_align_backward'\nmore"),
            "cpu: Could not run '_roi_align_back",
        ),
    ],
)
def test_what_fails_later_is_a_note(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "workload_section", failing(error))
    report = bench.run(bench.Plan(), quiet)
    assert report.notes[-1].startswith("not measured: ") and said in report.notes[-1]
    found = report.to_dict()
    assert found["infer"] == "not measured"
    assert [len(found[task]) for task in ("train", "ops")] == [1, 1]


@pytest.mark.usefixtures("quick_parts")
def test_a_machine_without_bf16_is_measured_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[str], bool]] = []

    def section(workload: Workload, _: object, rates: dict[str, float], bf16: bool, *__: object) -> Section:
        seen.append((set(rates), bf16))
        return Section(workload.title, [])

    monkeypatch.setattr(bench, "workload_section", section)
    monkeypatch.setattr(bench, "without_bf16", lambda _: "no rows in bf16: this processor has none")
    report = bench.run(bench.Plan(("train",)), quiet)
    assert seen == [({"fp32"}, False)]
    assert report.notes == ["no rows in bf16: this processor has none"]
    assert {each.format for each in contenders(Workload("train", "lite0", 64, 96, 1), False, True)} == {
        "fp32"
    }


@pytest.mark.usefixtures("quick_parts")
def test_where_nothing_else_was_measured_a_failure_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "workload_section", failing(MemoryError()))
    with pytest.raises(ValueError, match="not enough memory"):
        bench.run(bench.Plan(("infer",)), quiet)
    monkeypatch.setattr(bench, "workload_section", failing(RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        bench.run(bench.Plan(), quiet)


@pytest.mark.usefixtures("quick_parts")
def test_weights_that_nobody_reads_are_refused() -> None:
    said = "--weights w.pth: of no effect on bench train on cpu, .*; leave it out, or use bench infer"
    with pytest.raises(ValueError, match=said):
        bench.run(bench.Plan(("train",), weights="w.pth"), quiet)
    for tasks in (("infer",), ("train", "infer", "ops")):
        assert set(bench.run(bench.Plan(tasks, weights="w.pth"), quiet).sections) == set(tasks)


def test_times_stay_where_the_memory_could_not_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload("train", "lite0", 64, 96, 1)
    names = [each.name for each in contenders(workload, False, False)]

    def fail(_: object) -> None:
        raise NoFigureError("the process that measures it took more than 900 s")

    monkeypatch.setattr(bench, "make_steps", lambda *_: {name: lambda: None for name in names})
    monkeypatch.setattr(bench, "seconds_by_phase", lambda *_: {"backbone": 0.1})
    monkeypatch.setattr(bench, "_decode", lambda _: {"frcnn": 0.1, "torchvision": 0.1})
    monkeypatch.setattr(bench, "measure_in_child", fail)
    plan = bench.Plan(("train",), rounds=1, device=torch.device("cpu"))
    section = bench.workload_section(workload, plan, {"fp32": 1e9}, False, quiet)
    assert [len(row.times.rounds) for row in section.rows] == [1] * len(names)
    said = "not measured: the process that measures it took more than 900 s"
    assert [note for note in section.notes if said in note] == [
        f"peak memory of {name} {said}" for name in names
    ]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("train", [("lite0", 320, 426, 4), *(("r50", 800, 1344, batch) for batch in (2, 8, 16))]),
        ("infer", [("r50", 800, 1344, batch) for batch in (1, 16)]),
    ],
)
def test_what_a_gpu_is_measured_at(task: str, expected: list[tuple[str, int, int, int]]) -> None:
    plan = bench.Plan(device=torch.device("cuda"))
    found = bench.workloads(plan, task)
    assert [(each.network, each.height, each.width, each.batch) for each in found] == expected
    assert {each.device for each in found} == {"cuda"} and {each.task for each in found} == {task}
    formats = [each.format for each in contenders(found[-1], True, True) if each.side == "frcnn"]
    assert formats == ["fp32"] * 3 + ["tf32"] * 3 + ["bf16"] * 3, "plain, regional, whole step"
    assert len(bench.workloads(replace(plan, quick=True), task)) == 1
    one = bench.workloads(replace(plan, size=(640, 640), batch=2), task)
    assert {(each.height, each.width, each.batch) for each in one} == {(640, 640, 2)}


def test_a_picture_that_no_jpeg_holds_has_no_time_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Workload) -> dict[str, float]:
        raise OSError("encoder error -2 when writing image file\nmore")

    monkeypatch.setattr(bench, "_decode", refuse)
    small = Workload("infer", "r50", 64, 96, 1, small=True)
    section = bench.workload_section(small, bench.Plan(quick=True, rounds=1), {"fp32": 1e9}, False, quiet)
    assert section.notes[0] == "decode: not measured: encoder error -2 when writing image file"
    assert all(row.phases and "decode" not in row.phases for row in section.rows if row.phases is not None)
    assert any(row.phases for row in section.rows)
