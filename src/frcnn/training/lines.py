"""What a run says after an epoch, and the numbers in it.

Letters: P losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from frcnn.report.curves import NAMES
from frcnn.training.folder import Row
from frcnn.training.validation import Validation

SLOW_DATA = 0.2


def metric_name(name: str) -> str:
    """A metric as it stands in a line."""
    return NAMES.get(name, name)


def weighted_mean(means: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of means, weighted by the ``count`` of each; what one does not name counts 0."""
    total = sum(m["count"] for m in means)
    names = dict.fromkeys(name for m in means for name in m)
    return {name: sum(m.get(name, 0.0) * m["count"] for m in means) / total for name in names}


def validation_row(validation: Validation) -> dict[str, float | None]:
    """The columns of ``metrics.csv`` that a validation fills."""
    losses: dict[str, float | None] = {f"val_{name}": value for name, value in validation.losses.items()}
    return losses | {name: validation.report.metrics.get(name) for name in validation.shown}


def epoch_line(row: Row, epochs: int, shown: Sequence[str] | None, better: bool) -> str:
    """The line of a finished epoch.

    Args:
        row: of ``metrics.csv``.
        epochs: of the whole run.
        shown: metrics of its validation; None without one.
        better: whether it is the best one so far.
    """
    text = f"epoch {row['epoch']}/{epochs}  loss {_number(row.get('train_total'))}"
    if "train_fg" in row:
        shares = ((name, _share(row, right, name)) for right, name in (("tp", "fg"), ("tf", "bg")))
        text += "  " + " ".join(f"{name} {_number(share, 2)}" for name, share in shares)
    if shown is not None:
        metrics = "  ".join(f"{metric_name(name)} {_number(row.get(name))}" for name in shown)
        text += f"  val loss {_number(row.get('val_total'))}  {metrics}{' (best)' if better else ''}"
    share = float(row["data_share"] or 0)
    text += f"  {_number(row.get('images_per_second'), 1)} images/s, data {share:.0%}"
    if share > SLOW_DATA:
        text += " (the loader is slow: more data.workers, or smaller picture files)"
    return text


def _share(row: Row, right: str, of: str) -> float | None:
    """Share of the foreground (background) RoIs that the second stage got right."""
    whole = row[f"train_{of}"]
    return (row[f"train_{right}"] or 0.0) / whole if whole else None


def _number(value: float | None, digits: int = 3) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"
