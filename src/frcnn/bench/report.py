"""The outcome of a benchmark: rows, ratios, and all of it as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from frcnn.bench.turns import Times, quartiles
from frcnn.bench.workload import Compilation, Contender

NOT_MEASURED = "not measured"


@dataclass
class Row:
    """One contender's figures; None: not measured.

    Attributes:
        name: of the contender.
        times: seconds of a call.
        pictures: of a call; 0 for an operator.
        memory: bytes at the peak, on top of what is there before the call.
        phases: seconds by phase.
        syncs: host waits for the device in a call.
        floor: seconds that the convolutions alone, plainly made, would take at the machine's own rate.
        contender: None for an operator.
    """

    name: str
    times: Times
    pictures: int = 0
    memory: int | None = None
    phases: dict[str, float] | None = None
    syncs: int | None = None
    floor: float | None = None
    contender: Contender | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        median, (low, high) = self.times.median, self.times.quartiles
        values: dict[str, Any] = {
            "name": self.name,
            "seconds_median": median,
            "seconds_quartiles": [low, high],
            "seconds_first_call": self.times.first,
            "rounds": list(self.times.rounds),
            "rounds_made": len(self.times.rounds),
            "pictures_per_second": self.pictures / median if self.pictures else None,
            "peak_memory_bytes": self.memory,
            "seconds_by_phase": self.phases,
            "host_syncs": self.syncs,
            "floor_seconds": self.floor,
            "times_the_floor": median / self.floor if self.floor else None,
        }
        return {key: NOT_MEASURED if value is None else value for key, value in values.items()}


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is.

    Attributes:
        name: which is compared with which.
        ours, theirs: names of the rows.
        value: median of the ratios of single rounds, in which both stand beside each other in time: a
            machine that slows down between rounds slows both.
        low, high: quartiles of those.
    """

    name: str
    ours: str
    theirs: str
    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "ours": self.ours,
            "theirs": self.theirs,
            "ratio": self.value,
            "quartiles_of_rounds": [self.low, self.high],
        }


@dataclass
class Section:
    """One workload, or the operators.

    Attributes:
        title: what was done.
        rows: in the order of the turns.
        ratios: ours beside torchvision's.
        facts: more figures, by name.
        notes: sentences.
    """

    title: str
    rows: list[Row]
    ratios: list[Ratio] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "title": self.title,
            "contenders": [row.to_dict() for row in self.rows],
            "ratios": [ratio.to_dict() for ratio in self.ratios],
            "facts": self.facts,
            "notes": self.notes,
        }


@dataclass
class Report:
    """Everything.

    Attributes:
        machine: hardware, versions, commit, date, command.
        sections: by task (``train``, ``infer``, ``ops``).
        notes: sentences about the whole.
    """

    machine: dict[str, Any]
    sections: dict[str, list[Section]]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a task that was not asked for, or came to nothing, is "not measured"."""
        tasks = {
            task: [section.to_dict() for section in self.sections[task]]
            if self.sections.get(task)
            else NOT_MEASURED
            for task in ("train", "infer", "ops")
        }
        gpu = self.machine.get("gpu") or NOT_MEASURED
        return {**self.machine, "gpu": gpu, **tasks, "notes": self.notes}


def compare(name: str, ours: Row, theirs: Row) -> Ratio:
    """The ratio of two rows, round by round."""
    rounds = tuple(b / a for a, b in zip(ours.times.rounds, theirs.times.rounds, strict=False))
    low, high = quartiles(rounds)
    return Ratio(name, ours.name, theirs.name, statistics.median(rounds), low, high)


def ratios(rows: Sequence[Row], cuda: bool) -> list[Ratio]:
    """Precision against the same precision, default against default; compiled ones too.

    Of one precision torchvision's faster layout counts, of the defaults its own one. Our default is bf16
    where there are such rows; torchvision's is fp32, and on a GPU tf32, in which torch convolves unless told
    otherwise.
    """
    plain = [row for row in rows if row.contender is not None and not row.contender.recipe]
    found: list[Ratio] = []
    theirs: dict[str, Row] = {}
    as_it_comes: dict[str, Row] = {}
    for row in plain:
        c = row.contender
        if c is None or c.side != "torchvision":
            continue
        best = theirs.get(c.format)
        theirs[c.format] = row if best is None or row.times.median < best.times.median else best
        if not c.channels_last:
            as_it_comes[c.format] = row
    modes: tuple[Compilation, ...] = ("", "regional", "step")
    for compiled in modes:
        ours = {c.format: row for row in plain if (c := row.contender) and _is(c, "frcnn", compiled)}
        said = f" compiled ({compiled})" if compiled else ""
        found += [
            compare(f"{name}{said} : {name}", ours[name], theirs[name]) for name in ours if name in theirs
        ]
        default = ours.get("bf16") or ours.get("fp32")
        reference = as_it_comes.get("tf32" if cuda else "fp32")
        if default is not None and reference is not None:
            found.append(compare(f"default{said} : default", default, reference))
    return found


def _is(contender: Contender, side: str, compiled: Compilation) -> bool:
    return contender.side == side and contender.compiled == compiled
