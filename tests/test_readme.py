"""The documents say what is true of the code: commands, names, recipes, links and codes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import frcnn
from frcnn.cli import app
from frcnn.commands.recipes import describe
from frcnn.data.findings import TITLES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The words of every ``frcnn`` call in code blocks and code spans."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    lines += [span for span in re.findall(r"`([^`\n]+)`", text) if span.startswith("frcnn ")]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("frcnn ")]


def test_commands_in_no_text() -> None:
    assert commands("") == []
    assert commands("`frcnn check X`\n```sh\nfrcnn train X  # y\nmake\n```") == [
        ["train", "X"],
        ["check", "X"],
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_exist(path: Path) -> None:
    group = typer.main.get_command(app)
    verbs = group.commands  # type: ignore[attr-defined]
    for verb, *words in commands(path.read_text(encoding="utf-8")):
        assert verb in verbs or verb in ("VERB", "--help"), verb
        params = verbs[verb].params if verb in verbs else []
        known = {name for p in params for name in (*p.opts, *p.secondary_opts)}
        for word in words:
            assert not word.startswith("--") or word in known | {"--help", "--debug"}, (verb, word)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(blocks(text, "sh"))))
    named |= set(re.findall(r"`make ([a-z-]+)`", text))
    assert {"demo", "test"} <= named <= targets


def test_python_blocks_use_public_names() -> None:
    code = "\n".join(blocks(README, "python"))
    compile(code, "README.md", "exec")
    names = set(re.findall(r"\bfrcnn\.(\w+)", code))
    assert {"train", "Detector", "evaluate"} <= names <= set(frcnn.__all__)


def test_table_of_recipes() -> None:
    rows = {m[1]: m[0] for m in re.finditer(r"^\| `([\w-]+)` \|.*$", README, re.MULTILINE)}
    for row in describe():
        line = rows[row["name"]]
        assert f"{row['parameters'] / 1e6:.1f} M" in line
        assert row["input"].partition(",")[0] in line
    assert len(rows) == len(frcnn.RECIPES)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_every_code_of_the_check_is_listed() -> None:
    listed = re.findall(
        r"^\| (D\d\d) \|", (ROOT / "docs/checks.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert listed == sorted(TITLES)


def test_files_of_the_house_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    house = blocks(text, "")[0]
    package = Path(frcnn.__file__).parent
    for name in re.findall(r"^  (\w+)(?:/|\.py) ", house, re.MULTILINE):
        assert (package / name).is_dir() or (package / f"{name}.py").is_file(), name
    rooms = {p.relative_to(package).parts[0].removesuffix(".py") for p in package.rglob("*.py")}
    assert rooms - {"__main__"} <= set(re.findall(r"^  (\w+)", house, re.MULTILINE))
    for file, function in re.findall(r"\| `([\w/]+\.py)` \| `([\w.]+)`", text):
        assert re.search(
            rf"^\s*(?:def|class) {function.split('.')[-1]}\b", (package / file).read_text(), re.M
        )


@pytest.mark.slow
def test_the_quick_tour_runs_as_written(tmp_path: Path) -> None:
    from frcnn.data.scenes.generate import write_scenes

    data = write_scenes(tmp_path / "scenes", {"train": 8, "val": 2, "test": 2})
    tour = README[README.index("## A quick tour") : README.index("## Recipes")]
    names = {"FOLDER": str(data), "PICTURES": str(data / "JPEGImages")}
    for words in [line for block in blocks(tour, "sh") for line in commands(f"```sh\n{block}```")]:
        call = [sys.executable, "-m", "frcnn", *(names.get(word, word) for word in words)]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert list((tmp_path / "found/pictures").iterdir())
    assert list((tmp_path / "labels").rglob("*.xml"))
    pictures = sorted((data / "JPEGImages").iterdir())
    (tmp_path / "a.jpg").write_bytes(pictures[0].read_bytes())
    (tmp_path / "b.png").write_bytes(pictures[1].read_bytes())  # read by content, whatever the ending says
    code = "\n".join(blocks(tour, "python")).replace("FOLDER", str(data))
    script = tmp_path / "tour.py"  # a file with a guard, because loader processes may import it
    indented = "\n".join(f"    {line}" for line in code.splitlines())
    script.write_text(f"if __name__ == '__main__':\n{indented}\n", encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("*-found.png")} == {"a-found.png", "b-found.png"}
