"""What a data check found: single findings, and the report that groups them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

from frcnn.data.sample import DataError

Severity = Literal["error", "warn", "note"]
SHOWN = 5
"""Findings of one kind that are printed; the JSON report lists all."""

TITLES = {
    "D01": "box has no area",
    "D02": "box vanishes at the training size",
    "D03": "box reaches outside the picture",
    "D04": "box looks like pixels, not 0 to 1",
    "D05": "box looks like x1, y1, x2, y2",
    "D06": "duplicate box",
    "D07": "class name",
    "D08": "class without boxes",
    "D09": "picture or annotation twice",
    "D10": "annotation for an unknown picture",
    "D11": "background picture",
    "D12": "picture or annotation missing",
    "D13": "picture cannot be read",
    "D14": "annotated size differs from the picture",
    "D15": "picture is converted",
    "D16": "annotation cannot be read",
    "D17": "no pictures left",
    "D18": "same picture in two splits",
    "D19": "unusual picture",
    "D20": "difficult, crowd or ignored box",
    "D21": "near-duplicate box",
    "D22": "near-duplicate pictures",
    "D23": "objects may be unlabelled",
    "D24": "box differs from its mask",
}


class Problem(NamedTuple):
    """What is wrong in a file, and where, before it is said which file that is."""

    line: int
    reason: str
    code: str = "D16"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        code: D01 ... D24.
        severity: ``error`` stops training and evaluation; ``warn`` and ``note`` do not.
        message: what is wrong, with the offending value.
        path: the file; "" when it concerns the whole data set.
        line: line of that file, from 1; 0: no line; below 0: ``annotations[-1 - line]`` of a COCO file.
        action: what is done about it, or what to do.
        splits: splits it concerns; empty: decided by ``path``.
        kind: what it is one of, in the plural ("DontCare boxes"), where the action is said with their number.
        rows: the boxes it is about, positions in the checked data set; empty: ``path`` and ``line`` tell.
        other: another picture file that it is about, beside ``path``.
    """

    code: str
    severity: Severity
    message: str
    path: str = ""
    line: int = 0
    action: str = ""
    splits: tuple[str, ...] = ()
    kind: str = ""
    rows: tuple[int, ...] = ()
    other: str = ""

    @property
    def place(self) -> str:
        """``path:line`` or ``path: annotations[3]``, as far as known."""
        if self.line < 0:
            return f"{self.path}: {entry(self.line)}"
        return f"{self.path}:{self.line}" if self.line else self.path

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.path else self.message


def entry(line: int) -> str:
    """The place in a COCO file that a line below 0 means."""
    return f"annotations[{-1 - line}]"


_RANK: dict[str, int] = {"error": 0, "warn": 1, "note": 2}


def group_action(group: Sequence[Finding]) -> str:
    """What is done about a group, with its number where that is said: ``4 DontCare boxes: ...``."""
    first = group[0]
    return f"{len(group)} {first.kind}: {first.action}" if first.kind else first.action


@dataclass(frozen=True)
class CheckReport:
    """All findings of one check.

    Attributes:
        source: the data set's folder.
        findings: sorted by code, then as found.
        counts: images, with_boxes, background, boxes, ignored.
        decoded: whether pictures were decoded, not only their headers read.
    """

    source: str
    findings: tuple[Finding, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    decoded: bool = False

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop training and evaluation."""
        return self.of("error")

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)

    def with_code(self, code: str) -> tuple[Finding, ...]:
        """The findings of one code."""
        return tuple(f for f in self.findings if f.code == code)

    def groups(self, findings: Iterable[Finding] | None = None) -> list[list[Finding]]:
        """Findings of the same code, severity and action together; errors first."""
        grouped: dict[tuple[int, str, str], list[Finding]] = {}
        for item in self.findings if findings is None else findings:
            grouped.setdefault((_RANK[item.severity], item.code, item.action), []).append(item)
        return [grouped[key] for key in sorted(grouped)]

    def format(self, findings: Iterable[Finding] | None = None) -> str:
        """Text for a terminal: counts, then every group with its first files and lines and the action."""
        lines = [self.summary()] if findings is None else []
        for group in self.groups(findings):
            first = group[0]
            lines.append(f"{first.code} {first.severity}: {TITLES.get(first.code, '')} ({len(group)})")
            lines += [f"    {item}" for item in group[:SHOWN]]
            if len(group) > SHOWN:
                lines.append(f"    and {len(group) - SHOWN} more")
            if first.action:
                lines.append(f"    -> {group_action(group)}")
        return "\n".join(lines)

    def summary(self) -> str:
        """One line: pictures, boxes, and how much was found."""
        c = self.counts
        found = f"errors {len(self.errors)}, warnings {len(self.of('warn'))}, notes {len(self.of('note'))}"
        return (
            f"images {c.get('images', 0)}: {c.get('with_boxes', 0)} with boxes, {c.get('background', 0)} "
            f"background (kept); boxes {c.get('boxes', 0)}, {c.get('ignored', 0)} ignored; {found}"
        )

    def flag_lines(self) -> list[str]:
        """What becomes of flagged boxes, a line for every kind: ``4 DontCare boxes: ...``."""
        return [
            group_action(group) if group[0].kind else str(group[0])
            for group in self.groups(self.with_code("D20"))
        ]

    def strict(self) -> CheckReport:
        """The same with every warning as an error."""
        return replace(
            self,
            findings=tuple(
                replace(f, severity="error") if f.severity == "warn" else f for f in self.findings
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "source": self.source,
            "counts": dict(self.counts),
            "findings": [_plain(f) for f in self.findings],
        }

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1)

    def raise_errors(self) -> None:
        """Do nothing without errors.

        Raises:
            DataError: with every error, grouped, the first few of each kind with file and line.
        """
        if not self.errors:
            return
        if len(self.errors) == 1:
            only = self.errors[0]
            raise DataError(f"{only.code} {only}" + (f"; {only.action}" if only.action else ""))
        raise DataError(f"{self.source}: {len(self.errors)} errors in the data.\n{self.format(self.errors)}")


def _plain(finding: Finding) -> dict[str, object]:
    place = {"line": 0, "annotation": -1 - finding.line} if finding.line < 0 else {}
    values = {key: value for key, value in asdict(finding).items() if key != "rows"}  # mean nothing in a file
    return {**values, **place}
