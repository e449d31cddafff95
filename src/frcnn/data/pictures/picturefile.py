"""What the bytes of a picture file tell that Pillow does not: does it end early, where is its metadata."""

from __future__ import annotations

import os
import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from frcnn.data.pictures.channels import too_large

_TAIL = 64


def late_metadata(path: str) -> bool:
    """Whether a PNG has EXIF or XMP after its pixels."""
    if not path:
        return False
    with open(path, "rb") as file:
        file.seek(8)
        pixels_seen = False
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            pixels_seen |= kind == b"IDAT"
            if pixels_seen and kind in (b"eXIf", b"iTXt", b"zTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def ends_early(path: str | Path, kind: str) -> bool:
    """Whether a file of Pillow's format ``kind`` lacks its usual ending."""
    with open(path, "rb") as file:
        start = file.read(12)
        total = file.seek(0, os.SEEK_END)
        file.seek(max(total - _TAIL, 0))
        tail = file.read()
    if kind in ("JPEG", "MPO"):
        return b"\xff\xd9" not in tail  # cannot occur inside the coded pixels
    if kind == "PNG":
        return b"IEND" not in tail
    if kind == "WEBP":
        return total < int.from_bytes(start[4:8], "little") + 8
    return False


def reason(error: Exception) -> str:
    """Why a picture cannot be read, in words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a picture"
    if isinstance(error, PermissionError):
        return "may not be read; check its permissions"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow can read (empty, damaged or of another type)"
    if isinstance(error, Image.DecompressionBombError):
        stated = re.search(r"(\d+) pixels", str(error))
        return too_large(int(stated[1]) if stated else 0)
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, OSError) and "truncated" in text else f"cannot be decoded ({text})"
