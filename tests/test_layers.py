"""The direction of imports: a room uses lower ones only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import frcnn

PACKAGE = Path(frcnn.__file__).parent
LAYER = {
    "boxes": 0,
    "config": 0,
    "bands": 0,
    "drawing": 0,
    "files": 0,
    "structures": 0,
    "ops": 1,
    "precision": 1,
    "settings": 1,
    "model": 2,
    "recipes": 2,
    "data": 3,
    "weights": 3,
    "evaluation": 4,
    "inputs": 4,
    "labels": 4,
    "results": 4,
    "survey": 4,
    "predict": 5,
    "report": 5,
    "writers": 5,
    "conversion": 6,
    "doctor": 6,
    "training": 6,
    "bench": 7,
    "commands": 8,
    "cli": 9,
    "__main__": 10,
}
APART = {("data", "model"), ("data", "ops"), ("data", "recipes")}
"""Lower, and yet not to be used."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(source: str) -> Iterator[str]:
    """The rooms that a file imports anywhere, in functions and for types too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            parts = (node.module or "").split(".")
            if parts[0] == "frcnn":
                yield from [parts[1]] if len(parts) > 1 else (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("frcnn."):
                    yield alias.name.split(".")[1]


def violations(room: str, source: str) -> list[str]:
    found = []
    for other in imported_rooms(source):
        if other == room or other.startswith("__"):  # frcnn.__version__ is no room
            continue
        if LAYER[other] >= LAYER[room] or (room, other) in APART:
            found.append(other)
    return found


@pytest.mark.parametrize(
    ("room", "source", "expected"),
    [
        ("boxes", "", []),
        ("data", "from frcnn.config import Config\nimport torch", []),
        ("data", "from frcnn.data.sample import Sample", []),
        ("data", "def f():\n    from frcnn.model.fpn import x", ["model"]),
        ("model", "import frcnn.training.run", ["training"]),
        ("ops", "if TYPE_CHECKING:\n    from frcnn.predict import Detector", ["predict"]),
        ("weights", "from frcnn import __version__", []),
        ("weights", "from frcnn import cli", ["cli"]),
    ],
)
def test_rule(room: str, source: str, expected: list[str]) -> None:
    assert violations(room, source) == expected


def test_every_room_has_a_layer() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == set(LAYER)


def test_rooms_use_lower_ones_only() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name == "__init__.py":  # names of all rooms, loaded when they are used
            continue
        others = violations(room_of(path), path.read_text(encoding="utf-8"))
        found += [f"{name} imports {other}" for other in others]
    assert not found


def test_only_training_imports_lightning() -> None:
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.partition(".")[0] in ("lightning", "pytorch_lightning") for name in names):
                users.add(room_of(path))
    assert users == {"training"}
