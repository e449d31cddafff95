"""The benchmark from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from frcnn.bench.agreement import share_matched
from frcnn.bench.floor import QUICK_SHAPES, SHAPES, convolution_flops, convolution_rate
from frcnn.bench.machine import describe, require_operators
from frcnn.bench.memory import (
    NoFigureError,
    cuda_peak,
    enough_memory,
    measure_in_child,
    release,
    require_memory,
)
from frcnn.bench.operations import operators_section
from frcnn.bench.phases import seconds_by_phase
from frcnn.bench.pictures import decode_seconds, load_photos
from frcnn.bench.report import NOT_MEASURED, Report, Row, Section, ratios
from frcnn.bench.steps import make_steps
from frcnn.bench.syncs import count_syncs
from frcnn.bench.turns import Times, take_turns
from frcnn.bench.twins import lite0_config
from frcnn.bench.workload import Contender, Format, Workload, contenders, without_bf16
from frcnn.doctor import first_line
from frcnn.model.compiled import check_compiler
from frcnn.recipes import recipe

TASKS = ("train", "infer", "ops")
SECONDS = {"train": 50.0, "infer": 30.0}
"""No round of a workload begins later unless their number is given, so that the whole takes minutes on two
cores."""
TRAIN_SIZE, INFER_SIZE, GPU_SIZE, QUICK_SIZE = (320, 426), (800, 1066), (800, 1344), (64, 96)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a user asks for.

    Attributes:
        tasks: of ``TASKS``.
        rounds: of every workload and operator; None: as many as its time allows.
        device: to run on.
        threads: on the CPU; 0: as torch chooses.
        size: (height, width) instead of the usual ones.
        batch: pictures instead of the usual numbers.
        data: folder of a data set; "": generated pictures.
        weights: of torchvision's ``fasterrcnn_resnet50_fpn``; "": random ones.
        quick: tiny sizes and few figures, to see whether it runs.
        compiled: ours by ``torch.compile`` too.
        command: as it was typed.
    """

    tasks: tuple[str, ...] = TASKS
    rounds: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 0
    size: tuple[int, int] | None = None
    batch: int | None = None
    data: str = ""
    weights: str = ""
    quick: bool = False
    compiled: bool = False
    command: str = "frcnn bench"


def run(plan: Plan, say: Say) -> Report:
    """Measure everything that is asked for; a workload that fails on the way becomes a note, for the others
    took minutes.

    Args:
        plan: tasks and sizes.
        say: is told what comes next.

    Raises:
        ValueError: for data or weights that cannot be used or have no effect, a device without torchvision's
            operators, a workload that does not fit into memory, where nothing can be compiled, or when
            nothing at all could be measured.
    """
    if plan.threads:
        torch.set_num_threads(plan.threads)
    require_operators(plan.device)
    if plan.compiled:
        check_compiler(plan.device)
    wanted = {task: workloads(plan, task) for task in plan.tasks if task != "ops"}
    _require_use(plan, wanted)
    for several in wanted.values():
        if len(several) == 1:  # what a user chose, or all there is: refused before anything begins
            require_memory(several[0])
    machine = describe(plan.device, plan.command)
    missing = without_bf16(plan.device)
    notes = [missing] if missing else []
    rates: dict[Format, float] = {}
    if wanted:
        say("the machine's convolution rate")
        shapes = QUICK_SHAPES if plan.quick else SHAPES
        for name in dict.fromkeys(c.format for c in contenders(_first(wanted), not missing, False)):
            rates[name] = convolution_rate(plan.device, name, shapes, 0.1 if plan.quick else 4.0)
        machine["convolution_flop_per_second"] = rates
    sections: dict[str, list[Section]] = {}
    failures: list[str] = []  # not the errors: they would keep all that a step holds in memory
    for task in plan.tasks:
        if task == "ops":
            sections[task] = [operators_section(plan.device, plan.threads, plan.rounds, plan.quick, say)]
            continue
        sections[task] = []
        for workload in wanted[task]:
            say(workload.title)
            try:
                require_memory(workload)
                with enough_memory(workload.title):
                    sections[task].append(workload_section(workload, plan, rates, not missing, say))
            except ValueError as error:
                failures.append(str(error))
            except (
                NotImplementedError
            ) as error:  # an operator that this device lacks, as in the backward pass
                failures.append(f"{workload.title}: {first_line(error)}")
            release(plan.device)
    if failures and not any(sections.values()):
        raise ValueError(failures[0])
    return Report(machine, sections, notes + [f"{NOT_MEASURED}: {reason}" for reason in failures])


