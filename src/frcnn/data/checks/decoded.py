"""Decode every picture once: which cannot be read, and small gray copies of the others, kept for next time.

What was decoded is known again by path, size and time of its file. Only pictures that could be read are kept:
what is wrong with the others may change without a change of the file, as its permissions do. A cache file
that is broken, or of another version of this library or of Pillow, is as good as none.

Letters: n pictures.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from frcnn.bands import viewable
from frcnn.data.pictures.image import RGB, Decoding, read_pixels
from frcnn.data.sample import DataError
from frcnn.files import cache_folder, write_bytes

SIDE = 32
"""Of the small copies."""
VERSION = f"1, Pillow {PIL.__version__}"

Thumbnails = NDArray[np.uint8]


class Decoded(NamedTuple):
    """What decoding gave.

    Attributes:
        reasons: n texts why a picture cannot be read, "" where it can.
        thumbs: (n, 32, 32) uint8 gray, black where it cannot.
        known: how many were not decoded, because they had been before.
    """

    reasons: list[str]
    thumbs: Thumbnails
    known: int


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    """Size and time of a file, and its picture's (32 x 32) gray values."""

    size: int
    time: int
    thumb: bytes


class _Cache(msgspec.Struct, frozen=True):
    """The content of a cache file; paths are below the data set's folder."""

    version: str
    files: dict[str, _Entry]


def decode_all(root: Path, paths: Sequence[str], how: Decoding = RGB, cache: bool = False) -> Decoded:
    """Decode pictures completely, in threads.

    Args:
        root: the data set's folder.
        paths: the pictures, below it.
        how: channels and orientation.
        cache: leave out those that an earlier call decoded, and keep what this one decodes.

    Returns:
        Reasons and small copies, in the order of ``paths``.
    """
    file = cache_file(root, how)
    before = _read(file) if cache else {}

    def look(path: str) -> tuple[str, _Entry]:
        size, time = _stamp(root / path)
        entry = before.get(path)
        if entry is not None and (entry.size, entry.time) == (size, time) and size:
            return "", entry
        reason, thumb = _decode(root / path, how)
        return reason, _Entry(size, time, thumb)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(look, paths))
    fresh = {
        p: e for p, (reason, e) in zip(paths, found, strict=True) if not reason and e is not before.get(p)
    }
    if cache and fresh:
        _write(file, _Cache(VERSION, {**before, **fresh}))
    known = sum(e is before.get(p) for p, (_, e) in zip(paths, found, strict=True))
    thumbs = np.frombuffer(b"".join(e.thumb for _, e in found), np.uint8).reshape(-1, SIDE, SIDE)
    return Decoded([reason for reason, _ in found], thumbs, known)


def cache_file(root: Path, how: Decoding = RGB) -> Path:
    """Where the pictures of a data set that were decoded in this way are kept."""
    name = hashlib.sha256(
        repr((str(root.resolve()), tuple(how))).encode("utf-8", "surrogateescape")
    ).hexdigest()
    return cache_folder() / "decoded" / f"{name[:32]}.msgpack"


def _decode(path: Path, how: Decoding) -> tuple[str, bytes]:
    try:
        image = viewable(read_pixels(path, None, how)[0])
    except DataError as error:
        return str(error).removeprefix(f"{path}: "), bytes(SIDE * SIDE)
    return "", image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _read(file: Path) -> dict[str, _Entry]:
    try:
        cache = msgspec.msgpack.decode(file.read_bytes(), type=_Cache)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    if cache.version != VERSION:
        return {}
    return {path: entry for path, entry in cache.files.items() if len(entry.thumb) == SIDE * SIDE}


def _write(file: Path, cache: _Cache) -> None:
    try:
        write_bytes(file, msgspec.msgpack.encode(cache))
    except (OSError, ValueError):
        pass  # the next check takes longer; this one is as good
