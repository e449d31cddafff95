from __future__ import annotations

import pytest

from frcnn.training.lines import epoch_line, metric_name, weighted_mean

ROW: dict[str, float | int | None] = {
    "epoch": 2, "train_total": 1.5, "images_per_second": 12.34, "data_share": 0.01,
}  # fmt: skip
COUNTS = {"train_tp": 3.0, "train_fg": 12.0, "train_tf": 97.0, "train_bg": 100.0}


def test_a_mean_counts_batches() -> None:
    assert weighted_mean([{"a": 1.0, "count": 1.0}, {"a": 4.0, "count": 2.0}])["a"] == 3
    assert weighted_mean([{"a": 1.0, "count": 1.0}, {"a": 1.0, "tp": 4.0, "count": 1.0}])["tp"] == 2


@pytest.mark.parametrize(
    ("row", "shown", "better", "text"),
    [
        (ROW, None, False, "epoch 2/9  loss 1.500  12.3 images/s, data 1%"),
        (
            ROW | COUNTS | {"val_total": 2.0, "AP": 0.25, "AP50": None},
            ("AP", "AP50"),
            True,
            "epoch 2/9  loss 1.500  fg 0.25 bg 0.97  val loss 2.000  AP 0.250  AP50 n/a (best)"
            "  12.3 images/s, data 1%",
        ),
        (
            ROW | {"val_total": 2.0, "AR100": 0.5},
            ("AR100",),
            False,
            "epoch 2/9  loss 1.500  val loss 2.000  AR@100 0.500  12.3 images/s, data 1%",
        ),
        (
            ROW | COUNTS | {"train_fg": 0.0, "train_tp": 0.0, "data_share": 0.3},
            None,
            False,
            "epoch 2/9  loss 1.500  fg n/a bg 0.97  12.3 images/s, data 30% (the loader is slow: "
            "more data.workers, or smaller picture files)",
        ),
    ],
    ids=["bare", "two stages", "proposals", "no object"],
)
def test_the_line_of_an_epoch(
    row: dict[str, float | int | None], shown: tuple[str, ...] | None, better: bool, text: str
) -> None:
    assert epoch_line(row, 9, shown, better) == text


def test_names_of_metrics() -> None:
    assert [metric_name(name) for name in ("AP", "AR100")] == ["AP", "AR@100"]
