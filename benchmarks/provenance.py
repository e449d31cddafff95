"""What a run is made with: the source of its side, the commit, and the packages of the interpreter."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("frcnn", "torch", "torchvision", "timm", "lightning", "hotcoco", "pillow", "numpy")
NOT_RECORDED = "not recorded"
"""Stands in a file of results for what runs of before this file was written do not hold."""
RIVAL_FILES = ("rival.py", "rival_options.py")
QUESTION = """
import importlib.metadata, importlib.util, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = "not installed"
spec = importlib.util.find_spec("frcnn")
print(json.dumps([found, spec and spec.origin]))
"""
"""Asked of the interpreter, because the package that it finds need not be the one beside this file."""


@dataclass(frozen=True)
class Made:
    """What a run is made with.

    Attributes:
        source: digest of the files of its side.
        commit: short hash of the checkout that holds them, with ``-dirty`` where one of them was changed
            since; None outside git.
        versions: of Python and of the packages that the interpreter of the run finds.
    """

    source: str
    commit: str | None
    versions: Mapping[str, str]

    def made(self, entry: Mapping[str, Any]) -> bool:
        """Whether a recorded run was made with the same source and packages; the commit may be another."""
        same_source = entry["key"].get("source") == self.source
        return same_source and entry.get("versions") == dict(self.versions)


def made_with(side: str) -> Made:
    """What a run of ``torchvision`` or ``frcnn`` would be made with now.

    Raises:
        ValueError: when the interpreter finds no frcnn.
    """
    versions, package = ask(sys.executable)
    if side == "torchvision":
        folder = Path(__file__).resolve().parent
        files = [folder / name for name in RIVAL_FILES]
    else:
        folder = package
        files = sorted(package.rglob("*.py"))
    return Made(digest_of(folder, files), commit_of(folder, files), versions)


def ask(interpreter: str) -> tuple[dict[str, str], Path]:
    """Versions that an interpreter finds, and the folder of its frcnn.

    Raises:
        ValueError: when it finds no frcnn.
    """
    words = [interpreter, "-c", QUESTION, *PACKAGES]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    versions, origin = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else ({}, None)
    if origin is None:
        why = f": {done.stderr.strip().splitlines()[-1]}" if done.stderr.strip() else ""
        raise ValueError(
            f"{interpreter}: finds no frcnn{why}; start this script with the Python frcnn is installed for, "
            "as .venv/bin/python"
        )
    return versions, Path(origin).resolve().parent


def digest_of(folder: Path, files: Sequence[Path]) -> str:
    """Of the names below ``folder`` and the contents."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:12]


def commit_of(folder: Path, files: Sequence[Path]) -> str | None:
    """The commit of the checkout that holds these files; see ``Made``."""

    def git(*words: str) -> str:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-C", str(folder), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
        except OSError:  # there is no git
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    names = [file.relative_to(folder).as_posix() for file in files]
    if not git("ls-files", "--", *names):  # an environment within a checkout is no part of it
        return None
    short = git("rev-parse", "--short", "HEAD")
    return short + ("-dirty" if git("status", "--porcelain", "--", *names) else "") if short else None
