"""The outcome on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from frcnn.bench.phases import OTHER, PHASES
from frcnn.bench.report import NOT_MEASURED, Ratio, Report, Row, Section


def show(report: Report, console: Console) -> None:
    """Print every section: times, ratios, phases, notes."""
    machine = report.machine
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if k in ("torch", "torchvision"))
    commit = f", commit {machine['commit']}" if "commit" in machine else ""
    load = machine.get("load_average_before")
    busy = "" if load is None else f", load average before it {load:.1f}"
    console.print(
        f"{machine['date']}, {machine['processor']}, {machine['threads']} threads, {versions}{commit}{busy}"
    )
    console.print(f"GPU: {machine['gpu'] or NOT_MEASURED}")
    for name, rate in machine.get("convolution_flop_per_second", {}).items():
        console.print(f"convolutions in {name}: {rate / 1e9:,.0f} GFLOP/s")
    for section in (each for several in report.sections.values() for each in several):
        console.print()
        steps = any(row.contender for row in section.rows)
        console.print(times_table(section) if steps else operators_table(section))
        if any(row.phases for row in section.rows):
            console.print(phases_table(section.rows))
        lines = [*ratio_lines(section.ratios), *fact_lines(section)] if steps else []
        for line in (*lines, *section.notes):
            console.print(line)
    for note in report.notes:
        console.print(note)


def times_table(section: Section) -> Table:
    """A row for each contender."""
    measured = ("rounds", "median", "quartiles", "peak memory", "pictures/s", "x floor")
    table = _table(section.title, *measured, "host syncs", "first call")
    for row in section.rows:
        low, high = row.times.quartiles
        rate = f"{row.pictures / row.times.median:.2f}"
        far = f"{row.times.median / row.floor:.2f}" if row.floor else NOT_MEASURED
        syncs = NOT_MEASURED if row.syncs is None else str(row.syncs)
        spread = f"{seconds(low)} to {seconds(high)}"
        cells = (seconds(row.times.median), spread, size(row.memory), rate, far, syncs)
        table.add_row(row.name, str(len(row.times.rounds)), *cells, seconds(row.times.first))
    return table


def operators_table(section: Section) -> Table:
    """A row for each operator, both sides beside each other."""
    columns = ("rounds", "frcnn", "torchvision", "times as fast", "peak memory", "differs by")
    table = _table(section.title, *columns)
    rows = {row.name: row for row in section.rows}
    for row in section.rows:
        name, _, side = row.name.rpartition(": ")
        if side != "frcnn":
            continue
        other = rows.get(f"{name}: torchvision")
        found = [ratio for ratio in section.ratios if ratio.ours == row.name]
        ratio = f"{found[0].value:.2f} ({found[0].low:.2f} to {found[0].high:.2f})" if found else NOT_MEASURED
        both = (row.memory, other.memory if other else None)
        memory = ", ".join(map(size, both)) if any(both) else NOT_MEASURED
        differs = section.facts.get("largest_difference", {}).get(name)
        table.add_row(
            name,
            str(len(row.times.rounds)),
            seconds(row.times.median),
            seconds(other.times.median) if other else NOT_MEASURED,
            ratio,
            memory,
            NOT_MEASURED if differs is None else f"{differs:.2g}",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def phases_table(rows: Sequence[Row]) -> Table:
    """Time by phase, and its share of the step."""
    shown = [row for row in rows if row.phases]
    title = "where the time goes (decoding comes before the step)"
    table = _table(title, *(row.name for row in shown))
    for phase in PHASES:
        if not any(phase in (row.phases or {}) for row in shown):
            continue
        cells = []
        for row in shown:
            phases = row.phases or {}
            total = sum(value for name, value in phases.items() if name != "decode")
            share = f" {100 * phases.get(phase, 0) / total:3.0f} %" if phase != "decode" else "      "
            cells.append(f"{1000 * phases[phase]:.1f} ms{share}" if phase in phases else "")
        table.add_row("everything else" if phase == OTHER else phase, *cells)
    return table


def ratio_lines(found: Sequence[Ratio]) -> list[str]:
    """How many times faster ours is, naming both."""
    return [
        f"{ratio.name}: {ratio.value:.2f} times as fast ({ratio.low:.2f} to {ratio.high:.2f}), "
        f"{ratio.ours} against {ratio.theirs}"
        for ratio in found
    ]


def fact_lines(section: Section) -> list[str]:
    """The other figures."""
    facts = section.facts
    lines: list[str] = []
    if "convolution_flop" in facts:
        floors = {row.contender.format: row.floor for row in section.rows if row.contender and row.floor}
        told = ", ".join(f"{seconds(value)} in {name}" for name, value in floors.items())
        count = f"{facts['convolution_flop'] / 1e9:.1f} GFLOP"
        lines.append(f"convolutions, plainly made, without matrix products: {count}; the floor is {told}")
    if "detections_matched_share_fp32" in facts:
        share, total = facts["detections_matched_share_fp32"], facts["detections_of_both_sides"]
        lines.append(f"in fp32 {100 * share:.1f} % of the {total} detections of both sides are the same")
    return lines


def seconds(value: float) -> str:
    """In a unit that leaves three digits."""
    return f"{value:.3f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def size(value: int | None) -> str:
    """Bytes in MB."""
    return NOT_MEASURED if value is None else f"{value / 1e6:,.0f} MB"
