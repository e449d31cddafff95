"""``report.html`` of a run folder: what was trained, how it went, what came out, what one must know."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from frcnn import __version__
from frcnn.files import write_text
from frcnn.report.charts import precision_recall
from frcnn.report.curves import best_validation, training_charts
from frcnn.report.template import page_template, share

MAX_PICTURES = 24
PICTURE_SIDE = 960
"""Longer sides are reduced, so that the page stays small."""
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png")

Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    name: str
    source: str


def write_run_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder from what lies there; what is missing is left out.

    Read are ``config.yaml``, ``metrics.csv``, ``evaluation.json`` (``Report.to_dict``), ``run.json`` (a flat
    mapping of facts for the head: data, images, seconds, device, ...), ``notes.txt`` and the pictures of
    ``samples/``.

    Returns:
        The path of the page.

    Raises:
        ValueError: when the folder does not exist.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such run folder")
    page = render(folder)
    write_text(folder / "report.html", page)
    return folder / "report.html"


def render(folder: Path) -> str:
    """The page as text."""
    rows = read_metrics(folder / "metrics.csv")
    evaluation = _read_json(folder / "evaluation.json")
    config = _read_text(folder / "config.yaml")
    pictures, left_out = _pictures(folder / "samples")
    classes = _classes(evaluation)
    return page_template("run.html").render(
        name=folder.resolve().name,
        version=__version__,
        facts=_facts(config, _read_json(folder / "run.json"), rows, classes),
        headline=_headline(evaluation, rows),
        charts=training_charts(rows),
        classes=classes,
        metrics=list(_mapping(evaluation.get("metrics")).items()),
        measured=_measured(_mapping(evaluation.get("settings"))),
        pictures=pictures,
        left_out=left_out,
        notes=[line for line in _read_text(folder / "notes.txt").splitlines() if line.strip()],
        evaluation_notes=[str(note) for note in evaluation.get("notes") or ()],
        config=config,
    )


def read_metrics(path: Path) -> Rows:
    """The rows of ``metrics.csv``: column -> number; empty, unreadable and non-finite values are left out."""
    rows = []
    for row in csv.DictReader(io.StringIO(_read_text(path))):
        numbers = {}
        for key, text in row.items():
            try:
                value = float(text) if isinstance(text, str) else math.nan
            except ValueError:
                continue
            if isinstance(key, str) and math.isfinite(value):
                numbers[key] = value
        rows.append(numbers)
    return rows


def _headline(evaluation: Mapping[str, Any], rows: Rows) -> list[tuple[str, str, str]]:
    """(value, name, explanation) of the large numbers."""
    metrics = _mapping(evaluation.get("metrics"))
    cards = [(share(metrics[name]), name, hint) for name, hint in AP_HINTS.items() if name in metrics]
    best = best_validation(rows)
    if best is not None:
        cards.append((share(best.value), f"best validation {best.name}", best.where))
    speed = [row["images_per_second"] for row in rows if "images_per_second" in row]
    if speed:
        waiting = [row["data_share"] for row in rows if "data_share" in row]
        hint = (
            f"{100 * sum(waiting) / len(waiting):.0f} % of the time waiting for data"
            if waiting
            else "in training"
        )
        cards.append((f"{sorted(speed)[len(speed) // 2]:.1f}", "images / s", hint))
    return cards


AP_HINTS = {
    "AP": "IoU 0.50:0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "AR100": "recall, 100 detections",
    "AR1000": "recall, 1,000 proposals",
}


def _facts(
    config: str, run: Mapping[str, Any], rows: Rows, classes: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    try:
        tree = _mapping(yaml.safe_load(config))
    except yaml.YAMLError:
        tree = _mapping(None)
    facts: dict[str, str] = {}
    if "recipe" in tree:
        facts["recipe"] = str(tree["recipe"])
    facts |= {
        str(key).replace("_", " "): _fact(str(key), value) for key, value in run.items() if value is not None
    }
    if classes and "classes" not in facts:
        facts["classes"] = " · ".join(str(c["name"]) for c in classes)
    last = max((row["epoch"] for row in rows if "epoch" in row), default=None)
    if last is not None:
        facts.setdefault("epochs", f"{last:g}")
    steps = max((row["step"] for row in rows if "step" in row), default=None)
    if steps is not None:
        facts.setdefault("steps", f"{steps:,.0f}")
    if "seconds" in facts:
        facts["time"] = facts.pop("seconds")
    return list(facts.items())


def _fact(key: str, value: Any) -> str:
    if key == "seconds" and isinstance(value, int | float):
        minutes, seconds = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _classes(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    curves = evaluation.get("curves") or []
    classes = []
    for k, row in enumerate(evaluation.get("classes") or []):
        curve = curves[k] if k < len(curves) else None
        svg = precision_recall(curve, k % 6 + 1) if curve else None
        names = ("ap", "ap50", "precision", "recall", "f1", "threshold", "precision_all", "recall_all")
        counts = {name: int(row.get(name) or 0) for name in ("objects", "ignored", "detections")}
        shares = {name: row.get(name) for name in names}
        classes.append({"name": str(row.get("name", k)), "curve": svg} | counts | shares)
    return classes


def _measured(settings: Mapping[str, Any]) -> str:
    if not settings:
        return ""
    words = {"iou": "IoU ", "max_dets": "max-dets ", "score_floor": "score >= "}
    ends = {"images": " images", "objects": " gt", "ignored": " ignored"}
    return ", ".join(f"{words.get(key, '')}{value}{ends.get(key, '')}" for key, value in settings.items())


def _pictures(folder: Path) -> tuple[list[Picture], int]:
    """The pictures of a folder as data addresses, and how many more there are or could not be read."""
    found = (
        sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURE_ENDINGS) if folder.is_dir() else []
    )
    pictures = []
    for path in found[:MAX_PICTURES]:
        try:
            with Image.open(path) as image:
                shown = image.convert("RGB")
        except (OSError, ValueError):
            continue
        shown.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        buffer = io.BytesIO()
        shown.save(buffer, "JPEG", quality=85)
        source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        pictures.append(Picture(path.stem.replace("_", " "), source))
    return pictures, len(found) - len(pictures)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(_read_text(path) or "{}"))
    except json.JSONDecodeError:
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
