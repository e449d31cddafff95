from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from frcnn.config import Config
from frcnn.data.feed.loader import eval_loader, train_loader
from frcnn.data.packed import Packed
from frcnn.data.proposals import KEY, ProposalFile, attach, check_second_stage, match, read, write
from frcnn.data.sample import DataError, Dataset, Objects, Pictures
from frcnn.model.preprocess import pad_batch, prepare

Found = tuple[np.ndarray, np.ndarray]


def found(*rows: tuple[float, float, float, float, float]) -> Found:
    """Boxes and scores."""
    values = np.array(rows, np.float32).reshape(-1, 5)
    return values[:, :4], values[:, 4]


def dataset(root: Path, names: list[str], size: tuple[int, int] = (40, 60)) -> Dataset:
    n = len(names)
    sizes = np.tile(np.array([size], np.int32), (n, 1))
    pictures = Pictures(
        Packed(names), Packed([""] * n), np.arange(1, n + 1), sizes, sizes, np.ones(n, np.int8),
        np.array(["RGB"] * n), np.ones(n, np.int64),
    )  # fmt: skip
    objects = Objects(
        np.zeros(n + 1, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool),
        np.zeros(0, np.int32),
    )  # fmt: skip
    return Dataset(root, "made", ("thing",), pictures, objects)


def file_of(path: Path, names: list[str]) -> ProposalFile:
    write(path, names, [found((i, i, i + 5, i + 5, 0.5)) for i in range(len(names))])
    return read(path)


def test_nothing_goes_around(tmp_path: Path) -> None:
    assert write(tmp_path / "a.safetensors", [], []) == 0
    assert len(read(tmp_path / "a.safetensors")) == 0
    assert write(tmp_path / "b.safetensors", ["x.jpg"], [found()]) == 0
    boxes, scores = read(tmp_path / "b.safetensors").of(0)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_boxes_go_around_best_first(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.safetensors"
    results = [
        found((0, 0, 5, 5, 0.2), (1, 1, 6, 6, 0.9), (2, 2, 7, 7, 0.2)),
        found(),
        found((3, 3, 4, 4, 1)),
    ]
    assert write(path, ["x.jpg", "y/ü.jpg", Path("z.jpg")], iter(results)) == 4
    file = read(path)
    assert list(file.paths) == ["x.jpg", "y/ü.jpg", "z.jpg"] and len(file) == 3
    boxes, scores = file.of(0)
    assert boxes[:, 0].tolist() == [1, 0, 2] and scores.tolist() == pytest.approx([0.9, 0.2, 0.2])
    assert len(file.of(1)[0]) == 0 and file.of(2)[0].tolist() == [[3, 3, 4, 4]]
    assert file.boxes.dtype == np.float32 and isinstance(file.boxes, np.memmap)


def test_a_copy_for_another_process_carries_no_boxes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, ["x.jpg"], [(np.ones((50_000, 4), np.float32), np.linspace(0, 1, 50_000))])
    file = read(path)
    before = file.of(0)[0]
    sent = pickle.dumps(file)
    assert len(sent) < 2000 and np.array_equal(pickle.loads(sent).of(0)[0], before)


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    one, same, other = (file_of(tmp_path / f"{k}.safetensors", names) for k, names in
                        enumerate((["a.jpg"], ["a.jpg"], ["b.jpg"])))  # fmt: skip
    assert one.digest == same.digest != other.digest


