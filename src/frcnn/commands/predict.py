"""``frcnn predict``."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from frcnn.commands import options
from frcnn.commands.errors import CommandError
from frcnn.commands.progress import progress
from frcnn.commands.setup import choose_device, model_file

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Proposed = tuple[NDArray[np.float32], NDArray[np.float32]]
    from frcnn.precision import Requested
    from frcnn.predict import Detector
    from frcnn.results import Result


USUAL_SCORE = 0.5
"""Of models without stored thresholds: every weak detection would be shown otherwise."""


@dataclass
class Tally:
    """What came out of a run over many pictures."""

    limit: int
    tiled: bool = False
    pictures: int = 0
    empty: int = 0
    capped: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one result."""
        self.pictures += 1
        self.empty += not len(result)
        self.capped += result.capped
        self.objects.update(result.names)

    def lines(self) -> list[str]:
        """For the end of the run."""
        each = ", ".join(f"{name} {count}" for name, count in self.objects.most_common())
        found = f"{self.objects.total()} objects" + (f" ({each})" if each else "")
        many = "picture" if self.pictures == 1 else "pictures"
        lines = [f"{self.pictures} {many}: {found}; {self.empty} without any"]
        if self.capped:
            where = f"{self.capped} pictures"
            if self.tiled:
                where += " or tiles of them"
            lines.append(f"max-dets ({self.limit}) reached in {where}; raise --max-dets")
        return lines


def predict(
    model: options.Model,
    inputs: options.Inputs,
    out: options.Out = Path("predictions"),
    score: options.Score = None,
    max_dets: options.MaxDets = None,
    tile: options.DetectTile = None,
    overlap: options.DetectOverlap = None,
    save_as: options.SaveAs = None,
    pictures: options.Pictures = True,
    tables: options.Tables = True,
    device: options.Device = "auto",
    precision: options.DetectPrecision = None,
    compiled: options.Compile = False,
    as_json: options.AsJson = False,
    proposals_out: options.ProposalsOut = None,
) -> None:
    """Find objects in pictures: annotated copies, tables, and labels for annotation tools."""
    paths = find_pictures(inputs, out)
    if proposals_out is not None:
        if proposals_out.is_dir():
            raise CommandError(f"--proposals-out {proposals_out}: is a folder; give the name of a file", 2)
        beside = {"--tile": tile or None, "--overlap": overlap, "--score": score, "--max-dets": max_dets}
        beside |= {"--save-as": save_as, "--compile": compiled, "--json": as_json}
        beside |= {"--no-pictures": not pictures, "--no-tables": not tables}
        given = [flag for flag, value in beside.items() if value is not None and value is not False]
        if given:
            raise CommandError(
                "--proposals-out writes the proposals of whole pictures and nothing else; leave out "
                + ", ".join(given),
                2,
            )
        kind = None if precision is None else precision.value
        write_proposals(model, paths, proposals_out, choose_device(device), kind)
        return
    where = choose_device(device)
    from frcnn.predict import Detector
    from frcnn.writers import ResultWriter

    detector = Detector.load(model_file(model)).to(where).with_tiles(tile, overlap)
    if compiled:
        compile_for(detector, paths)
    if score is None and detector.thresholds is None:
        score = USUAL_SCORE
        print(
            "no score thresholds are stored in this model (it was trained without validation): "
            f"showing detections of score {score} and more; --score changes it",
            file=sys.stderr,
        )
    limit = detector.config.max_dets if max_dets is None else max_dets
    tally = Tally(limit, bool(detector.config.preprocess.tile))
    folders = [Path(text) for text in inputs]
    root = folders[0] if len(folders) == 1 and folders[0].is_dir() else None
    entries: list[dict[str, Any]] = []
    labels = save_as.value if save_as is not None else None
    writer = ResultWriter(out, detector.classes, root=root, pictures=pictures, tables=tables, save_as=labels)
    with writer, progress(len(paths), "predicting") as show:
        kind = None if precision is None else precision.value
        for result in each_result(detector, paths, score, max_dets, tally, kind):
            writer.add(result)
            tally.add(result)
            show(tally.pictures + len(tally.unreadable))
            if as_json:
                entries.append(result.to_dict())
    if as_json:
        typer.echo(json.dumps({"classes": list(detector.classes), "images": entries}, ensure_ascii=False))
    if detector.model.compiled is not None:
        print(detector.model.compiled.summary(), file=sys.stderr)
    for line in [*tally.lines(), f"written to {out}"]:
        print(line, file=sys.stderr if as_json else sys.stdout)
    _refuse_unreadable(tally.unreadable, len(paths))


