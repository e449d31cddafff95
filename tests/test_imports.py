import json
import subprocess
import sys

import pytest

import frcnn

HEAVY = ("torch", "torchvision", "timm", "lightning", "numpy", "PIL", "hotcoco", "rich")


def loaded_after(code: str) -> set[str]:
    """The modules of a fresh Python after some code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_itself_loads_nothing_heavy() -> None:
    assert not loaded_after("import frcnn") & {*HEAVY, "pydantic", "typer"}


def test_help_needs_no_torch() -> None:
    code = "from frcnn.cli import run\nassert run(['train', '--help']) == 0"
    assert not loaded_after(code) & set(HEAVY)


def test_configuration_needs_no_torch() -> None:
    assert not loaded_after("import frcnn\nfrcnn.recipe('lite0-fpn')") & set(HEAVY)


def test_prediction_and_evaluation_need_no_lightning() -> None:
    code = "import frcnn, frcnn.writers\nfrcnn.Detector, frcnn.evaluate, frcnn.open_dataset, frcnn.Result"
    loaded = loaded_after(code)
    assert "torch" in loaded
    assert not loaded & {"lightning", "pytorch_lightning", "torchmetrics", "frcnn.training.module"}


def test_every_public_name_exists() -> None:
    for name in frcnn.__all__:
        assert getattr(frcnn, name) is not None, name
    assert set(frcnn.__all__) <= set(dir(frcnn))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Detektor"):
        _ = frcnn.Detektor  # type: ignore[attr-defined]