@pytest.mark.parametrize(
    ("pictures", "results", "message"),
    [
        (["a.jpg"], [], "results of 0 for 1 pictures"),
        ([], [found()], "results of 1 for 0 pictures"),
        (["a.jpg"], [(np.zeros((2, 4)), np.zeros(1))], "2 boxes with 1 scores"),
    ],
)
def test_what_does_not_belong_together_is_not_written(
    tmp_path: Path, pictures: list[str], results: list[Found], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.safetensors", pictures, results)
    assert not list(tmp_path.iterdir())


def damaged(path: Path, **changes: object) -> None:
    """A proposals file of one picture and one box, something in it replaced."""
    content: dict[str, object] = {
        "boxes": np.ones((1, 4), np.float32), "scores": np.ones(1, np.float32), "offsets": np.array([0, 1]),
    }  # fmt: skip
    header = {"format": 1, "version": "1", "pictures": ["a.jpg"]}
    header |= {k: v for k, v in changes.items() if k in header}  # type: ignore[dict-item]
    content |= {k: v for k, v in changes.items() if k in content}
    arrays = {k: v for k, v in content.items() if v is not None}
    safetensors.numpy.save_file(arrays, path, metadata={KEY: json.dumps(header)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pictures": []}, "damaged"),
        ({"pictures": [1]}, "damaged"),
        ({"pictures": "a.jpg"}, "damaged"),
        ({"format": 2}, "update"),
        ({"offsets": None}, "damaged"),
        ({"scores": None}, "damaged"),
        ({"boxes": np.ones((1, 4))}, "damaged"),
        ({"boxes": np.ones((1, 5), np.float32)}, "damaged"),
        ({"boxes": np.ones((2, 4), np.float32)}, "damaged"),
        ({"scores": np.ones(2, np.float32)}, "damaged"),
        ({"offsets": np.array([0, 2])}, "damaged"),
        ({"offsets": np.array([1, 1])}, "damaged"),
        ({"offsets": np.array([0, 2, 1]), "pictures": ["a.jpg", "b.jpg"]}, "damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    damaged(tmp_path / "good.safetensors")
    assert len(read(tmp_path / "good.safetensors")) == 1
    damaged(tmp_path / "bad.safetensors", **changes)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "bad.safetensors")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such proposals file"):
        read(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("not that")
    with pytest.raises(DataError, match="not a readable safetensors file"):
        read(tmp_path / "text.safetensors")
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"boxes": 1}))
    with pytest.raises(DataError, match="not a readable safetensors file"):
        read(tmp_path / "pickle.safetensors")
    safetensors.numpy.save_file({"boxes": np.ones((1, 4))}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="without proposals"):
        read(tmp_path / "model.safetensors")


def test_a_proposal_that_is_no_number_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", ["a.jpg"], [found((0, 0, np.nan, 5, 0.5))])
    with pytest.raises(DataError, match=r"a proposal of a\.jpg is no number"):
        read(tmp_path / "a.safetensors").of(0)


@pytest.mark.parametrize(
    ("stored", "asked", "rows"),
    [
        ([], [], []),
        (["/far/away/b.jpg", "/far/away/a.jpg"], ["a.jpg", "b.jpg"], [1, 0]),
        (["x/train/a.jpg", "x/val/a.jpg"], ["val/a.jpg", "train/a.jpg"], [1, 0]),
        (["a.jpg", "train/a.jpg"], ["train/a.jpg"], [1]),
        (["other.jpg", "a.jpg"], ["train/a.jpg"], [1]),
        (["ba.jpg", "a.jpg"], ["a.jpg"], [1]),  # parts of a path, not letters
    ],
)
def test_the_longest_equal_end_wins(
    tmp_path: Path, stored: list[str], asked: list[str], rows: list[int]
) -> None:
    file = file_of(tmp_path / "p.safetensors", stored)
    assert match(dataset(tmp_path / "data", asked), file).tolist() == rows


@pytest.mark.parametrize(
    ("stored", "asked", "message"),
    [
        ([], ["a.jpg"], r"1 pictures of the data set have no proposals in it \(a\.jpg\)"),
        (["x/a.jpg", "y/a.jpg"], ["a.jpg"], r"1 pictures .* in it more than once \(a\.jpg\); name them"),
        (["train/a.jpg"], ["train/a.jpg", "val/a.jpg"], r"1 pictures .* no proposals in it \(val/a\.jpg\)"),
        (["val/a.jpg"], ["train/a.jpg", "val/a.jpg"], r"1 pictures .* no proposals in it \(train/a\.jpg\)"),
        (["A.jpg"], ["a.jpg"], "no proposals in it"),
        (
            [],
            [f"{k}.jpg" for k in range(7)],
            r"7 pictures .* \(0\.jpg, 1\.jpg, 2\.jpg, 3\.jpg, 4\.jpg, \.\.\.\); make them",
        ),
    ],
)
def test_missing_and_ambiguous_pictures_are_named(
    tmp_path: Path, stored: list[str], asked: list[str], message: str
) -> None:
    file = file_of(tmp_path / "p.safetensors", stored)
    with pytest.raises(DataError, match=message):
        match(dataset(tmp_path / "data", asked), file)


def test_subsets_keep_their_own(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg"]
    data = attach(dataset(tmp_path, names), file_of(tmp_path / "p.safetensors", names[::-1]))
    part = data.subset([2, 0])
    assert part.proposals is not None and data.proposals is not None
    assert part.proposals.boxes(0)[0, 0] == data.proposals.boxes(2)[0, 0] == 0
    assert part.proposals.boxes(1)[0, 0] == 2
    assert dataset(tmp_path, names).subset([1]).proposals is None


def tiny(**data: object) -> Config:
    config = Config()
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"workers": 0, **data}),
            "preprocess": config.preprocess.model_copy(update={"fixed_size": (80, 30)}),
            "train": config.train.model_copy(update={"batch": 2}),
        }
    )