def write_proposals(
    model: Path, paths: Sequence[Path], out: Path, device: torch.device, precision: Requested | None
) -> None:
    """Write the proposals of pictures into a file; those that cannot be read are left out.

    Raises:
        CommandError: in the end, when there are such pictures.
        ValueError: for a detector without a region proposal network.
    """
    from frcnn.data.proposals import write
    from frcnn.data.sample import DataError
    from frcnn.predict import Detector

    detector = Detector.load(model_file(model)).to(device)
    unreadable: list[str] = []
    read: list[Path] = []
    found: list[Proposed] = []
    step = detector.config.eval.batch
    with progress(len(paths), "proposing") as show:
        for start in range(0, len(paths), step):
            part = list(paths[start : start + step])
            try:
                results = list(detector.propose_each(part, precision=precision))
            except DataError:  # one of them; the others are tried alone
                results: list[Proposed] = []
                for path in tuple(part):
                    try:
                        results += detector.propose_each(path, precision=precision)
                    except DataError as error:
                        unreadable.append(str(error))
                        part.remove(path)
            read += part
            found += results
            show(len(read) + len(unreadable))
    count = write(out, [path.absolute() for path in read], found)
    typer.echo(f"{count} proposals of {len(read)} pictures written to {out}")
    _refuse_unreadable(unreadable, len(paths))


def _refuse_unreadable(unreadable: Sequence[str], pictures: int) -> None:
    if unreadable:
        sentence = f"{len(unreadable)} of {pictures} pictures cannot be read; replace them or leave them out:"
        raise CommandError("\n  ".join([sentence, *unreadable]), 1 if pictures > len(unreadable) else 2)


def find_pictures(inputs: Sequence[str], out: Path | None = None) -> list[Path]:
    """The picture files that files, folders (with subfolders) and patterns lead to, each once, in order.

    Args:
        inputs: as on the command line.
        out: folder of results; inside a searched folder it is left out, or a second call would take the
            annotated pictures of the first.

    Raises:
        ValueError: for an input that leads to none.
    """
    from frcnn.data.pictures.image import EXTENSIONS, NAMED

    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            files = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in NAMED and p.is_file()]
            files = [p for p in files if p.suffix.lower() in EXTENSIONS] or files  # as in data sets
            if out is not None and path.resolve() in out.resolve().parents:
                results = out.resolve()
                files = [p for p in files if not p.resolve().is_relative_to(results)]
            if not files:
                raise ValueError(f"{path}: no pictures in this folder; give one that holds pictures")
        elif path.exists():
            files = [path]
        else:
            files = [Path(name) for name in sorted(glob.glob(os.path.expanduser(text), recursive=True))]
            files = [p for p in files if p.is_file() and p.suffix.lower() in NAMED]
            if not files:
                raise ValueError(f"{text}: no such picture, folder or pattern; check the path")
        found |= dict.fromkeys(files)
    return list(found)


def compile_for(detector: Detector, paths: Sequence[Path]) -> None:
    """Compile for the padded sizes that come most often when these files are taken in order."""
    from frcnn.data.feed.tiles import tile_windows
    from frcnn.data.pictures.image import read_headers
    from frcnn.model.buckets import commonest, padded_sizes

    step = detector.config.eval.batch
    spec = detector.config.preprocess
    sizes = [
        ((int(y2 - y1), int(x2 - x1)), 1.0)
        for head in read_headers(paths, detector.config.data.exif == "apply")
        for x1, y1, x2, y2 in tile_windows((head.height, head.width), spec.tile, spec.overlap)
    ]
    batches = [sizes[start : start + step] for start in range(0, len(sizes), step)]
    counts = padded_sizes(batches, spec)
    detector.compile(sizes=commonest(counts) or None, images=min(step, len(sizes)))


def each_result(
    detector: Detector,
    paths: Sequence[Path],
    score: float | None,
    max_dets: int | None,
    tally: Tally,
    precision: Requested | None = None,
) -> Iterator[Result]:
    """Results in order; a picture that cannot be read is noted in ``tally`` and costs no other one."""
    from frcnn.data.sample import DataError

    step = detector.config.eval.batch
    for start in range(0, len(paths), step):
        part = paths[start : start + step]
        results: list[Result] = []
        try:
            results = detector.predict(part, score, max_dets, precision=precision)
        except DataError:  # one of them; the others are tried alone
            for path in part:
                try:
                    results += detector.predict(path, score, max_dets, precision=precision)
                except DataError as error:
                    tally.unreadable.append(str(error))
        yield from results
