"""The command line: exit codes, messages, output for machines."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import frcnn
from frcnn.cli import describe, run
from frcnn.commands import setup
from frcnn.commands.predict import find_pictures
from frcnn.recipes import RECIPES
from frcnn.recipes import recipe as named_recipe
from frcnn.settings import load_yaml, with_settings

SIZE = 96
OBJECT = (
    "<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
    "<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
)


def add_picture(folder: Path, name: str, boxes: list[tuple[str, int, int, int, int]]) -> None:
    pixels = np.random.default_rng(len(list(folder.glob("*.jpg")))).integers(
        0, 255, (SIZE, SIZE, 3), np.uint8
    )
    Image.fromarray(pixels).save(folder / f"{name}.jpg")
    objects = "\n".join(OBJECT.format(name=n, x1=a, y1=b, x2=c, y2=d) for n, a, b, c, d in boxes)
    size = f"<size><width>{SIZE}</width><height>{SIZE}</height><depth>3</depth></size>"
    text = f"<annotation>\n<filename>{name}.jpg</filename>\n{size}\n{objects}\n</annotation>\n"
    (folder / f"{name}.xml").write_text(text, encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four annotated pictures and a background one, flat in a folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(4):
        add_picture(folder, f"p{number}", [("cat", 5, 5, 40, 50), ("dog", 30, 20, 90, 80)])
    add_picture(folder, "p4", [])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with random heads that finds something in everything."""
    config = frcnn.recipe("lite0-fpn")
    spec = config.preprocess.model_copy(update={"min_size": 64, "max_size": 128})
    detector = frcnn.Detector.from_config(config.model_copy(update={"preprocess": spec}), ["cat", "dog"])
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    detector.save(path)
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr says; it is one line and no traceback."""
    error = capsys.readouterr().err.strip()
    assert error.startswith("frcnn: ")
    assert len(error.splitlines()) == 1, error
    return error


# ---- what the machine says


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (
            FileExistsError(17, "File exists", "out"),
            "out: a folder of this name is needed, and a file has",
            2,
        ),
        (OSError(28, "No space left on device", "runs/a"), "runs/a: No space left on device; make room", 1),
        (OSError(28, "No space left on device"), "a file: No space left on device; make room", 1),
        (
            OSError(5, "Input/output error", "a.jpg"),
            "OSError: [Errno 5] Input/output error: 'a.jpg' (--deb",
            1,
        ),
        (MemoryError(), "not enough memory; use a smaller --batch", 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory; use a smaller", 1),
        (RuntimeError("a fault of ours"), "RuntimeError: a fault of ours (--debug shows where)", 1),
    ],
)
def test_errors_of_the_machine_are_sentences(error: Exception, said: str, code: int) -> None:
    message, found = describe(error)
    assert message.startswith(said) and found == code


# ---- usage


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["tain"], "train"),
        (["train", "x", "--epoch", "3"], "--epochs"),
        (["train", "x", "--epochs", "0"], "--epochs"),
        (["train", "x", "--precision", "fp8"], "bf16"),
        (["train"], "no data"),
        (["predict", "model"], "inputs"),
        (["eval", "model"], "data"),
    ],
)
def test_bad_usage(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert hint in one_sentence(capsys).lower()


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    run([])
    shown = capsys.readouterr()
    for verb in ("train", "eval", "predict", "check", "recipes", "fetch", "demo", "doctor"):
        assert f"  {verb} " in shown.out + shown.err


def test_version_and_module() -> None:
    done = subprocess.run([sys.executable, "-m", "frcnn", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"frcnn {frcnn.__version__}")


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "nowhere", "--debug"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.strip().splitlines()[-1].startswith("frcnn: nowhere: no such folder")


# ---- bad input of train: exit code 2 and nothing written


def refused(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", *words]) == 2
    assert hint in one_sentence(capsys)
    assert not Path("runs").exists()


def test_missing_folder(capsys: pytest.CaptureFixture[str]) -> None:
    refused(["nowhere"], "nowhere: no such folder", capsys)


def test_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    refused(["empty"], "empty", capsys)


def test_empty_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / "devkit" / part).mkdir(parents=True)
    add_picture(tmp_path / "devkit" / "JPEGImages", "a", [("cat", 5, 5, 40, 50)])
    (tmp_path / "devkit/JPEGImages/a.xml").rename(tmp_path / "devkit/Annotations/a.xml")
    (tmp_path / "devkit/ImageSets/Main/train.txt").write_text("")
    refused(["devkit", "--train", "train"], 'split "train" is empty', capsys)


def test_unknown_split(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([str(data), "--train", "trian"], 'no split "trian"', capsys)


def test_broken_xml(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "p1.xml").write_text("<annotation>\n<object>\n</annotation>\n")
    refused([str(data)], "p1.xml:3", capsys)


def test_truncated_jpeg(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (data / "p2.jpg").read_bytes()
    (data / "p2.jpg").write_bytes(whole[: len(whole) // 2])
    refused([str(data)], "p2.jpg", capsys)


def test_box_without_area(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_picture(data, "p3", [("cat", 50, 40, 50, 40), ("dog", 30, 20, 90, 80)])
    refused([str(data)], "--bad-boxes drop", capsys)


def test_unknown_recipe(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([str(data), "--recipe", "lite-fpn"], "did you mean 'lite0-fpn'", capsys)


def test_typo_in_set(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([str(data), "--set", "train.epoch=3"], "did you mean 'train.epochs'", capsys)


def test_bad_value_in_set(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([str(data), "--set", "roi.nms_iou=2"], "roi.nms_iou", capsys)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--config", "none.yaml"], "none.yaml: cannot be read"),
        (["--weights", "none.safetensors"], "none.safetensors: no such model file"),
        (["--resume", "runs/none"], "no run to resume"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--time", "soon"], "soon"),
        (["--val", "nosuch"], 'no split "nosuch"'),
    ],
)
def test_bad_options(words: list[str], hint: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([str(data), *words], hint, capsys)


def test_training_without_lightning(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    refused([str(data)], 'pip install ".[train]"', capsys)


# ---- what training itself may end with


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (RuntimeError("the engine stopped"), 1), (ValueError("odd data"), 2)],
    ids=["ctrl-c", "failed", "data"],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import frcnn.training.run

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(frcnn.training.run, "train", fail)
    assert run(["train", str(data)]) == code
    one_sentence(capsys)


def test_the_next_step_exists(
    data: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import frcnn.training.run

    monkeypatch.setattr(frcnn.training.run, "train", lambda *_, **__: SimpleNamespace(folder=finished))
    assert run(["train", str(data)]) == 0
    words = capsys.readouterr().out.strip().rpartition("or frcnn ")[2].split()
    assert words == ["eval", str(finished), str(data)]
    assert run(words) == 0


# ---- configuration files


def test_a_partial_file_builds_on_its_recipe(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("recipe: vgg16\ntrain: {epochs: 3}\n")
    config = setup.base_config(None, file)
    assert config is not None
    assert (config.recipe, config.train.epochs, config.backbone.name) == ("vgg16", 3, "vgg16")
    assert setup.base_config(None, None) is None


def test_a_file_with_an_unknown_recipe(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("recipe: vgg61\n")
    with pytest.raises(frcnn.ConfigError, match="vgg16"):
        setup.base_config(None, file)


def test_min_size_moves_both_limits() -> None:
    config = frcnn.recipe("r50-fpn")
    assert setup.size_settings(config, None) == []
    assert setup.size_settings(config, 400) == ["preprocess.min_size=400", "preprocess.max_size=666"]


# ---- check, recipes, doctor


def test_check_counts_background(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(data)]) == 0
    shown = capsys.readouterr().out
    assert "images 5: 4 with boxes, 1 background (kept)" in shown
    assert shown.startswith("format: Pascal VOC\n")
    assert [line.split() for line in shown.splitlines()[2:4]] == [
        ["0", "cat", "-", "4", "4"],
        ["1", "dog", "-", "4", "4"],
    ]


def test_one_class(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(data), "--one-class", "pet: 'x'"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2].split()[:7] == ["0", "pet:", "'x'", "(cat,", "dog)", "-", "4"]
    assert shown[2].endswith(" 8")
    assert run(["check", str(data), "--one-class", " "]) == 2
    assert "--one-class: the name is empty" in capsys.readouterr().err
    assert run(["eval", str(model), str(data), "--one-class", "cat", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["settings"]["images"] == 5
    assert run(["eval", str(model), str(data), "--one-class", "pet"]) == 2
    assert 'the model does not know these classes of the data: "pet"' in capsys.readouterr().err


def test_check_finds_and_writes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_picture(data, "p3", [("cat", 50, 40, 50, 40)])
    assert run(["check", str(data), "--json", "-"]) == 2
    found = json.loads(capsys.readouterr().out)
    errors = [f for f in found["findings"] if f["severity"] == "error"]
    assert [(e["code"], Path(e["path"]).name, e["line"] > 0) for e in errors] == [("D01", "p3.xml", True)]
    assert run(["check", str(data), "--bad-boxes", "drop", "--json", "out/found.json"]) == 0
    assert json.loads(Path("out/found.json").read_text())["counts"]["images"] == 5


def test_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(RECIPES)
    assert all(row["parameters"] > 1e6 and row["description"] and row["input"] for row in rows)
    assert run(["recipes"]) == 0
    assert "r50-fpn-v2" in capsys.readouterr().out


def test_one_recipe_is_a_configuration_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["recipes", "vgg16-dontcare"]) == 0
    file = tmp_path / "run.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_yaml(file) == named_recipe("vgg16-dontcare")
    assert run(["recipes", "vgg16-dontcare", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["roi"]["gt_proposals"] == "jittered"
    assert run(["recipes", "vgg61"]) == 2
    assert "did you mean 'vgg16'" in capsys.readouterr().err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    health = json.loads(capsys.readouterr().out)
    assert health["problems"] == []
    assert health["versions"]["frcnn"]
    assert run(["doctor"]) == 0
    assert "all is well" in capsys.readouterr().out


# ---- predict and eval


def test_predict_writes_pictures_tables_and_labels(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(model), str(data), "--out", "found", "--score", "0", "--max-dets", "7"]
    assert run([*words, "--save-as", "voc"]) == 0
    shown = capsys.readouterr().out
    assert "5 pictures: 35 objects" in shown
    assert "max-dets (7) reached in 5 pictures; raise --max-dets" in shown
    assert sorted(p.name for p in Path("found/pictures").iterdir()) == [f"p{i}.jpg" for i in range(5)]
    assert len(list(Path("found/annotations").glob("*.xml"))) == 5
    images = json.loads(Path("found/predictions.json").read_text())["images"]
    assert [len(image["detections"]) for image in images] == [7] * 5
    with Path("found/predictions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 35


def test_predict_for_machines(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(model.parent), str(data / "p[01].jpg"), "--score", "0.0", "--json"]
    assert run([*words, "--no-pictures", "--no-tables"]) == 0
    shown = capsys.readouterr()
    assert [Path(i["path"]).name for i in json.loads(shown.out)["images"]] == ["p0.jpg", "p1.jpg"]
    assert "written to predictions" in shown.err


def test_predict_goes_on_after_a_broken_picture(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "p1.jpg").write_bytes(b"no picture")
    assert run(["predict", str(model), str(data), "--out", "found", "--score", "0"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "frcnn: 1 of 5 pictures cannot be read; replace them or leave them out:" in said
    assert "p1.jpg" in said[-1] and "Traceback" not in "".join(said)
    assert len(list(Path("found/pictures").iterdir())) == 4


@pytest.mark.parametrize("inputs", [["nowhere"], ["*.jpg"], ["."]], ids=["path", "pattern", "folder"])
def test_predict_without_pictures(inputs: list[str], model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(model), *inputs]) == 2
    assert inputs[0] in one_sentence(capsys)


def test_find_pictures_each_once(data: Path) -> None:
    assert find_pictures([]) == []
    (data / "deep").mkdir()
    (data / "p0.jpg").rename(data / "deep" / "P0.JPG")
    found = find_pictures([str(data / "p1.jpg"), str(data), str(data / "p*.jpg")])
    assert [p.name for p in found] == ["p1.jpg", "P0.JPG", "p2.jpg", "p3.jpg", "p4.jpg"]


def test_results_are_no_inputs(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(model), str(data), "--out", str(data / "found"), "--score", "0"]
    assert run(words) == run(words) == 0
    assert capsys.readouterr().out.count("5 pictures: ") == 2
    inside = data / "found" / "pictures"
    assert len(find_pictures([str(inside)], data / "found")) == 5  # unless it is asked for by name


def test_predict_without_stored_thresholds(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(model), str(data / "p0.jpg"), "--no-pictures", "--no-tables"]
    assert run([*words, "--json"]) == 0
    shown = capsys.readouterr()
    sure = json.loads(shown.out)["images"][0]["detections"]
    assert all(found["score"] >= 0.5 for found in sure)
    assert [line for line in shown.err.splitlines() if "no score thresholds" in line] == [
        "no score thresholds are stored in this model (it was trained without validation): "
        "showing detections of score 0.5 and more; --score changes it"
    ]
    assert run([*words, "--json", "--score", "0"]) == 0
    shown = capsys.readouterr()
    assert "thresholds" not in shown.err
    assert len(json.loads(shown.out)["images"][0]["detections"]) > len(sure)
    detector = frcnn.Detector.load(model)
    detector.thresholds = (0.9999, 0.9999)
    detector.save(tmp_path / "with.safetensors")
    assert run(["predict", str(tmp_path / "with.safetensors"), *words[2:]]) == 0
    shown = capsys.readouterr()
    assert "thresholds" not in shown.err and "1 picture: 0 objects" in shown.out


@pytest.fixture
def finished(model: Path, tmp_path: Path) -> Path:
    """A run folder that held out two pictures of ``data``."""
    folder = tmp_path / "finished"
    folder.mkdir()
    (folder / "best.safetensors").write_bytes(model.read_bytes())
    splits = {"train": ["p0.jpg", "p1.jpg", "p4.jpg"], "val": ["p2.jpg", "p3.jpg"]}
    (folder / "splits.json").write_text(json.dumps({"format": 1, "data": "data", "splits": splits}))
    return folder


def measured(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Number of pictures, and what stderr says of the choice."""
    assert run(["eval", *map(str, words), "--json"]) == 0
    shown = capsys.readouterr()
    line = next(line for line in shown.err.splitlines() if line.startswith("measured on"))
    return json.loads(shown.out)["settings"]["images"], line


