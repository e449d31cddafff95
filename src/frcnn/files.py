"""Writing files at once: a reader, or a run that was stopped, sees the old content or all of the new one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file in one piece."""

    def write(partial: Path) -> None:
        partial.write_bytes(data)

    write_atomic(path, write)


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside its final name and move it there; folders are made. Readable as usual
    files are.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        write(Path(partial))
        os.chmod(partial, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(partial, path)
    except BaseException as error:
        Path(partial).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, str(path)) from error  # which writing does not name
        raise


def write_text(path: str | Path, text: str) -> None:
    """The same for UTF-8 text; file names that are no text are written as by ``printable``."""
    write_bytes(path, printable(text).encode("utf-8"))


def printable(text: str) -> str:
    r"""A text that can be written anywhere: bytes of file names that are no UTF-8 become ``\udce9`` and the
    like. JSON and YAML write them so, and read the same name back.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def cache_folder() -> Path:
    """For files that can be had again: ``FRCNN_CACHE``, else ``frcnn`` in the user's cache folder."""
    own = os.environ.get("FRCNN_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "frcnn"
