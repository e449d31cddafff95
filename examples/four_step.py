"""The paper's four-step alternating training (Ren et al. 2015, section 3.2): two networks that end as one.

    python examples/four_step.py DATA --out runs/four-step --backbone-weights vgg16-397923af.pth

1. An RPN is trained alone, backbone included, and writes its proposals of all pictures into a file.
2. A second stage with a backbone of its own learns from that file. The two networks share nothing yet.
3. An RPN begins anew on the backbone of step 2, which is held fast: now they share it. It writes proposals.
4. The second stage of step 2 learns from those, with the shared backbone and that RPN held fast.

What step 4 leaves is one model file that predicts by itself. Every step is a run folder with its own report,
and the command line that does the same is printed before it. A finished step is not repeated.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import frcnn
from frcnn.data.open import open_dataset
from frcnn.data.proposals import write
from frcnn.training.watch import TrainingStopped

ALONE = ("detector=rpn", "proposals.pre_nms_test=12000", "proposals.post_nms_test=2000")
"""An RPN that is asked for as many proposals as the paper gives a second stage in training."""


def four_steps(
    data: Path,
    out: Path,
    recipe: str = "vgg16",
    backbone_weights: Path | None = None,
    epochs: int | None = None,
    settings: tuple[str, ...] = (),
    device: str = "auto",
) -> Path:
    """Run the four steps.

    Args:
        data: folder of the data set.
        out: where the run folders ``step1`` to ``step4`` and the two proposals files are written.
        recipe: of the detector; one of two stages, without a cascade.
        backbone_weights: ImageNet weights that steps 1 and 2 begin with.
        epochs: of every step; None: the recipe's.
        settings: ``("train.lr=0.01", ...)``, for every step.
        device: "auto", "cpu", "cuda", ...

    Returns:
        The model file of step 4.

    Raises:
        ValueError: when data, recipe and settings do not go together.
    """

    def step(number: int, **options: object) -> Path:
        model = out / f"step{number}" / "last.safetensors"
        finished = out / f"step{number}" / "report.html"  # written when training has ended
        print(f"\nstep {number}: {command(data, out, number, options, settings, epochs)}", flush=True)
        if finished.exists():
            print(f"{model} is there: not trained again", flush=True)
            return model
        if model.parent.exists():
            raise ValueError(
                f"{model.parent} was not finished; go on with frcnn train --resume, or remove it"
            )
        own = options.pop("settings", ())
        frcnn.train(
            data,
            runs=out,
            name=f"step{number}",
            epochs=epochs,
            device=device,
            settings=(*settings, *own),
            **options,
        )
        return model

    def proposals(model: Path, name: str) -> Path:
        path = out / name
        print(f"\nproposals: frcnn predict {model} PICTURES --proposals-out {path}", flush=True)
        if path.exists():
            print(f"{path} is there: not made again", flush=True)
            return path
        everything = open_dataset(data)
        pictures = [everything.picture_path(i) for i in range(len(everything))]
        count = write(path, pictures, frcnn.Detector.load(model).to(device).propose_each(pictures))
        print(f"{count:,} proposals of {len(pictures):,} pictures", flush=True)
        return path

    start = {} if backbone_weights is None else {"backbone_weights": backbone_weights}
    first = step(1, recipe=recipe, settings=ALONE, **start)
    second = step(2, recipe=recipe, proposals=proposals(first, "proposals1.safetensors"), **start)
    third = step(3, recipe=recipe, settings=ALONE, backbone_weights=second, freeze=("backbone",))
    return step(
        4,
        weights=second,
        rpn_weights=third,
        proposals=proposals(third, "proposals3.safetensors"),
        freeze=("backbone",),  # given proposals hold the RPN fast, too
    )


def command(
    data: Path,
    out: Path,
    number: int,
    options: dict[str, object],
    settings: tuple[str, ...],
    epochs: int | None,
) -> str:
    """The command line of a step."""
    words = ["frcnn", "train", str(data), "--out", str(out), "--name", f"step{number}"]
    words += [] if epochs is None else ["--epochs", str(epochs)]
    words += [word for setting in settings for word in ("--set", setting)]  # before the step's own, which win
    for name, value in options.items():
        several = value if isinstance(value, tuple) else (value,)
        flag = "--set" if name == "settings" else "--" + name.replace("_", "-")
        words += [word for one in several for word in (flag, str(one))]
    return shlex.join(words)


def main(arguments: list[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="folder of the pictures and boxes")
    parser.add_argument("--out", type=Path, default=Path("runs/four-step"), help="folder of the four runs")
    parser.add_argument("--recipe", default="vgg16", help="detector of two stages (default vgg16)")
    parser.add_argument("--backbone-weights", type=Path, help="ImageNet weights for steps 1 and 2")
    parser.add_argument("--epochs", type=int, help="of every step; default: the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every step")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args(arguments)
    try:
        model = four_steps(
            asked.data,
            asked.out,
            asked.recipe,
            asked.backbone_weights,
            asked.epochs,
            tuple(asked.set),
            asked.device,
        )
    except ValueError as error:
        parser.exit(2, f"four_step: {error}\n")
    except TrainingStopped as error:
        parser.exit(1, f"four_step: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "four_step: interrupted; finished steps are kept\n")
    print(f"\n{model}: frcnn eval {model.parent} {asked.data}")


if __name__ == "__main__":
    main()
