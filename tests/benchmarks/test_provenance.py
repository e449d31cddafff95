"""What a run is made with is asked of the interpreter that runs it, and of git where there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import provenance
import pytest
from provenance import PACKAGES, RIVAL_FILES, Made, ask, commit_of, digest_of, made_with

FAKE = """#!/bin/sh
echo a line before
echo '[{"torch": "9.9"}, %s]'
"""


def interpreter(path: Path, origin: str) -> str:
    """A program that answers as an interpreter with other packages would."""
    path.write_text(FAKE % origin, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def files(folder: Path, **texts: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return sorted(folder.glob("*.py"))


def git(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", "-C", str(folder), *author, *words], capture_output=True, check=True, text=True
    )
    return done.stdout.strip()


def test_nothing_has_a_digest_and_no_commit(tmp_path: Path) -> None:
    assert len(digest_of(tmp_path, [])) == 12 and commit_of(tmp_path, []) is None


def test_digest_follows_names_and_contents(tmp_path: Path) -> None:
    same = digest_of(tmp_path / "a", files(tmp_path / "a", one="1", two="2"))
    assert digest_of(tmp_path / "b", files(tmp_path / "b", one="1", two="2")) == same, "wherever it lies"
    others = [{"one": "1", "two": "3"}, {"one": "1", "six": "2"}, {"one": "1"}, {"one": "12", "two": ""}]
    found = [digest_of(tmp_path / str(i), files(tmp_path / str(i), **t)) for i, t in enumerate(others)]
    assert len({same, *found}) == 5


def test_commit_of_a_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    source = files(tmp_path / "src", a="1")
    assert commit_of(tmp_path / "src", source) is None, "not tracked yet"
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "-q", "-m", "x")
    short = git(tmp_path, "rev-parse", "--short", "HEAD")
    (tmp_path / "README.md").write_text("not of the source")
    assert commit_of(tmp_path / "src", source) == short
    more = files(tmp_path / "src", b="2")
    assert commit_of(tmp_path / "src", more) == f"{short}-dirty", "a new file"
    assert commit_of(tmp_path / "src", files(tmp_path / "src", a="3")) == f"{short}-dirty"


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path, files(tmp_path, a="1")) is None


def test_the_interpreter_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = files(tmp_path / "elsewhere" / "frcnn", __init__="")[0]
    other = interpreter(tmp_path / "python", f'"{package}"')
    assert ask(other) == ({"torch": "9.9"}, package.parent)
    monkeypatch.setattr(sys, "executable", other)
    made = made_with("frcnn")
    assert made == Made(digest_of(package.parent, [package]), None, {"torch": "9.9"})
    files(package.parent / "below", new="1")
    assert made_with("frcnn").source != made.source


def test_interpreter_without_frcnn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finds no frcnn; start this script with the Python"):
        ask(interpreter(tmp_path / "python", "null"))
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ValueError, match="finds no frcnn: no such module; start"):
        ask(str(broken))


def test_both_sides_of_this_interpreter() -> None:
    ours, theirs = made_with("frcnn"), made_with("torchvision")
    assert ours.source != theirs.source and ours.versions == theirs.versions
    assert set(ours.versions) == {"python", *PACKAGES}
    assert ours.versions["torch"][0].isdigit() and ours.versions["frcnn"] != "not installed"
    folder = Path(provenance.__file__).parent
    assert theirs.source == digest_of(folder, [folder / name for name in RIVAL_FILES])


def test_which_lines_were_made_with_it() -> None:
    made = Made("a", None, {"torch": "2.0"})
    line = {"key": {"source": "a"}, "versions": {"torch": "2.0"}}
    assert made.made(line) and made.made({**line, "commit": "abc1234"})
    assert not made.made({**line, "key": {}}) and not made.made({**line, "key": {"source": "b"}})
    assert not made.made({**line, "versions": {"torch": "2.1"}}) and not made.made({"key": {"source": "a"}})
