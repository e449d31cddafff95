"""What is installed here, and whether the operators give the right numbers on every device."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

PACKAGES = ("frcnn", "torch", "torchvision", "timm", "lightning", "hotcoco", "pillow", "numpy")
OPTIONAL = ("lightning",)
TOLERANCE = 1e-3


@dataclass(frozen=True)
class DeviceReport:
    """One device and the outcome of every operator on it.

    Attributes:
        device: as ``--device`` takes it.
        name: of the hardware.
        operators: operator -> "ok", or what went wrong.
    """

    device: str
    name: str
    operators: dict[str, str]


@dataclass(frozen=True)
class Health:
    """The whole examination.

    Attributes:
        system: Python, platform, cores.
        versions: package -> version, or "not installed".
        devices: the processor, and every GPU that torch can use.
        problems: a sentence each, with what to do; empty if all is well.
    """

    system: dict[str, str]
    versions: dict[str, str]
    devices: tuple[DeviceReport, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        pairs = [*self.system.items(), *self.versions.items()]
        width = max(len(key) for key, _ in pairs)
        lines = [f"{key:<{width}}  {value}" for key, value in pairs]
        for device in self.devices:
            outcome = ", ".join(f"{name} {text}" for name, text in device.operators.items())
            lines.append(f"{device.device:<{width}}  {device.name}: {outcome}")
        return [*lines, "all is well" if not self.problems else f"problems: {len(self.problems)}"]


def examine() -> Health:
    """Look at everything; errors are reported, not raised."""
    versions = {name: _version(name) for name in PACKAGES}
    system = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": str(os.cpu_count()),
    }
    problems = [
        f"{name} is not installed; run: pip install {name}"
        for name, version in versions.items()
        if version == "not installed" and name not in OPTIONAL
    ]
    mismatch = version_mismatch(versions["torch"], versions["torchvision"], _requirements("torchvision"))
    if mismatch:
        return Health(system, versions, (), (*problems, mismatch))
    try:
        import torch
        import torchvision.ops
    except (ImportError, RuntimeError, OSError) as error:
        sentence = (
            f"torch and torchvision cannot be used ({first_line(error)}); run: {_repair(versions['torch'])}"
        )
        return Health(system, versions, (), (*problems, sentence))
    system["torch.compile"] = ", ".join(_compiling(name) for name, _ in _devices())
    system["cuda"] = str(torch.version.cuda or "not in this build")
    versions["lightning"] += (
        ""
        if versions["lightning"] != "not installed"
        else ' (training: pip install ".[train]" in the folder of frcnn)'
    )
    assert torchvision.ops is not None
    devices = tuple(_try_device(name, label) for name, label in _devices())
    problems += [
        f"{name} does not work on {report.device} ({text}); use another --device, "
        "and report this with the lines above"
        for report in devices
        for name, text in report.operators.items()
        if text != "ok"
    ]
    return Health(system, versions, devices, tuple(problems))


def version_mismatch(torch: str, torchvision: str, requirements: list[str]) -> str | None:
    """A sentence where the installed torchvision was made for another torch, else None.

    Args:
        torch: installed version.
        torchvision: installed version.
        requirements: of the torchvision package, which names the one torch it was compiled for.
    """
    for requirement in requirements:
        pinned = re.match(r"torch\s*\(?==\s*([\w.]+)", requirement)
        if pinned and pinned[1] != torch.partition("+")[0]:
            return (
                f"torchvision {torchvision} was made for torch {pinned[1]}, but torch {torch} is installed; "
                f"run: {_repair(torch)}"
            )
    return None


def _repair(torch: str) -> str:
    pin = f"torch=={torch.partition('+')[0]}" if torch != "not installed" else "torch"
    return f'pip install --force-reinstall "{pin}" torchvision'


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _requirements(package: str) -> list[str]:
    try:
        return metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return []


def _devices() -> list[tuple[str, str]]:
    import torch

    found = [("cpu", f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        found += [(f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU"))
    return found


def _compiling(device: str) -> str:
    """Whether ``--compile`` works on a device; it is no fault where it does not."""
    from frcnn.model.compiled import CompileError, check_compiler

    try:
        check_compiler(device)
    except CompileError as error:
        return str(error)
    return f"works on {device}"


def _try_device(device: str, name: str) -> DeviceReport:
    tests: dict[str, Callable[[str], None]] = {
        "nms": _nms,
        "roi_align": _roi_align,
        "roi_align gradient": _gradient,
    }
    outcome = {}
    for label, test in tests.items():
        try:
            test(device)
            outcome[label] = "ok"
        except Exception as error:  # whatever a driver or a build may throw is the finding
            outcome[label] = f"{type(error).__name__}: {first_line(error)}"
    return DeviceReport(device, name, outcome)


def _nms(device: str) -> None:
    """Our NMS on a device against torchvision's on the processor."""
    import torch
    from torchvision.ops import nms

    from frcnn.ops import nms_mask

    generator = torch.Generator().manual_seed(0)
    corner, size = (
        torch.rand(200, 2, generator=generator) * 80,
        torch.rand(200, 2, generator=generator) * 40 + 1,
    )
    boxes = torch.cat([corner, corner + size], dim=1)
    order = torch.arange(200, 0, -1, dtype=torch.float32)
    expected = torch.zeros(200, dtype=torch.bool)
    expected[nms(boxes, order, 0.5)] = True
    kept = nms_mask(boxes[None].to(device), 0.5)[0].cpu()
    if not torch.equal(kept, expected):
        raise RuntimeError(f"{int((kept != expected).sum())} of 200 boxes decided otherwise than expected")


def _roi_align(device: str) -> None:
    _compare_roi_align(device, gradient=False)


def _gradient(device: str) -> None:
    _compare_roi_align(device, gradient=True)


def _compare_roi_align(device: str, gradient: bool) -> None:
    """Our RoIAlign (or its gradient) on a device against torchvision's on the processor."""
    import torch
    from torchvision.ops import roi_align

    from frcnn.ops import pyramid_roi_align

    generator = torch.Generator().manual_seed(0)
    plain = torch.rand(1, 8, 16, 16, generator=generator).requires_grad_()
    boxes = torch.tensor([[[3.0, 5.0, 40.0, 50.0], [10.0, 0.0, 60.0, 33.0], [0.0, 0.0, 63.0, 63.0]]])
    expected = roi_align(plain, [boxes[0]], 7, 1 / 4, 2)
    moved = plain.detach().to(device).requires_grad_()
    got = pyramid_roi_align([moved], boxes.to(device), [4], 7, 2)[0]
    if gradient:
        expected.square().sum().backward()
        got.square().sum().backward()
        assert plain.grad is not None and moved.grad is not None
        difference = (plain.grad - moved.grad.cpu()).abs().max().item()
    else:
        difference = (expected - got.cpu()).abs().max().item()
    if not difference < TOLERANCE:
        raise RuntimeError(f"differs from torchvision's by {difference:.2g}")


def first_line(error: BaseException) -> str:
    """Of its message: torch writes pages; without a message, its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
