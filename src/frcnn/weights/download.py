"""One file from a server: whole and with the right SHA-256, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import frcnn
from frcnn.weights.checkpoint import CheckpointError

TIMEOUT = 30.0
"""Seconds without a byte."""
CHUNK = 1 << 20
LINE_SECONDS = 15.0
MIB = 1 << 20


def download(url: str, target: Path, digest: str) -> None:
    """Fetch ``url`` into ``target``, which exists afterwards only with a SHA-256 that begins with ``digest``.

    Args:
        url: http, https or file.
        target: its folder is made.
        digest: first hexadecimal digits.

    Raises:
        CheckpointError: when the server cannot be reached or refuses, when the file is cut short or another
            one, or when it cannot be written.
    """
    by_hand = f"put the file at {target} by hand, or name a mirror in FRCNN_MIRROR"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    except OSError as error:
        raise _not_writable(target.parent, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            found = _copy(url, file, by_hand)
        if not found.startswith(digest):
            raise CheckpointError(
                f"{url}: its SHA-256 {found} does not begin with {digest}, so it is not the published file; "
                f"nothing was kept; {by_hand}"
            )
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def _copy(url: str, file: BinaryIO, by_hand: str) -> str:
    """Everything the server sends goes into ``file``; returns its SHA-256."""
    state, count, total = hashlib.sha256(), 0, None
    host = urlsplit(url).hostname or url
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"frcnn/{frcnn.__version__}"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            length = answer.headers.get("Content-Length")
            total = int(length) if length is not None else None
            with _progress(total) as show:
                while chunk := answer.read(CHUNK):
                    state.update(chunk)
                    _write(file, chunk)
                    count += len(chunk)
                    show(count)
    except urllib.error.HTTPError as error:
        raise CheckpointError(f"{url}: the server answers {error.code} {error.reason}; {by_hand}") from None
    except http.client.IncompleteRead:
        pass  # what is missing is said below
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise CheckpointError(
            f"{host} cannot be reached for {url} ({reason}); where there is no network, {by_hand}"
        ) from None
    if total is not None and count != total:
        raise CheckpointError(
            f"{url}: the connection ended after {count:,} of {total:,} bytes; run the command again"
        )
    return state.hexdigest()


def _write(file: BinaryIO, chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise _not_writable(Path(file.name), error) from None


def _not_writable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be written ({error.strerror or error}); set FRCNN_CACHE to a folder that can"
    )


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line now and then in a log, on stderr; called with the bytes so far."""
    if not sys.stderr.isatty():
        yield _lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fetching", total=total)
        yield lambda count: bar.update(task, completed=count)


def _lines(total: int | None) -> Callable[[int], None]:
    last = time.monotonic()
    of = "" if total is None else f" of {total / MIB:.0f}"

    def show(count: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            print(f"fetching: {count / MIB:.0f}{of} MiB", file=sys.stderr, flush=True)

    return show