def _require_use(plan: Plan, wanted: dict[str, list[Workload]]) -> None:
    """Weights are of one architecture, which is not among the workloads of every task and device.

    Raises:
        ValueError: when nobody would read them.
    """
    if plan.weights and not any(each.network == "r50" for several in wanted.values() for each in several):
        raise ValueError(
            f"--weights {plan.weights}: of no effect on bench {' '.join(plan.tasks)} on {plan.device}, where "
            "r50-fpn is not measured; leave it out, or use bench infer"
        )


def _first(wanted: dict[str, list[Workload]]) -> Workload:
    return next(iter(wanted.values()))[0]


def workloads(plan: Plan, task: str) -> list[Workload]:
    """The batches and sizes that a task is measured at."""
    device = str(plan.device)
    base = Workload(
        "train" if task == "train" else "infer",
        "lite0" if task == "train" else "r50",
        *(TRAIN_SIZE if task == "train" else INFER_SIZE),
        batch=4 if task == "train" else 1,
        device=device,
        threads=plan.threads,
        data=plan.data,
        weights=plan.weights,
    )
    if plan.quick:
        base = replace(base, height=QUICK_SIZE[0], width=QUICK_SIZE[1], batch=1, small=True)
    found = [base]
    if plan.device.type == "cuda" and not plan.quick:
        large = replace(base, network="r50", height=GPU_SIZE[0], width=GPU_SIZE[1])
        batches = (2, 8, 16) if task == "train" else (1, 16)
        found = [base] * (task == "train") + [replace(large, batch=batch) for batch in batches]
    if plan.size is not None:
        found = [replace(each, height=plan.size[0], width=plan.size[1]) for each in found]
    if plan.batch is not None:
        found = [replace(each, batch=plan.batch) for each in found]
    return list(dict.fromkeys(found))


def workload_section(
    workload: Workload, plan: Plan, rates: dict[Format, float], bf16: bool, say: Say
) -> Section:
    """All figures of one workload; the timed rounds come first, everything that disturbs them after."""
    device = workload.torch_device
    members = contenders(workload, bf16, plan.compiled)
    steps = make_steps(workload, members)
    times = take_turns(steps, device, plan.rounds, 0.0 if plan.quick else SECONDS[workload.task])
    flops = convolution_flops(steps["torchvision fp32"])  # the same network, and every convolution is plain
    rows = [
        _row(contender, times[contender.name], workload, flops / rates[contender.format])
        for contender in members
    ]
    section = Section(workload.title, rows, ratios(rows, device.type == "cuda"))
    section.facts["workload"] = workload.to_dict()
    section.facts["convolution_flop"] = flops
    if workload.task == "infer":
        share, total = share_matched(steps["frcnn fp32"](), steps["torchvision fp32"]())
        section.facts["detections_matched_share_fp32"] = share
        section.facts["detections_of_both_sides"] = total
    say(f"{workload.title}: phases and memory")
    decode: dict[str, float] = {}
    try:
        decode = _decode(workload)
    except OSError as error:  # JPEG has no room for more than 65,535 pixels a side
        section.notes.append(f"decode: {NOT_MEASURED}: {first_line(error)}")
    for row in rows:
        contender, step = row.contender, steps[row.name]
        assert contender is not None
        if not contender.compiled and not contender.channels_last:
            first = {"decode": decode[contender.side]} if decode else {}
            row.phases = {**first, **seconds_by_phase(step, device, 2)}
        row.syncs = count_syncs(step, device)
        row.memory = cuda_peak(step, device)
    steps.clear()
    if device.type == "cpu" and not plan.quick:
        for row in rows:
            try:
                row.memory = _memory(workload, row.contender)
            except NoFigureError as error:
                section.notes.append(f"peak memory of {row.name} {NOT_MEASURED}: {error}")
    section.notes += _notes(rows)
    return section


def _row(contender: Contender, times: Times, workload: Workload, floor: float) -> Row:
    other = bool(contender.recipe)  # has other convolutions
    return Row(contender.name, times, workload.batch, floor=None if other else floor, contender=contender)


def _decode(workload: Workload) -> dict[str, float]:
    photos, _ = load_photos(workload)
    spec = lite0_config(workload).preprocess if workload.network == "lite0" else recipe("r50-fpn").preprocess
    return {
        "frcnn": decode_seconds(photos, "frcnn", spec),
        "torchvision": decode_seconds(photos, "torchvision", spec),
    }


def _memory(workload: Workload, contender: Contender | None) -> int | None:
    if contender is None or contender.compiled:  # a compiler's own memory would count
        return None
    order: dict[str, Any] = {"workload": workload.to_dict(), "contender": asdict(contender)}
    measured: int | None = measure_in_child(order)["bytes"]
    return measured


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = [
        f"{row.name} is another network (recipe {row.contender.recipe} as it is): no ratio is made of it"
        for row in rows
        if row.contender is not None and row.contender.recipe
    ]
    if all(row.memory is None for row in rows):
        notes.append(f"peak memory: {NOT_MEASURED}")
    return notes