def test_eval_knows_what_the_run_held_out(
    data: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_run = f"of the run ({finished / 'splits.json'})"
    assert measured(capsys, finished, data) == (2, f"measured on split val {of_run}")
    assert measured(capsys, finished, data, "--split", "val") == (2, f"measured on split val {of_run}")
    assert measured(capsys, finished, data, "--split", "train") == (3, f"measured on split train {of_run}")
    assert run(["eval", str(finished), str(data), "--split", "test"]) == 2
    assert 'no split "test"' in one_sentence(capsys)


def test_eval_warns_about_training_pictures(
    data: Path, model: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = "measured on all pictures; those the model was trained on may be among them"
    assert measured(capsys, model, data) == (5, everything)
    (data / "p3.jpg").rename(data / "q3.jpg")  # other data than the run's
    (data / "p3.xml").rename(data / "q3.xml")
    text = (data / "q3.xml").read_text().replace("p3.jpg", "q3.jpg")
    (data / "q3.xml").write_text(text)
    assert measured(capsys, finished, data) == (5, everything)


def test_eval_prefers_the_test_split(
    tmp_path: Path, model: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / "devkit" / part).mkdir(parents=True)
    for name in "abc":
        add_picture(tmp_path / "devkit/JPEGImages", name, [("cat", 5, 5, 40, 50)])
        (tmp_path / f"devkit/JPEGImages/{name}.xml").rename(tmp_path / f"devkit/Annotations/{name}.xml")
    (tmp_path / "devkit/ImageSets/Main/train.txt").write_text("a\nb\n")
    (tmp_path / "devkit/ImageSets/Main/test.txt").write_text("c\n")
    line = "measured on split test of the data"
    splits = {"train": ["JPEGImages/a.jpg"], "val": ["JPEGImages/b.jpg"]}
    (finished / "splits.json").write_text(json.dumps({"format": 1, "data": "devkit", "splits": splits}))
    assert measured(capsys, model, tmp_path / "devkit") == (1, line)
    assert measured(capsys, finished, tmp_path / "devkit") == (1, line)


def test_eval(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", str(model), str(data), "--json", "--out", "measured"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["settings"]["images"] == 5
    assert [row["name"] for row in report["classes"]] == ["cat", "dog"]
    assert json.loads(Path("measured/evaluation.json").read_text()) == report
    assert Path("measured/classes.csv").read_text().count("\n") >= 3
    assert run(["eval", str(model), str(data)]) == 0
    assert "AP50" in capsys.readouterr().out


def test_eval_takes_the_advice_that_it_gives(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (data / "p2.jpg").read_bytes()
    (data / "p2.jpg").write_bytes(whole[: len(whole) // 2])
    words = ["eval", str(model), str(data), "--json"]
    assert run(words) == 2
    assert "p2.jpg" in capsys.readouterr().err
    assert run([*words, "--on-bad-image", "skip"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["settings"]["images"] == 4
    assert "D13 warn: picture cannot be read (1)" in shown.err and "p2.jpg" in shown.err
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (SIZE, SIZE // 2)).save(data / "p2.jpg", exif=exif)
    text = (data / "p2.xml").read_text().replace(f"<height>{SIZE}", f"<height>{SIZE // 2}")
    (data / "p2.xml").write_text(text.replace("<ymax>80<", "<ymax>40<").replace("<ymax>50<", "<ymax>40<"))
    assert run(words) == 2
    assert "use such pictures as they are stored with --exif ignore" in one_sentence(capsys)
    assert run([*words, "--exif", "ignore"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["images"] == 5


def test_eval_sets_how_the_data_are_read_and_nothing_else(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(model), str(data), "--json"]
    assert run([*words, "--set", "data.classes=cat"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["objects"] == 4
    for key in ("roi.nms_iou", "preprocess.min_size", "model.rpn.nms_iou"):
        assert run([*words, "--set", f"{key}=0.4", "--set", "data.difficult=object"]) == 2
        assert f"--set {key.removeprefix('model.')}: the model decides about that" in one_sentence(capsys)
    assert run([*words, "--set", "data.formt=voc"]) == 2
    assert "did you mean 'data.format'" in one_sentence(capsys)
    assert run([*words, "--set", "data.format=kitty"]) == 2
    assert "data.format" in one_sentence(capsys)


def test_eval_by_other_protocols(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for protocol, number in (("voc07", "mAP"), ("kitti11", "AP_moderate"), ("recall", "AR1000")):
        words = ["eval", str(model), str(data), "--protocol", protocol, "--out", protocol]
        assert run([*words, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["protocol"] == protocol and number in report["metrics"]
        assert json.loads(Path(protocol, "evaluation.json").read_text()) == report
        assert run(words) == 0
        assert f"{number} " in capsys.readouterr().out
    assert run(["eval", str(model), str(data), "--protocol", "kitty"]) == 2
    assert "kitty" in capsys.readouterr().err


def test_eval_of_proposals_alone(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["detector=rpn", "backbone.weights=none", "preprocess.min_size=64", "roi.cascade=[]"]
    frcnn.Detector.from_config(with_settings(frcnn.recipe("lite0-fpn"), small), ["object"]).save(
        tmp_path / "rpn.safetensors"
    )
    assert run(["eval", "rpn.safetensors", str(data), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["protocol"] == "recall" and report["settings"]["max_dets"] == 1000
    assert [row["name"] for row in report["classes"]] == ["object"]
    assert run(["eval", "rpn.safetensors", str(data), "--protocol", "coco"]) == 2
    assert "detector rpn" in one_sentence(capsys)


def test_eval_with_an_unknown_class(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_picture(data, "p3", [("cats", 5, 5, 40, 50)])
    assert run(["eval", str(model), str(data)]) == 2
    assert 'did you mean "cat"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [None, b"", b"PK\x03\x04 not safetensors"], ids=["missing", "empty", "other"]
)
def test_unusable_model_file(
    content: bytes | None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "m.safetensors").write_bytes(content)
    assert run(["predict", "m.safetensors", str(data)]) == 2
    assert "m.safetensors" in one_sentence(capsys)


def test_a_folder_without_a_model(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(data), str(data)]) == 2
    assert "best.safetensors" in one_sentence(capsys)


# ---- bench


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["speed"], "train"),
        (["ops", "--rounds", "0"], "--rounds"),
        (["ops", "--threads", "0"], "--threads"),
        (["infer", "--size", "800"], "as in 800x1066"),
        (["infer", "--size", "800x8"], "at least 32"),
        (["train", "--data", "nowhere"], "nowhere: no such folder"),
        (["infer", "--weights", "nowhere.pth"], "nowhere.pth: no such file"),
        (["ops", "--device", "abacus"], "abacus"),
        (["infer", "--size", "400000x400000"], "GB of memory"),
        (["infer", "--weights", "torchvision:fasterrcnn_resnet50_fpn"], "download it and name the file"),
    ],
)
def test_bad_input_of_bench(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *words]) == 2
    assert hint in one_sentence(capsys)


def test_bench_of_the_operators(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "ops", "--quick", "--device", "cpu", "--rounds", "1", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"] == found["infer"] == "not measured"
    assert found["versions"]["frcnn"] == frcnn.__version__
    (section,) = found["ops"]
    assert {len(row["rounds"]) for row in section["contenders"]} == {1}
    assert len(section["ratios"]) == 5
    assert max(section["facts"]["largest_difference"].values()) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("task", ["train", "infer"])
def test_bench_of_steps(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", task, "--quick", "--rounds", "1", "--json", "bench.json"]) == 0
    shown = capsys.readouterr().out
    assert "fp32 : fp32" in shown and "default : default" in shown
    found = json.loads(Path("bench.json").read_text(encoding="utf-8"))
    (section,) = found[task]
    first = section["contenders"][0]
    assert first["seconds_by_phase"]["backbone"] > 0
    assert first["times_the_floor"] == pytest.approx(first["seconds_median"] / first["floor_seconds"])
    assert section["facts"]["convolution_flop"] > 1e9
    if task == "infer":
        assert section["facts"]["detections_matched_share_fp32"] > 0.98
