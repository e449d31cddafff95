from __future__ import annotations

from frcnn.report.curves import best_validation, training_charts

Row = dict[str, float]


def test_nothing_measured_gives_no_chart() -> None:
    assert training_charts([]) == [] and best_validation([]) is None
    assert training_charts([{"epoch": 1}]) == []


def test_two_stages_show_parts_accuracy_and_precision() -> None:
    rows: list[Row] = [
        {"epoch": e, "step": 10 * e, "lr": 0.1, "train_total": 3 / e, "train_rpn_box": 1 / e,
         "train_tp": 3.0 * e, "train_fg": 12.0, "train_tf": 90.0, "train_bg": 100.0,
         "val_total": 2.0, "AP": 0.1 * e, "AP50": 0.2}
        for e in (1, 2)
    ]  # fmt: skip
    charts = {chart.title: chart.svg for chart in training_charts(rows)}
    assert list(charts) == [
        "Loss", "Validation AP", "Parts of the training loss", "RoIs classified rightly", "Learning rate",
    ]  # fmt: skip
    assert (
        "RPN box" in charts["Parts of the training loss"] and "tp" not in charts["Parts of the training loss"]
    )
    assert "foreground" in charts["RoIs classified rightly"]
    best = best_validation(rows)
    assert best is not None and (best.name, best.value, best.where) == ("AP", 0.2, "epoch 2")


def test_accuracy_is_a_share_and_left_out_without_such_rois() -> None:
    rows: list[Row] = [
        {"step": 1, "train_tp": 0.0, "train_fg": 0.0, "train_tf": 90.0, "train_bg": 100.0},
        {"step": 2, "train_tp": 1.0, "train_fg": 4.0, "train_tf": 50.0, "train_bg": 100.0},
    ]
    (chart,) = training_charts(rows)
    assert "foreground" in chart.svg and ">0.8<" in chart.svg


def test_proposals_alone_show_recall_and_losses_of_any_name() -> None:
    rows: list[Row] = [
        {"epoch": 1, "step": 5, "train_total": 1.0, "train_odd_loss": 1.0, "AR100": 0.5, "AR1000": 0.7},
        {"epoch": 2, "step": 9, "train_total": 0.9, "train_odd_loss": 0.9, "AR100": 0.4, "AR1000": 0.8},
    ]
    charts = {chart.title: chart.svg for chart in training_charts(rows)}
    assert "AR@100" in charts["Validation recall"] and "AR@1000" in charts["Validation recall"]
    assert "odd_loss" in charts["Parts of the training loss"] and "Validation AP" not in charts
    best = best_validation(rows)
    assert best is not None and (best.name, best.value, best.where) == (
        "AR@100",
        0.5,
        "epoch 1",
    )
