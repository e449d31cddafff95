"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchvision

from frcnn.bench.memory import available
from frcnn.doctor import examine, first_line

PACKAGE = Path(__file__).resolve().parents[1]
GIT_SECONDS = 10.0


def describe(device: torch.device, command: str) -> dict[str, Any]:
    """Machine, versions, date, command, and how busy the machine is; the commit, where there is one."""
    health = examine()
    free = available(torch.device("cpu"))
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    made_from = commit()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_available_bytes": free,
        "load_average_before": load,
        "gpu": gpu,
        "device": str(device),
        "platform": health.system["platform"],
        "versions": {"python": platform.python_version(), **health.versions},
        **({"commit": made_from} if made_from else {}),
    }


def commit(package: Path = PACKAGE) -> str | None:
    """Short hash of the commit that a package runs from, with "-dirty" where its files are others than the
    commit's; None where it is not part of a git checkout, or git does not answer.
    """
    try:
        # an installed package may lie inside another project's checkout, which does not track it
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        head = _git(package, "rev-parse", "--short", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if changed else head


def _git(folder: Path, *words: str) -> str:
    """What git says there, whatever its environment points at (a hook's does elsewhere)."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        env={**environment, "GIT_OPTIONAL_LOCKS": "0"},  # others may be working there
        capture_output=True,
        text=True,
        errors="replace",
        timeout=GIT_SECONDS,
        check=True,
    )
    return done.stdout.strip()


def processor() -> str:
    """Name of the processor, and whether it has bf16 instructions that matter here."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    flags = values.get("flags", "").split()
    extra = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    return ", ".join([values.get("model name", platform.machine()), *extra])


def require_operators(device: torch.device) -> None:
    """Make sure that torchvision's operators run where they are to be measured.

    Raises:
        ValueError: naming the one that does not.
    """
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 5.0, 5.0]])
    features = torch.ones(1, 2, 8, 8)
    calls = {
        "nms": lambda: torchvision.ops.nms(boxes.to(device), torch.ones(2).to(device), 0.5),
        "roi_align": lambda: torchvision.ops.roi_align(features.to(device), [boxes.to(device)], 2),
    }
    for name, call in calls.items():
        try:
            call()
        except (RuntimeError, NotImplementedError) as error:
            raise ValueError(
                f"torchvision's {name} does not run on {device} ({first_line(error)}), so there is nothing "
                "to compare; use --device cpu, or a torchvision built for this device"
            ) from None
