"""The page of a data check: what was found, with pictures, and what the objects are like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from markupsafe import Markup

import frcnn
from frcnn.config import Config
from frcnn.data.checks.locate import Place, locate
from frcnn.data.findings import TITLES, CheckReport, Finding, group_action
from frcnn.data.naming import shown_names
from frcnn.data.sample import Dataset
from frcnn.files import write_text
from frcnn.report.bars import bar_chart
from frcnn.report.template import page_template
from frcnn.report.thumbnails import MAX_BYTES, MAX_PICTURES, thumbnails
from frcnn.survey.advice import LEAST_SIDE
from frcnn.survey.coverage import IOU_STEPS, LOW_IOU, Share
from frcnn.survey.survey import Survey

MAX_CARDS = 1200
"""Findings on a page; the JSON file has all."""
COUNT_STEPS = 16
WORDS = {"error": "error", "warn": "warning", "note": "note"}


@dataclass(frozen=True)
class Card:
    """One finding as the page shows it.

    Attributes:
        code, severity, title, message, place, action: of the finding; ``place`` below the data set's folder.
        name: the class in question, "" for none.
        splits: those it concerns, with blanks between.
        picture: the small picture; empty for none.
        pair: whether that shows two pictures.
    """

    code: str
    severity: str
    title: str
    message: str
    place: str
    action: str
    name: str
    splits: str
    picture: Markup
    pair: bool


@dataclass(frozen=True)
class Chart:
    """A chart with its title and a sentence below it."""

    title: str
    svg: Markup
    hint: str = ""


def write_check_page(
    path: str | Path, dataset: Dataset, report: CheckReport, found: Survey, config: Config
) -> None:
    """Write the page, which needs no other file and no network.

    Args:
        path: of the HTML file.
        dataset: that was checked, as it was read.
        report: of the check.
        found: the survey of the same data set.
        config: what it was checked for.
    """
    write_text(path, render(dataset, report, found, config))


def render(dataset: Dataset, report: CheckReport, found: Survey, config: Config) -> str:
    """The page as text."""
    findings = in_turns(report, MAX_CARDS)
    places = locate(dataset, findings)
    pictures = thumbnails(dataset, findings, places)
    cards = [
        _card(dataset, finding, place, pictures.get(i, Markup("")))
        for i, (finding, place) in enumerate(zip(findings, places, strict=True))
    ]
    return page_template("check.html").render(
        name=dataset.root.resolve().name,
        kind=dataset.format,
        version=frcnn.__version__,
        report=report,
        counts=report.counts,
        groups=[_group(group) for group in report.groups()],
        cards=cards,
        total=len(report.findings),
        limits=(MAX_CARDS, MAX_PICTURES, MAX_BYTES // 1_000_000),
        shown_pictures=len(pictures),
        codes=sorted({c.code for c in cards}),
        names=sorted({c.name for c in cards if c.name}),
        splits=[name for name in dataset.splits if any(name in c.splits.split() for c in cards)],
        charts=charts(dataset, found, config),
        found=found,
        shares=_shares(found),
        low_iou=LOW_IOU,
        classes=_classes(dataset),
        split_sizes=[(name, len(rows)) for name, rows in dataset.splits.items()],
        size=_size(config),
        config=config,
        words=WORDS,
    )


def in_turns(report: CheckReport, limit: int) -> list[Finding]:
    """The findings, errors first; of more than ``limit``, those of all kinds in turn."""
    groups = report.groups()
    if len(report.findings) <= limit:
        return [finding for group in groups for finding in group]
    kept = [f for turn in zip_longest(*groups) for f in turn if f is not None][:limit]
    return [f for group in CheckReport(report.source, tuple(kept)).groups() for f in group]


def _card(dataset: Dataset, finding: Finding, place: Place, picture: Markup) -> Card:
    root = str(dataset.root)
    where = finding.place
    if where.startswith(root) and where != root:
        where = where[len(root) :].lstrip("/\\")
    return Card(
        finding.code,
        finding.severity,
        TITLES.get(finding.code, ""),
        finding.message,
        where if finding.path else "",
        finding.action,
        dataset.written_name(place.rows[0]) if place.rows else "",
        " ".join(place.splits),
        picture,
        place.other >= 0,
    )


def _group(group: Sequence[Finding]) -> tuple[str, str, str, int, str]:
    first = group[0]
    return first.code, first.severity, TITLES.get(first.code, ""), len(group), group_action(group)


def charts(dataset: Dataset, found: Survey, config: Config) -> list[Chart]:
    """Sizes, shapes, anchor coverage, and objects of a picture; those without a value are left out."""
    names = list(found.classes)
    sides, aspects = found.sides, found.aspects
    made = [
        Chart(
            f"Short side at {_size(config)}",
            bar_chart(sides.edges, sides.counts.tolist(), names, "pixels", LEAST_SIDE),
            f"Median {sides.middle:.0f} px, 5 % below {sides.low:.0f} px. Objects below {LEAST_SIDE:g} px, "
            "where a line is drawn if any are that small, are hard to find.",
        ),
        Chart(
            "Width / height",
            bar_chart(aspects.edges, aspects.counts.tolist(), names, "width / height", 1.0),
            f"Median {aspects.middle:.2f}, 90 % from {aspects.low:.2f} to {aspects.high:.2f}. The line is "
            "at squares.",
        ),
    ]
    if found.covered is not None and found.objects:
        edges = [i / IOU_STEPS for i in range(IOU_STEPS + 1)]
        fitted = found.covered_then if found.setting else None
        made.append(
            Chart(
                "Best IoU with an anchor",
                bar_chart(
                    edges,
                    [[n] for n in found.covered.histogram],
                    ["recipe's anchors"],
                    "IoU",
                    LOW_IOU,
                    open_end=False,
                    outline=("fitted anchors", fitted.histogram) if fitted else None,
                ),
                f"Objects to the left of the line, at {LOW_IOU}, are hard to find.",
            )
        )
    made.append(_objects_chart(dataset))
    return [chart for chart in made if chart.svg]


def _objects_chart(dataset: Dataset) -> Chart:
    """How many pictures have how many objects."""
    real = ~dataset.objects.ignore
    counts = np.bincount(dataset.objects.owners()[real], minlength=len(dataset))
    most = int(counts.max(initial=0))
    step = max(-(-(most + 1) // COUNT_STEPS), 1)
    edges = [i * step for i in range(most // step + 2)]
    rows = [[int(n)] for n in np.histogram(counts, edges)[0]]
    text = f"{len(dataset)} pictures, at most {most} objects in one."
    return Chart("Objects of a picture", bar_chart(edges, rows, ["pictures"], "objects", None, False), text)


def _shares(found: Survey) -> list[tuple[str, list[tuple[Share, Share | None]]]]:
    """The rows of the coverage table: before, and where anchors were fitted, after."""
    before, after = found.covered, found.covered_then if found.setting else None
    if before is None or not found.objects:
        return []
    total = [(before.total, after.total if after else None)]
    sizes = list(zip_longest(before.by_size, after.by_size if after else ()))
    classes = list(zip_longest(before.by_class, after.by_class if after else ()))
    return [("all", total), ("by size at training", sizes), ("by class", classes)]


def _classes(dataset: Dataset) -> list[tuple[str, int, int, list[int]]]:
    """Name, pictures, boxes, and boxes of every split."""
    parts = [
        dataset.subset(name).class_counts().tolist() for name, rows in dataset.splits.items() if len(rows)
    ]
    sums = zip(
        shown_names(dataset), dataset.class_images().tolist(), dataset.class_counts().tolist(), strict=True
    )
    return [(*row, [part[k] for part in parts]) for k, row in enumerate(sums)]


def _size(config: Config) -> str:
    spec = config.preprocess
    return f"{spec.fixed_size[0]} x {spec.fixed_size[1]} px" if spec.fixed_size else f"{spec.min_size} px"
