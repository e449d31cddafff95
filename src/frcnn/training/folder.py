"""The folder of a run: which files it holds, and how a killed run leaves no half-written one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frcnn.files import write_text

FIRST, LAST = ("epoch", "step", "lr", "train_total"), ("images_per_second", "data_share")
"""Columns of every ``metrics.csv``; between them stand the losses and counts of training, then the losses and
metrics of validation. A row without ``val_total``: within an epoch, or without validation."""

Row = Mapping[str, float | int | None]


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, runs: str | Path, name: str) -> RunFolder:
        """Make ``runs/name``, or ``runs/name-2``, ``-3``, ... where that exists; never an old folder.

        Raises:
            ValueError: when ``name`` is not the name of a folder, or nothing can be written there.
        """
        if not name or name in (".", "..") or Path(name).name != name:
            raise ValueError(f"run name {name!r} is not the name of a folder; use letters, digits, - and _")
        number = 1
        while True:
            path = Path(runs) / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True, exist_ok=False)
                return cls(path)
            except FileExistsError as error:
                if not path.exists():  # a file stands where a parent folder should be
                    raise ValueError(f"{runs}: runs cannot be written there ({error.strerror})") from None
                number += 1
            except OSError as error:
                raise ValueError(f"{runs}: runs cannot be written there ({error.strerror})") from None

    @property
    def best(self) -> Path:
        """Model file of the best validation."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """Model file of the latest averaged weights."""
        return self.path / "last.safetensors"

    def of_epoch(self, epoch: int) -> Path:
        """Model file of the averaged weights after an epoch that ``train.save_every`` keeps."""
        return self.path / f"epoch-{epoch:04d}.safetensors"

    @property
    def state(self) -> Path:
        """Everything that ``--resume`` needs."""
        return self.path / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """Curves as CSV."""
        return self.path / "metrics.csv"

    @property
    def samples(self) -> Path:
        """Pictures as the network sees them."""
        return self.path / "samples"

    @property
    def log(self) -> Path:
        """Everything that was printed."""
        return self.path / "log.txt"

    def write(self, name: str, text: str) -> Path:
        """Write a text file of the folder in one piece."""
        write_text(self.path / name, text)
        return self.path / name

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file; what is not finite becomes a string, since JSON has no word for it."""
        return self.write(name, json.dumps(_finite(content), indent=1) + "\n")

    def rows(self) -> list[dict[str, str]]:
        """The rows of ``metrics.csv`` as text; none where it does not exist."""
        if not self.metrics.exists():
            return []
        with self.metrics.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``metrics.csv`` anew: the header and ``rows``; a missing value is an empty field."""
        buffer = io.StringIO()
        found = dict.fromkeys(name for row in rows for name in row if name not in FIRST + LAST)
        validation = {name: None for name in found if not name.startswith("train_")}
        columns = (*FIRST, *(name for name in found if name not in validation), *validation, *LAST)
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([{c: _field(row.get(c)) for c in columns} for row in rows])
        write_text(self.metrics, buffer.getvalue())


def _field(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(k): _finite(v) for k, v in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(v) for v in content]
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return str(content)
    return content
