"""The options of the verbs, each declared once: type, limits and help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from frcnn.commands.setup import DEFAULT_RECIPE
from frcnn.recipes import RECIPES


class BadBoxes(StrEnum):
    """What becomes of boxes that cannot be used."""

    error = "error"
    drop = "drop"


class BadImage(StrEnum):
    """What becomes of pictures that cannot be read."""

    error = "error"
    skip = "skip"


class Exif(StrEnum):
    """What becomes of the EXIF orientation of pictures."""

    apply = "apply"
    ignore = "ignore"


class PrecisionChoice(StrEnum):
    """Number format of convolutions and matrix products."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class ProtocolChoice(StrEnum):
    """Rules of an evaluation."""

    coco = "coco"
    voc07 = "voc07"
    voc12 = "voc12"
    kitti = "kitti"
    kitti11 = "kitti11"
    recall = "recall"


class AugmentChoice(StrEnum):
    """Named ways to vary training pictures."""

    none = "none"
    light = "light"
    strong = "strong"
    aerial = "aerial"
    inspection = "inspection"


class AnchorsChoice(StrEnum):
    """Where anchors come from."""

    auto = "auto"


class LabelFormat(StrEnum):
    """Labels that annotation tools read."""

    voc = "voc"
    yolo = "yolo"
    coco = "coco"


def _option(text: str, name: str | None = None, metavar: str | None = None) -> typer.models.OptionInfo:
    names = () if name is None else (name,)
    option: typer.models.OptionInfo = typer.Option(*names, metavar=metavar, help=text)
    return option


def _at_least(low: int, text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=low, help=text)
    return option


def _share(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=0, max=1, help=text)
    return option


def _overlap(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=0.05, max=0.75, help=text)
    return option


Data = Annotated[
    Path, typer.Argument(help="Folder of the pictures and boxes, or the file that describes it (data.yaml).")
]
DataOrRun = Annotated[
    Path | None,
    typer.Argument(help="Folder of the pictures and boxes; not needed with --resume.", show_default=False),
]
Model = Annotated[
    Path, typer.Argument(help="Model file, run folder, or published weights such as torchvision:NAME.")
]
Published = Annotated[
    str | None, typer.Argument(help="Such as torchvision:fasterrcnn_resnet50_fpn_v2.", show_default=False)
]
Inputs = Annotated[list[str], typer.Argument(help="Pictures, folders and patterns such as 'in/*.jpg'.")]

Recipe = Annotated[str | None, _option(f"One of {', '.join(RECIPES)}; default {DEFAULT_RECIPE}.")]
RecipeName = Annotated[
    str | None, typer.Argument(help="A recipe: print its whole configuration as YAML.", show_default=False)
]
SizeRecipe = Annotated[str, _option("Whose picture size and anchors the objects are compared with.")]
Config = Annotated[Path | None, _option("Configuration as YAML.", metavar="FILE")]
Settings = Annotated[
    list[str] | None,
    _option("Any key of the configuration; may be given many times.", "--set", "KEY=VALUE"),
]
DataSettings = Annotated[
    list[str] | None,
    _option("Key of data in the configuration; may be given many times.", "--set", "data.KEY=VALUE"),
]
Weights = Annotated[Path | None, _option("Model file or torchvision:NAME to start from.", metavar="FILE")]
BackboneWeights = Annotated[
    Path | None,
    _option("Backbone weights in torchvision's or timm's naming, or of a model file.", metavar="FILE"),
]
RpnWeights = Annotated[Path | None, _option("Model file whose RPN is taken.", metavar="FILE")]
GivenProposals = Annotated[
    Path | None, _option("Proposals file for the second stage, in place of the RPN's.", metavar="FILE")
]
ProposalsOut = Annotated[
    Path | None, _option("Write the RPN's proposals there, and nothing else.", metavar="FILE")
]
Freeze = Annotated[
    list[str] | None,
    _option("Stage that keeps its weights: backbone, rpn, roi; may be given many times.", metavar="STAGE"),
]

Epochs = Annotated[int | None, _at_least(1, "Passes over the training pictures.")]
Steps = Annotated[int | None, _at_least(1, "Length in optimizer steps; with --resume the step to go on to.")]
SaveEvery = Annotated[int | None, _at_least(0, "Keep a model file of every so many epochs; 0: none.")]
Time = Annotated[
    str | None, _option("Fit the schedule to this much time: 90s, 30m, 1h30m.", metavar="DURATION")
]
Batch = Annotated[int | None, _at_least(1, "Pictures of a step on one device.")]
LearningRate = Annotated[
    float | None, _option("Learning rate for 16 pictures a step; scaled by the real number.")
]
Patience = Annotated[
    int | None, _at_least(0, "Stop after so many validations without a better AP; 0: never.")
]
Precision = Annotated[PrecisionChoice | None, _option("Arithmetic of the training step.")]
DetectPrecision = Annotated[
    PrecisionChoice | None, _option("Arithmetic; default: the model's, usually bf16 where that is faster.")
]
Compile = Annotated[
    bool, _option("torch.compile: takes minutes at first; measure with frcnn bench --compile.", "--compile")
]
MinSize = Annotated[
    int | None, _at_least(16, "Short side in pixels; the limit of the long side moves along.")
]
Seed = Annotated[int | None, _at_least(0, "Of weights, order, variation and held-out part.")]
Deterministic = Annotated[bool, _option("Repeatable also on a GPU; slower.", "--deterministic")]

