"""Which commit a package runs from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from frcnn.bench import machine
from frcnn.bench.machine import commit, describe

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a checkout, committed."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "--quiet", "--message", "First")
    return folder


@needs_git
def test_a_checkout_has_a_commit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = git(package, "rev-parse", "HEAD")
    found = commit(package)
    assert found is not None and len(found) >= 4 and head.startswith(found)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another project
    assert commit(package) == found


@needs_git
@pytest.mark.parametrize("name", ["__init__.py", "new.py"])
def test_other_files_than_the_commits_are_said(package: Path, name: str) -> None:
    clean = commit(package)
    (package.parent / "README.md").write_text("not part of what runs")
    assert commit(package) == clean
    (package / name).write_text("changed = True")
    assert commit(package) == f"{clean}-dirty"


@needs_git
def test_a_copy_inside_another_checkout_has_none(package: Path) -> None:
    installed = package.parent / "env" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert commit(installed) is None


def test_no_checkout_no_folder_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "__init__.py").write_text("")
    assert commit(tmp_path) is None
    assert commit(tmp_path / "nowhere") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None


@pytest.mark.parametrize("found", ["1a2b3c4", None])
def test_it_stands_beside_the_versions_where_there_is_one(
    found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "commit", lambda: found)
    described = describe(torch.device("cpu"), "frcnn bench")
    assert described.get("commit", None) == found and ("commit" in described) == (found is not None)
    assert "torch" in described["versions"]
