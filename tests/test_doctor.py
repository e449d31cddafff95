import pytest

from frcnn import doctor

PIN = ["numpy", "torch==2.15.0", "pillow"]


@pytest.mark.parametrize(
    ("torch", "requirements", "wrong"),
    [
        ("not installed", [], False),
        ("2.15.0", PIN, False),
        ("2.15.0+cpu", PIN, False),
        ("2.14.0", PIN, True),
        ("2.15.1", ["torch (==2.15.0)"], True),
        ("2.15.0", ["torch>=2"], False),
        ("2.15.0", ["torchmetrics==1.0"], False),
    ],
)
def test_version_mismatch(torch: str, requirements: list[str], wrong: bool) -> None:
    sentence = doctor.version_mismatch(torch, "0.29.2", requirements)
    assert (sentence is not None) == wrong
    if sentence:
        assert f'pip install --force-reinstall "torch=={torch}" torchvision' in sentence


def test_this_machine_is_well() -> None:
    health = doctor.examine()
    assert health.problems == ()
    assert health.devices[0].device == "cpu"
    assert set(health.devices[0].operators) == {"nms", "roi_align", "roi_align gradient"}
    assert health.lines()[-1] == "all is well"


def test_a_broken_operator_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: str) -> None:
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(doctor, "_nms", broken)
    health = doctor.examine()
    assert len(health.problems) == len(health.devices)
    assert "nms does not work on cpu (RuntimeError: no kernel image is available)" in health.problems[0]


def test_a_mismatch_ends_the_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda package: ["torch==0.1"])
    health = doctor.examine()
    assert health.devices == ()
    assert len(health.problems) == 1