def with_pictures(root: Path, boxes: list[Found]) -> Dataset:
    names = [f"{k}.png" for k in range(len(boxes))]
    for name in names:
        Image.new("RGB", (60, 40), (9, 9, 9)).save(root / name)
    write(root / "p.safetensors", names, boxes)
    return attach(dataset(root, names), read(root / "p.safetensors"))


BOXES = [found((10, 10, 30, 20, 0.1), (0, 0, 90, 4, 0.8)), found()]
"""Of pictures 40 high and 60 wide; the second box reaches beyond the border."""


def test_the_loader_resizes_and_cuts_them(tmp_path: Path) -> None:
    data = with_pictures(tmp_path, BOXES)
    (batch,) = eval_loader(data, tiny(), prepare, pad_batch, 2)
    assert batch.images.given is not None and batch.images.given.shape == (2, 8, 4)
    first, second = batch.images.given[list(batch.image_ids).index(1)], batch.images.given[1]
    assert first[:2].tolist() == [[0, 0, 30, 8], [5, 20, 15, 40]]  # halved across, doubled down
    assert not first[2:].any() and not second.any()


def test_the_loader_flips_them_with_the_picture(tmp_path: Path) -> None:
    data = with_pictures(tmp_path, BOXES)
    (batch,) = train_loader(data, tiny(flip=1.0), prepare, pad_batch, seed=0)
    given = batch.images.given
    assert given is not None
    first = given[list(batch.image_ids).index(1)]
    assert first[:2].tolist() == [[0, 0, 30, 8], [15, 20, 25, 40]]


def test_pictures_that_cannot_be_read_have_none(tmp_path: Path) -> None:
    data = with_pictures(tmp_path, [found((1, 1, 9, 9, 0.5))] * 2)
    (tmp_path / "0.png").write_bytes(b"no picture")
    (batch,) = train_loader(data, tiny(on_bad_image="skip"), prepare, pad_batch, seed=0)
    given = batch.images.given
    assert given is not None and len(batch.skipped) == 1
    assert not given[list(batch.image_ids).index(1)].any()
    assert given[list(batch.image_ids).index(2)].any()


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "0.png")
    (batch,) = eval_loader(dataset(tmp_path, ["0.png"]), tiny(), prepare, pad_batch, 2)
    assert batch.images.given is None


@pytest.mark.parametrize("detector", ["rpn", "fcos"])
def test_who_has_no_second_stage_needs_none(detector: str) -> None:
    check_second_stage(Config())
    with pytest.raises(ValueError, match=rf"proposals are for a second stage, .*detector {detector}"):
        check_second_stage(Config().model_copy(update={"detector": detector}))
