from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from frcnn.cli import run
from frcnn.data.checks import decoded
from frcnn.data.checks.decoded import SIDE, VERSION, cache_file, decode_all
from frcnn.data.pictures.image import RGB, Decoding

NAMES = ["a.png", "b.jpg", "c.png"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures of noise, and a cache of their own."""
    monkeypatch.setenv("FRCNN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    root.mkdir()
    for i, name in enumerate(NAMES):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (64, 96, 3), np.uint8)).save(root / name)
    return root


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    seen: list[str] = []
    original = decoded.read_pixels

    def read(path: Path, *rest: object) -> object:
        seen.append(path.name)
        return original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(decoded, "read_pixels", read)
    return seen


def test_nothing_is_decoded(folder: Path) -> None:
    found = decode_all(folder, [], cache=True)
    assert (found.reasons, found.thumbs.shape, found.known) == ([], (0, SIDE, SIDE), 0)
    assert not cache_file(folder).exists()


def test_pictures_are_known_again(folder: Path, reads: list[str]) -> None:
    first = decode_all(folder, NAMES, cache=True)
    assert first.reasons == [""] * 3 and first.known == 0 and sorted(reads) == NAMES
    assert all(thumb.std() > 1 for thumb in first.thumbs)
    reads.clear()
    again = decode_all(folder, NAMES[::-1], cache=True)
    assert (reads, again.known) == ([], 3) and (again.thumbs == first.thumbs[::-1]).all()
    assert decode_all(folder, NAMES).known == 0 and len(reads) == 3
    assert decode_all(folder, NAMES, Decoding(1), cache=True).known == 0


def test_changed_files_are_decoded_anew(folder: Path, reads: list[str]) -> None:
    decode_all(folder, NAMES, cache=True)
    reads.clear()
    state = (folder / "a.png").stat()
    Image.new("RGB", (9, 9)).save(folder / "c.png")
    os.utime(folder / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    found = decode_all(folder, NAMES, cache=True)
    assert sorted(reads) == ["a.png", "c.png"] and found.known == 1 and found.thumbs[2].max() == 0
    reads.clear()
    assert decode_all(folder, NAMES[1:], cache=True).known == 2  # a part leaves the others known
    assert decode_all(folder, NAMES, cache=True).known == 3 and not reads


def test_what_cannot_be_read_is_tried_again(folder: Path, reads: list[str]) -> None:
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:300])
    for known in (0, 2):
        found = decode_all(folder, [*NAMES, "gone.png"], cache=True)
        assert found.known == known and found.reasons[0] == found.reasons[2] == ""
        assert "runcated" in found.reasons[1] and found.reasons[3] == "no such file"
        assert found.thumbs[1].max() == found.thumbs[3].max() == 0


def entry(size: object, time: object, thumb: object) -> bytes:
    return msgspec.msgpack.encode({"version": VERSION, "files": {"a.png": [size, time, thumb]}})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"\xff" * 999),
        lambda p: p.write_bytes(p.read_bytes()[:-7]),
        lambda p: p.write_bytes(msgspec.msgpack.encode({"version": "0", "files": {}})),
        lambda p: p.write_bytes(p.read_bytes().replace(VERSION.encode(), b"?" * len(VERSION))),
        lambda p: p.write_bytes(msgspec.msgpack.encode([1, 2])),
        lambda p: p.write_bytes(entry("1", 2, b"")),
        lambda p: p.write_bytes(entry((p.parents[2] / "data/a.png").stat().st_size, 2**70 % 2**63, b"x")),
        lambda p: p.write_bytes(b"\x91" * 100_000),
        lambda p: (p.unlink(), p.mkdir()),
        lambda p: p.chmod(0),
    ],
)
def test_a_broken_cache_is_as_good_as_none(
    folder: Path, spoil: Callable[[Path], object], reads: list[str]
) -> None:
    first = decode_all(folder, NAMES, cache=True)
    spoil(cache_file(folder))
    reads.clear()
    again = decode_all(folder, NAMES, cache=True)
    assert again.reasons == first.reasons and (again.thumbs == first.thumbs).all()
    assert len(reads) == 3 - again.known and again.known in (0, 3)  # root reads what may not be read


def test_a_cache_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("FRCNN_CACHE", str(folder / "file"))
    assert decode_all(folder, NAMES, cache=True).reasons == [""] * 3


def test_each_folder_and_way_has_its_own_file(folder: Path) -> None:
    other = folder.parent / "other"
    files = {cache_file(folder), cache_file(other), cache_file(folder, RGB._replace(upright=False))}
    assert len(files) == 3 and all(folder.parent / "cache/decoded" == file.parent for file in files)


def test_the_command(folder: Path, reads: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{name},1,1,9,9,x\n" for name in NAMES)
    (folder / "boxes.csv").write_text("path,x1,y1,x2,y2,class\n" + rows)
    assert run(["check", str(folder)]) == 0 and not reads
    for options, times in (([], 3), ([], 0), (["--no-cache"], 3)):
        reads.clear()
        assert run(["check", str(folder), "--decode", *options]) == 0
        assert len(reads) == times
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:-900])
    assert run(["check", str(folder), "--decode"]) == 2
    assert "truncated" in capsys.readouterr().out
