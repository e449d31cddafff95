"""Finished runs of the comparison: one JSON line each, written at once, and found again by their settings."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAINED, DONE = "trained", "done"
"""Stages of a run: a training that is not measured yet, and a finished one."""
Entry = dict[str, Any]


class ChildError(RuntimeError):
    """A command of a run ended with an error; the message names its log."""


@dataclass(frozen=True)
class Records:
    """A file of finished runs.

    Attributes:
        path: one JSON object a line; made when the first run is finished.
    """

    path: Path

    def read(self, stage: str) -> list[Entry]:
        """The lines of runs at this stage, oldest first; one that a crash cut short is left out."""
        if not self.path.exists():
            return []
        entries: list[Entry] = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                entries += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError:
                print(f"{self.path}:{number}: not whole, left out; its run is made again", file=sys.stderr)
        return [entry for entry in entries if entry.get("stage", DONE) == stage]

    def alike(self, key: Mapping[str, Any], stage: str) -> list[Entry]:
        """The lines of runs with exactly these settings at this stage, whatever they were made with."""
        return [entry for entry in self.read(stage) if settings_of(entry["key"]) == settings_of(key)]

    def add(self, entry: Entry) -> None:
        """Append a run and wait until it is on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        before = self.path.read_bytes() if self.path.exists() else b""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("" if before.endswith(b"\n") or not before else "\n") + json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def settings_of(key: Mapping[str, Any]) -> Entry:
    """A key without what the code decides: the source, which older lines do not hold, and the recipe's
    digest, which also changes where a new setting at its default is added.
    """
    left_out = ("source",) if key["side"] == "torchvision" else ("source", "code")
    return {name: value for name, value in key.items() if name not in left_out}


def run_child(command: Sequence[str], log: Path, allowed: Sequence[int] = (0,)) -> tuple[int, float, str]:
    """Run a command to its end.

    Args:
        command: its words.
        log: file that gets stderr and stdout, line by line, so that a run of an hour can be followed.
        allowed: exit codes that are no error.

    Returns:
        Exit code; seconds from before the process was started until it had ended; stdout.

    Raises:
        ChildError: for another exit code, with the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    lines: list[str] = []
    with log.open("a", encoding="utf-8") as written:  # two processes write: each at the end
        began = time.perf_counter()
        with subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=written,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as child:
            try:
                for line in child.stdout or ():
                    lines.append(line)
                    written.write(line)
                    written.flush()
            except BaseException:
                child.kill()
                raise
        spent = time.perf_counter() - began
    if child.returncode not in allowed:
        tail = "\n".join(log.read_text(encoding="utf-8").strip().splitlines()[-5:])
        raise ChildError(f"{Path(command[0]).name} ended with code {child.returncode} (log: {log}):\n{tail}")
    return child.returncode, round(spent, 2), "".join(lines)


def machine() -> Entry:
    """What the figures were measured on; names the hardware only."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "processor": _processor(),
        "cores": cores,
        "memory_gib": round(pages / 2**30),
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"),
    }


def load() -> float | None:
    """Processes that wanted to run in the last minute, on average: how quiet the machine is."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor() -> str:
    """Its name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
