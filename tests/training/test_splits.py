"""Groups, folds and files of splits from the command line, as far as the run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import PICTURES, tiny_config, write_voc

from frcnn.cli import run
from frcnn.settings import to_yaml, with_settings

SMALL = [
    "backbone.name=test_byobnet",
    "backbone.levels=[1,2,3]",
    "anchors.sizes=[[12],[32]]",
    "fpn.extra_pool=false",
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures in no split."""
    root = write_voc(tmp_path_factory.mktemp("plain"), {"all": PICTURES * 2})
    (root / "ImageSets/Main/all.txt").unlink()
    (root / "tiny.yaml").write_text(to_yaml(with_settings(tiny_config(epochs=1), SMALL)))
    return root


def train(data: Path, out: Path, *words: str) -> int:
    return run(["train", str(data), "--config", str(data / "tiny.yaml"), "--out", str(out), *words])


def splits(folder: Path) -> dict[str, list[str]]:
    return json.loads((folder / "splits.json").read_text())["splits"]


def test_folds_and_their_file_are_used_again(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = r"all00(\d)"
    assert train(plain, tmp_path, "--name", "one", "--folds", "3", "--fold", "1", "--group-by", pattern) == 0
    said = (tmp_path / "one/log.txt").read_text()
    assert "fold 1 of 0 to 2 validates (seed 0)" in said
    assert f"group-by {pattern!r}: 10 pictures in 10 groups, the largest of 1; 0 do not match" in said
    first = splits(tmp_path / "one")
    assert [len(first[name]) for name in ("train", "val")] in ([7, 3], [6, 4])
    assert train(plain, tmp_path, "--name", "two", "--splits", str(tmp_path / "one"), "--seed", "9") == 0
    file = tmp_path / "two/splits.json"
    assert splits(file.parent) == first
    assert run(["train", "--resume", str(tmp_path / "two"), "--steps", "5"]) == 0
    assert splits(file.parent) == first
    assert run(["train", "--resume", str(tmp_path / "two"), "--splits", str(file)]) != 0
    assert "a resumed run keeps its pictures; leave out --splits" in capsys.readouterr().err
    capsys.readouterr()
    assert run(["eval", str(tmp_path / "one/best.safetensors"), str(plain), "--splits", str(file)]) == 0
    assert f"measured on split val of {file}" in capsys.readouterr().err
    assert run(["eval", str(tmp_path / "one"), str(plain), "--splits", str(file), "--split", "test"]) != 0
    assert "no pictures for split test; name one of its splits: train (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--group-by", "("], "group_by '(' is not a regular expression (missing ), unterminated"),
        (["--group-by", "nowhere"], "group_by 'nowhere' is found in no path of a picture; one of them is"),
        (["--fold", "2"], "fold 2 of 0: folds is 2 or more (0: none)"),
        (["--folds", "3", "--fold", "3"], "fold 3 of 3: folds is 2 or more"),
        (["--folds", "11"], "10 pictures do not make 11 folds"),
        (["--folds", "3", "--val", "none"], "folds 3 changes nothing, because there is no validation"),
        (["--splits", "gone.json"], "gone.json: cannot be read"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert train(plain, tmp_path, *words) != 0
    said = capsys.readouterr().err.strip()
    assert sentence in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_one_choice_of_pictures_is_enough(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.json"
    file.write_text(
        json.dumps({"splits": {"train": ["JPEGImages/all000.jpg"], "val": ["JPEGImages/all9.jpg"]}})
    )
    assert train(plain, tmp_path, "--splits", str(file), "--folds", "3") != 0
    assert f"splits {file} and folds 3 both choose pictures; leave one out" in capsys.readouterr().err
    assert train(plain, tmp_path, "--splits", str(file)) != 0
    assert "1 of its pictures are not in" in capsys.readouterr().err
