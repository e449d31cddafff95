"""Model files: what is written comes back, foreign files are refused with a sentence and never executed."""

from __future__ import annotations

import json
import os
import pickle
import stat
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

import frcnn
from frcnn.config import Config
from frcnn.recipes import RECIPES, recipe
from frcnn.settings import ConfigError
from frcnn.weights.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    read_weights,
    save_checkpoint,
)

STATE = {"a.weight": torch.randn(3, 4, 2, 2), "a.count": torch.tensor(7), "half": torch.randn(5).bfloat16()}


def checkpoint(**values: object) -> Checkpoint:
    return Checkpoint(**({"state": STATE, "config": Config(), "classes": ("cat", "dog")} | values))  # type: ignore


def test_an_empty_state_and_no_class_come_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", checkpoint(state={}, classes=()))
    stored = load_checkpoint(tmp_path / "m.safetensors")
    assert stored.state == {} and stored.classes == ()
    assert stored.thresholds is None and stored.metrics == {}


@pytest.mark.parametrize("name", RECIPES)
def test_everything_comes_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep" / "er" / "m.safetensors"
    classes = ("Katze", "犬", 'with "quotes"\nand lines')
    given = checkpoint(
        config=recipe(name), classes=classes, thresholds=(0.1, 0.25, 0.9), metrics={"AP": 0.5, "AP50": 0.75}
    )
    save_checkpoint(path, given)
    stored = load_checkpoint(path)
    assert stored.config == given.config
    assert (stored.classes, stored.thresholds, stored.metrics) == (classes, given.thresholds, given.metrics)
    assert stored.version == frcnn.__version__
    assert list(stored.state) == sorted(STATE)
    for key, value in STATE.items():
        assert stored.state[key].dtype == value.dtype and stored.state[key].equal(value)


def test_tensors_of_any_memory_layout_are_written(tmp_path: Path) -> None:
    weight = torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    save_checkpoint(
        tmp_path / "m.safetensors", checkpoint(state={"w": weight, "t": torch.arange(6).view(2, 3).T})
    )
    stored = load_checkpoint(tmp_path / "m.safetensors").state
    assert stored["w"].equal(weight) and not stored["w"].requires_grad
    assert stored["t"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, checkpoint())
    before = path.read_bytes()

    def half(tensors: object, name: str, metadata: object) -> None:
        Path(name).write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, checkpoint(classes=("other",)))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"], "no rest is left behind"


def test_the_file_is_readable_for_others(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", checkpoint())
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o644


def one_sentence(message: str, path: Path) -> bool:
    return message.startswith(str(path)) and "\n" not in message and "Traceback" not in message


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.victim}'",)


@pytest.mark.parametrize("read", [read_weights, load_checkpoint])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".safetensors"])
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_malicious_pickle_is_refused_and_executes_nothing(
    tmp_path: Path, read: object, suffix: str, raw: bool
) -> None:
    victim, path = tmp_path / "executed", tmp_path / f"weights{suffix}"
    if raw:
        path.write_bytes(pickle.dumps({"w": Malicious(victim)}))
    else:
        torch.save({"state_dict": {"w": torch.zeros(2)}, "extra": Malicious(victim)}, path)
    with pytest.raises(CheckpointError) as caught:
        read(path)  # type: ignore[operator]
    assert one_sentence(str(caught.value), path)
    assert not victim.exists()


def test_the_malicious_pickle_would_have_worked(tmp_path: Path) -> None:
    victim = tmp_path / "executed"
    pickle.loads(pickle.dumps(Malicious(victim)))
    assert victim.exists()


GARBAGE = [b"", b"\x00", b"hello, I am a text", b"PK\x03\x04 a broken zip", b"\x80\x02}q\x00", b"\xff" * 100]


@pytest.mark.parametrize("content", GARBAGE)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_other_files_are_refused_with_one_sentence(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    for read in (read_weights, load_checkpoint):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert one_sentence(str(caught.value), path)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    whole, pt = tmp_path / "m.safetensors", tmp_path / "m.pt"
    save_checkpoint(whole, checkpoint())
    torch.save(STATE, pt)
    for path, read in ((whole, load_checkpoint), (whole, read_weights), (pt, read_weights)):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert one_sentence(str(caught.value), path)
        path.write_bytes(content)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(CheckpointError, match="no such weights file"):
            read_weights(path)
        with pytest.raises(CheckpointError, match="no such model file"):
            load_checkpoint(path)


def test_safetensors_of_others_are_told_from_ours(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not written by this library"):
        load_checkpoint(path)
    assert read_weights(path)["a"].equal(torch.zeros(2))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "metadata is damaged"),
        ("not json", "metadata is damaged"),
        ("[]", "metadata is damaged"),
        ("{}", "metadata is damaged"),
        ('{"format": 1, "classes": []}', "metadata is damaged"),
        ('{"format": 1, "config": {}}', "metadata is damaged"),
        ('{"format": 99, "version": "7.0"}', "written by frcnn 7.0, newer than"),
    ],
)
def test_damaged_and_newer_metadata(tmp_path: Path, header: str, expected: str) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, metadata={"frcnn": header})
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path)


def test_an_unknown_key_of_the_configuration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    header = {"format": 1, "classes": ["a"], "config": {"roi": {"hiden": 4}}}
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, metadata={"frcnn": json.dumps(header)})
    with pytest.raises(
        ConfigError, match=r"m\.safetensors: unknown key 'roi\.hiden'; did you mean 'roi\.hidden'"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_usual_wrappings_of_weights_are_opened(tmp_path: Path, wrap: object, prefix: str) -> None:
    path = tmp_path / "w.pth"
    torch.save(wrap({prefix + k: v for k, v in STATE.items()}), path)  # type: ignore[operator]
    read = read_weights(path)
    assert set(read) == set(STATE) and read["a.weight"].equal(STATE["a.weight"])


@pytest.mark.parametrize(
    "value", [[], [1, 2], {"a": 3}, {1: torch.zeros(2)}, torch.zeros(2), {"model": {"a": "b"}}]
)
def test_what_is_no_mapping_of_tensors_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="mapping of names to tensors"):
        read_weights(tmp_path / "w.pt")


def test_a_whole_module_is_refused_with_advice(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"save its state_dict\(\)"):
        read_weights(tmp_path / "w.pt")