NewFolder = Annotated[Path, typer.Argument(help="New or empty folder for it, outside DATA.")]
ConvertTo = Annotated[LabelFormat, _option("The new form.")]
Link = Annotated[
    bool, typer.Option("--link/--copy", help="Hard links to the pictures, or copies of them (the default).")
]

Split = Annotated[str | None, _option("One split of the data; default: all pictures.")]
EvalSplit = Annotated[
    str | None,
    _option("One split of the data or of the run; default: test, else the run's val, else all pictures."),
]
TrainSplit = Annotated[str | None, _option("Split to train on.", "--train", "SPLIT")]
ValSplit = Annotated[
    str | None,
    _option("Split to validate on, a share of the training pictures (0.2), or none.", metavar="SPLIT"),
]
GroupBy = Annotated[
    str | None,
    _option(
        "Regular expression on paths: pictures with the same match are held out together.", metavar="REGEX"
    ),
]
Folds = Annotated[int | None, _at_least(2, "Divide the pictures into so many parts, one of which validates.")]
Fold = Annotated[int | None, _at_least(0, "Which of --folds validates, from 0.")]
Splits = Annotated[
    Path | None, _option("splits.json of a run (or the run), whose pictures are used.", metavar="FILE")
]
OneClass = Annotated[str | None, _option("Make all classes one of this name.", metavar="NAME")]
BadBoxesOption = Annotated[
    BadBoxes | None, _option("Boxes without area, not finite or outside: stop, or leave them out.")
]
BadImageOption = Annotated[BadImage | None, _option("Pictures that cannot be read: stop, or leave them out.")]
ExifOption = Annotated[
    Exif | None, _option("EXIF orientation of pictures: turn them by it, or use them as they are stored.")
]
Dedupe = Annotated[
    bool | None,
    typer.Option(
        "--dedupe/--keep-duplicates", help="Leave out boxes that repeat another one of their class."
    ),
]
Augment = Annotated[
    AugmentChoice | None, _option("How pictures are varied; default: as the recipe says.", "--aug")
]
Tile = Annotated[int | None, _at_least(0, "Cut pictures into tiles of this side; 0: whole pictures.")]
Overlap = Annotated[
    float | None, _overlap("Share of a tile that its neighbours have in common; default: the recipe's.")
]
DetectTile = Annotated[
    int | None, _at_least(0, "Cut pictures into tiles of this side; 0: whole pictures; default: the model's.")
]
DetectOverlap = Annotated[
    float | None, _overlap("Share of a tile that its neighbours have in common; default: the model's.")
]
ShowSeed = Annotated[int, _at_least(0, "Of the choice of pictures and their variation.")]
SheetOut = Annotated[Path, _option("The sheet, a picture file.", metavar="FILE")]
Decode = Annotated[
    bool, _option("Decode every picture completely, and look for pictures that look alike.", "--decode")
]
DecodeFirst = Annotated[
    bool | None,
    typer.Option(
        "--decode/--no-decode",
        help="Decode all pictures before the first step, and look for those that look alike; default: decode "
        "them where they have at most 1,000 million pixels together, some 3,000 of 640 x 480.",
    ),
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache", help="With --decode, leave out pictures that an earlier check has decoded."
    ),
]
Strict = Annotated[bool, _option("Warnings are errors.", "--strict")]
FittedAnchors = Annotated[
    AnchorsChoice | None,
    _option("auto: fit the anchors' sizes and ratios to the data, and print how to set them."),
]

Device = Annotated[str, _option("auto, cpu, cuda, cuda:1 or mps.")]
Devices = Annotated[int, _at_least(1, "Number of devices that share a step.")]

Protocol = Annotated[
    ProtocolChoice | None,
    _option("How matches are counted; default: recall for a model of proposals alone, else coco."),
]
Floor = Annotated[float | None, _share("Lowest score that enters; default: the model's.")]
Score = Annotated[
    float | None, _share("Lowest score; default: of each class the one with the best F1 in validation.")
]
MaxDets = Annotated[int | None, _at_least(1, "Detections of a picture; default: the model's.")]
SaveAs = Annotated[LabelFormat | None, _option("Also write labels, to be corrected in an annotation tool.")]
Pictures = Annotated[bool, _option("Write annotated pictures.")]
Tables = Annotated[bool, _option("Write predictions.json and predictions.csv.")]

Name = Annotated[str | None, _option("Of the run folder; default: the recipe's.")]
Runs = Annotated[Path, _option("Where run folders are made.", metavar="FOLDER")]
Resume = Annotated[
    Path | None, _option("Go on with a run; it keeps its configuration and data.", metavar="RUN")
]
Out = Annotated[Path, _option("Where results are written.", metavar="FOLDER")]
OutOrNot = Annotated[Path | None, _option("Write evaluation.json and classes.csv there.", metavar="FOLDER")]
AsJson = Annotated[bool, _option("Print JSON.", "--json")]
HtmlFile = Annotated[Path | None, _option("Write a page with pictures of what was found.", "--html", "FILE")]
JsonFile = Annotated[
    str | None, _option("Write everything that was found as JSON; - is stdout.", "--json", "FILE")
]
