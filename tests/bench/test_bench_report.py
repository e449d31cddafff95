"""Ratios, JSON and tables."""

import io
import json

from rich.console import Console

from frcnn.bench.report import NOT_MEASURED, Report, Row, Section, compare, ratios
from frcnn.bench.table import show
from frcnn.bench.turns import Times
from frcnn.bench.workload import Contender


def row(contender: Contender, *rounds: float) -> Row:
    return Row(contender.name, Times(rounds, rounds[0]), 2, contender=contender)


FP32 = [row(Contender("frcnn", "fp32"), 1.0, 2.0, 1.0), row(Contender("torchvision", "fp32"), 4.0, 4.0, 4.0)]
BF16 = [
    row(Contender("frcnn", "bf16"), 0.5, 0.5, 0.5),
    row(Contender("torchvision", "bf16"), 3.0, 3.0, 3.0),
    row(Contender("torchvision", "bf16", channels_last=True), 2.0, 2.0, 2.0),
]
OTHER = row(Contender("frcnn", "bf16", recipe="lite0-fpn"), 0.1, 0.1, 0.1)
COMPILED = row(Contender("frcnn", "bf16", compiled="regional"), 0.25, 0.25, 0.25)


def test_no_rows_no_ratios() -> None:
    assert ratios([], cuda=False) == []


def test_the_spread_is_that_of_single_rounds() -> None:
    found = compare("x", *FP32)
    assert (found.value, found.low, found.high) == (4.0, 3.0, 4.0)


def test_a_ratio_is_that_of_neighbours_in_time() -> None:
    """The machine slows down to a half while theirs takes its second turn, and stays so."""
    ours, theirs = Contender("frcnn", "fp32"), Contender("torchvision", "fp32")
    found = compare("x", row(ours, 1.0, 1.0, 2.0), row(theirs, 4.0, 8.0, 8.0))
    assert (found.value, found.low, found.high) == (4.0, 4.0, 6.0)  # of the medians: 8


def test_precision_against_the_same_and_default_against_default() -> None:
    found = {each.name: each for each in ratios([*FP32, *BF16, OTHER, COMPILED], cuda=False)}
    assert {name: each.value for name, each in found.items()} == {
        "fp32 : fp32": 4.0,
        "bf16 : bf16": 4.0,
        "default : default": 8.0,
        "bf16 compiled (regional) : bf16": 8.0,
        "default compiled (regional) : default": 16.0,
    }
    assert found["bf16 : bf16"].theirs == "torchvision bf16 channels-last"  # the faster one
    assert found["default : default"].theirs == "torchvision fp32"
    assert not any("lite0" in each.ours for each in found.values())


def test_torchvisions_faster_layout_counts_but_its_default_stays_as_it_comes() -> None:
    faster = row(Contender("torchvision", "fp32", channels_last=True), 3.0, 3.0, 3.0)
    slower = row(Contender("torchvision", "fp32", channels_last=True), 5.0, 5.0, 5.0)
    found = {each.name: (each.value, each.theirs) for each in ratios([*FP32, faster], cuda=False)}
    assert found == {
        "fp32 : fp32": (3.0, "torchvision fp32 channels-last"),
        "default : default": (4.0, "torchvision fp32"),
    }
    assert {each.theirs for each in ratios([*FP32, slower], cuda=False)} == {"torchvision fp32"}
    tf32 = [
        *(row(Contender("frcnn", "tf32"), 1.0), row(Contender("torchvision", "tf32"), 2.0)),
        row(Contender("torchvision", "tf32", channels_last=True), 1.5),
    ]
    on_gpu = {each.name: each.theirs for each in ratios([*FP32, *tf32], cuda=True)}
    assert on_gpu["tf32 : tf32"] == "torchvision tf32 channels-last"
    assert on_gpu["default : default"] == "torchvision tf32"


def test_without_bf16_the_default_is_fp32() -> None:
    assert {each.name: each.value for each in ratios(FP32, cuda=False)} == {
        "fp32 : fp32": 4.0,
        "default : default": 4.0,
    }


def test_the_default_on_a_gpu_is_tf32_for_torchvision() -> None:
    tf32 = [row(Contender("frcnn", "tf32"), 1.0), row(Contender("torchvision", "tf32"), 2.0)]
    found = {each.name: each.theirs for each in ratios([*FP32, *tf32, *BF16], cuda=True)}
    assert found["default : default"] == "torchvision tf32"


def report(*sections: Section) -> Report:
    machine = {
        "date": "2026-01-02",
        "processor": "a processor",
        "threads": 1,
        "gpu": None,
        "versions": {"torch": "2"},
        "convolution_flop_per_second": {"fp32": 5e11},
    }
    return Report(machine, {"train": list(sections)} if sections else {}, ["no rows in bf16"])


def test_what_was_not_measured_says_so() -> None:
    found = json.loads(json.dumps(report(Section("a step", FP32)).to_dict()))
    assert found["infer"] == found["ops"] == found["gpu"] == NOT_MEASURED
    first = found["train"][0]["contenders"][0]
    assert first["rounds"] == [1.0, 2.0, 1.0]
    assert first["rounds_made"] == 3
    assert first["pictures_per_second"] == 2.0
    assert {first[key] for key in ("peak_memory_bytes", "host_syncs", "floor_seconds")} == {NOT_MEASURED}


def printed(content: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(content, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_commit_is_shown_where_there_is_one() -> None:
    content = report()
    assert "commit" not in printed(content) and "commit" not in content.to_dict()
    content.machine["commit"] = "1a2b3c4-dirty"
    assert "torch 2, commit 1a2b3c4-dirty" in printed(content)
    assert content.to_dict()["commit"] == "1a2b3c4-dirty"
    assert "load" not in printed(content)
    content.machine["load_average_before"] = 0.26
    assert "1a2b3c4-dirty, load average before it 0.3" in printed(content)


def cells(text: str, name: str) -> list[str]:
    """Of the row of a table that begins with ``name``."""
    (line,) = [each for each in text.splitlines() if each.startswith(f"│ {name} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_nothing_to_show() -> None:
    text = printed(report())
    assert "GPU: not measured" in text
    assert "500 GFLOP/s" in text
    assert text.rstrip().endswith("no rows in bf16")


def test_tables() -> None:
    FP32[0].phases = {"decode": 0.5, "backbone": 0.3, "other": 0.1}
    section = Section("a step", FP32, ratios(FP32, cuda=False), {"convolution_flop": 2e9}, ["a note"])
    text = printed(report(section))
    assert "300.0 ms  75 %" in text  # of the step, decoding left out
    assert "fp32 : fp32: 4.00 times as fast (3.00 to 4.00), frcnn fp32 against torchvision fp32" in text
    assert "convolutions, plainly made, without matrix products: 2.0 GFLOP" in text
    assert cells(text, "frcnn fp32")[1] == "3"  # rounds
    assert "a note" in text


def test_operators_stand_beside_each_other() -> None:
    rows = [Row("NMS: frcnn", Times((0.01,), 0.1)), Row("NMS: torchvision", Times((0.05,), 0.1))]
    alone = Row("matching: frcnn", Times((2.5,), 0.1), memory=7_000_000)
    section = Section(
        "operators", [*rows, alone], [compare("NMS", *rows)], {"largest_difference": {"NMS": 0.0}}
    )
    text = printed(report(section))
    assert "5.00 (5.00 to 5.00)" in text
    assert "7 MB, not measured" in text
    assert cells(text, "NMS")[1] == "1"
