"""Published weights by name, from a server of the test's own on 127.0.0.1."""

from __future__ import annotations

import hashlib
import http.server
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision_pair import as_floats, exact_nms, make, pictures

from frcnn.cli import run
from frcnn.config import BackboneConfig
from frcnn.model.detector import FasterRCNN
from frcnn.predict import Detector
from frcnn.recipes import recipe
from frcnn.training.options import TrainOptions
from frcnn.training.plan import resolve_config, starting_network
from frcnn.weights.checkpoint import CheckpointError, load_checkpoint
from frcnn.weights.download import download
from frcnn.weights.fetch import class_names, fetch, published
from frcnn.weights.imagenet import load_pretrained
from frcnn.weights.torchvision import ARCHITECTURES, published_config

SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"
NAME = f"torchvision:{SMALL}"
COCO = torchvision.models.detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1
Allow = Callable[[int], str]


@dataclass
class Server:
    """Answers for files by name.

    Attributes:
        url: of its folder.
        files: name -> (status, announced length, content).
        asked: names in the order in which they were asked for.
    """

    url: str = ""
    files: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, content: bytes, digest: str | None = None, announced: int | None = None) -> str:
        """Serve a file; the URL of it, its name made as torchvision's are."""
        name = f"detector-{digest or hashlib.sha256(content).hexdigest()[:8]}.pth"
        self.files[name] = (200, len(content) if announced is None else announced, content)
        return f"{self.url}/{name}"


@pytest.fixture
def server(loopback: Allow) -> Iterator[Server]:
    made = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            made.asked.append(name)
            status, announced, content = made.files.get(name, (404, 0, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(announced))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        made.url = loopback(listening.server_address[1])
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield made
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and an empty folder of torch.hub."""
    monkeypatch.setenv("FRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FRCNN_MIRROR", raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """A random detector of torchvision's for its 91 categories."""
    return make(SMALL, classes=90)


@pytest.fixture(scope="module")
def content(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Its file, without the counters that frozen norms do not have."""
    path = tmp_path_factory.mktemp("theirs") / "state.pth"
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, path)
    return path.read_bytes()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make torchvision say that the small detector's weights are at a URL."""
    return lambda url: monkeypatch.setattr(COCO.value, "url", url)


def refused(capsys: pytest.CaptureFixture[str], words: list[str], cache: Path) -> str:
    """The one sentence of a command that ends with code 2 and leaves nothing in the cache."""
    assert run(words) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("frcnn: ")
    assert not list(cache.glob("*"))
    return last


# ---- names


@pytest.mark.parametrize("name", ["", "torchvision:", "torchvision:zzz"])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        published(name)
    assert repr(name) in str(caught.value)
    assert all(f"torchvision:{arch}" in str(caught.value) for arch in ARCHITECTURES)


def test_the_nearest_name_is_proposed(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    words = ["fetch", "torchvision:fasterrcnn_resnet50_fpn_v3"]
    assert "did you mean torchvision:fasterrcnn_resnet50_fpn_v2?" in refused(capsys, words, cache)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_published_detector_has_a_checked_url_and_its_own_names(arch: str) -> None:
    found = published(f"torchvision:{arch}")
    enum = torchvision.models.get_model_weights(arch)
    assert found.url == enum.COCO_V1.url and found.source == found.url
    assert found.arch == arch and f"-{found.digest}." in found.file
    assert len(found.classes) == len(set(found.classes)) == 90
    for label, category in enumerate(enum.COCO_V1.meta["categories"][1:]):
        assert found.classes[label] == (f"N/A {label + 1}" if category == "N/A" else category)
    for other in (ARCHITECTURES[arch], f"{enum.__name__}.COCO_V1"):
        assert published(f"torchvision:{other}") == found


def test_names_of_no_category() -> None:
    assert class_names([]) == class_names(["__background__"]) == ()
    assert class_names(["__background__", "cat", "N/A", "dog", "N/A"]) == ("cat", "N/A 2", "dog", "N/A 4")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_norm_and_epsilon_are_those_that_torchvision_builds(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its builders, asked for the published weights; only reading the file is left out."""
    enum = torchvision.models.get_model_weights(arch)
    monkeypatch.setattr(enum, "get_state_dict", lambda *_, **__: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
    with torch.device("meta"):
        body = torchvision.models.get_model(arch, weights=enum.COCO_V1).backbone.body
    kinds = (nn.BatchNorm2d, torchvision.ops.FrozenBatchNorm2d)
    norms = [module for module in body.modules() if isinstance(module, kinds)]
    found = {("batch" if isinstance(norm, nn.BatchNorm2d) else "frozen", norm.eps) for norm in norms}
    ours = published_config(arch).backbone
    assert found == {(ours.norm, ours.norm_eps)}


def test_the_list_says_what_is_where(
    capsys: pytest.CaptureFixture[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRCNN_MIRROR", "http://mirror/")
    cache.mkdir()
    (cache / published(SMALL).file).touch()
    assert run(["fetch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [f"torchvision:{a}" for a in ARCHITECTURES]
    assert lines[-1].endswith("MiB, in the cache")
    assert re.search(
        r"recipe r50-fpn, \d+ MiB, http://mirror/fasterrcnn_resnet50_fpn_coco-\w+\.pth$", lines[1]
    )


# ---- fetching


def test_a_fetched_detector_is_torchvisions_and_the_second_time_needs_no_network(
    server: Server,
    at: Callable[[str], None],
    cache: Path,
    theirs: nn.Module,
    content: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = server.add(content)
    at(url)
    detector = Detector.load(NAME)
    said = capsys.readouterr().err.splitlines()
    digest, file = hashlib.sha256(content).hexdigest(), url.rpartition("/")[2]
    assert said[0] == f"fetching {url} (74 MiB, SHA-256 {digest[:8]}...) into {cache}"
    assert said[1] == f"{cache / file}: SHA-256 {digest}, begins as published"
    converted = cache / f"{Path(file).stem}.safetensors"
    assert said[2:] == [f"converted to {converted}: recipe mobilenetv3-320-fpn, 90 classes"]
    assert sorted(p.name for p in cache.iterdir()) == sorted([file, converted.name])

    # the builder of torchvision, asked for these weights
    state = torch.load(cache / file, weights_only=True)
    monkeypatch.setattr(type(COCO), "get_state_dict", lambda *_, **__: state)
    model = torchvision.models.get_model(SMALL, weights=COCO).eval()
    picture = pictures()[0]
    with torch.no_grad(), exact_nms():
        expected = model(as_floats([picture]))[0]
    found = detector.predict(picture, score=0.05, precision="fp32")[0]
    assert len(found) == len(expected["boxes"]) > 20
    # folded norms round differently, and random layers amplify it
    assert torch.from_numpy(found.scores).allclose(expected["scores"], rtol=0, atol=1e-3)
    same = torch.from_numpy(found.labels) + 1 == expected["labels"]  # equal scores may swap
    assert same.float().mean() >= 0.95
    assert {"N/A 12", "person"} < set(detector.classes) and "N/A" not in detector.classes

    # again: the server is not asked, by whichever way
    assert run(["fetch", NAME]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [str(converted)] and not shown.err
    assert load_checkpoint(NAME).classes == detector.classes
    assert server.asked == [file]


def test_predict_eval_and_train_take_the_name(
    cache: Path, content: bytes, at: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A file put into the cache by hand, as the sentence for machines without a network says; no server."""
    digest = hashlib.sha256(content).hexdigest()
    at(f"https://example.invalid/by-hand-{digest[:8]}.pth")
    cache.mkdir()
    (cache / f"by-hand-{digest[:8]}.pth").write_bytes(content)
    pictures()[0].save("one.png")
    assert run(["predict", NAME, "one.png", "--score", "0.5", "--no-pictures"]) == 0
    assert Path("predictions/predictions.json").is_file()
    options = TrainOptions(weights=NAME)
    for name in (None, "mobilenetv3-320-fpn"):  # the recipe leaves the norm open: as in the weights
        backbone = resolve_config(name, options, None).backbone
        assert (backbone.norm, backbone.norm_eps, backbone.weights) == ("frozen", 1e-5, NAME)
    config = resolve_config("mobilenetv3-320-fpn", options, None)
    network, notes = starting_network(config, ["person", "x"], options)
    assert "rows kept for person" in notes[0] and f"loaded from {NAME}" in notes[0]
    stored = load_checkpoint(NAME)
    row = stored.classes.index("person")
    assert torch.equal(network.box_head.classes.weight[0], stored.state["box_head.classes.weight"][row])
    free = {n.split(".")[1] for n, p in network.backbone.named_parameters() if p.requires_grad}
    assert free == {str(i) for i in range(7, 17)}


def test_a_recipe_of_another_backbone_does_not_fit(
    cache: Path, content: bytes, at: Callable[[str], None]
) -> None:
    digest = hashlib.sha256(content).hexdigest()
    at(f"https://example.invalid/by-hand-{digest[:8]}.pth")
    cache.mkdir()
    (cache / f"by-hand-{digest[:8]}.pth").write_bytes(content)
    options = TrainOptions(weights=NAME)
    config = resolve_config("lite0-fpn", options, None)
    assert config.backbone == recipe("lite0-fpn").backbone
    with pytest.raises(CheckpointError, match=r"does not fit recipe 'lite0-fpn' \(it was made with 'mobile"):
        starting_network(config, ["person"], options)


def test_a_copy_in_torch_hubs_folder_is_used(content: bytes, at: Callable[[str], None], cache: Path) -> None:
    digest = hashlib.sha256(content).hexdigest()
    at(f"https://example.invalid/hub-{digest[:8]}.pth")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True)
    (folder / f"hub-{digest[:8]}.pth").write_bytes(content)
    path, stored = fetch(NAME)
    assert [p.name for p in cache.iterdir()] == [path.name] and stored.config.recipe == "mobilenetv3-320-fpn"
    # a conversion that another version would have written is made anew; so is a damaged one
    path.write_bytes(path.read_bytes()[:1000])
    assert fetch(NAME)[1].config == stored.config
    assert load_checkpoint(path).classes == stored.classes


def test_a_mirror_is_asked_instead(
    server: Server, at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    name = server.add(b"").rpartition("/")[2]
    at(f"https://example.invalid/models/{name}")
    monkeypatch.setenv("FRCNN_MIRROR", server.url + "/")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):  # the right file, and no weights
        fetch(NAME)
    assert server.asked == [name] and (cache / name).read_bytes() == b""


def test_pickled_objects_are_never_loaded(cache: Path, at: Callable[[str], None]) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (Path("trapped"),))

    torch.save({"state_dict": Trap()}, "trap.pth")
    content = Path("trap.pth").read_bytes()
    name = f"trap-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    at(f"https://example.invalid/{name}")
    cache.mkdir()
    (cache / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="holds pickled objects"):
        fetch(NAME)
    assert not Path("trapped").exists()


# ---- what goes wrong


def test_another_file_than_the_published_one(
    server: Server, at: Callable[[str], None], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at(server.add(b"something else", digest="0123abcd"))
    sentence = refused(capsys, ["fetch", NAME], cache)
    full = hashlib.sha256(b"something else").hexdigest()
    assert f"SHA-256 {full} does not begin with 0123abcd" in sentence and "nothing was kept" in sentence


def test_a_damaged_file_in_the_cache(cache: Path, at: Callable[[str], None]) -> None:
    at("https://example.invalid/a-0123abcd.pth")
    cache.mkdir()
    (cache / "a-0123abcd.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"a-0123abcd\.pth: its SHA-256 e3b0c44\w+ does not begin with"):
        fetch(NAME)
    assert (cache / "a-0123abcd.pth").exists(), "a file that was put there by hand is not deleted"


def test_a_file_that_is_not_there(
    server: Server, at: Callable[[str], None], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at(f"{server.url}/gone-0123abcd.pth")
    sentence = refused(capsys, ["predict", NAME, str(Path(__file__))], cache)
    assert f"{server.url}/gone-0123abcd.pth: the server answers 404 Not Found" in sentence
    assert str(cache / "gone-0123abcd.pth") in sentence and "FRCNN_MIRROR" in sentence


@pytest.mark.parametrize("sent", [0, 1, 3_000_000])
def test_a_connection_that_ends_early(
    server: Server, at: Callable[[str], None], cache: Path, capsys: pytest.CaptureFixture[str], sent: int
) -> None:
    at(server.add(bytes(sent), announced=5_000_000))
    sentence = refused(capsys, ["fetch", NAME], cache)
    assert f"the connection ended after {sent:,} of 5,000,000 bytes; run the command again" in sentence


def test_a_server_that_refuses(
    loopback: Allow, at: Callable[[str], None], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        url = loopback(plug.getsockname()[1])  # bound and not listening
        at(f"{url}/a-0123abcd.pth")
        sentence = refused(capsys, ["fetch", NAME], cache)
    assert f"127.0.0.1 cannot be reached for {url}/a-0123abcd.pth (Connection refused)" in sentence
    assert f"put the file at {cache / 'a-0123abcd.pth'} by hand" in sentence


def test_no_network(cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    sentence = refused(capsys, ["fetch", NAME], cache)
    assert "download.pytorch.org cannot be reached" in sentence and "name resolution" in sentence
    assert str(cache / published(NAME).file) in sentence


@pytest.mark.parametrize("mirror", ["nonsense", "gopher://x", "http://", "http://a b"])
def test_a_mirror_that_is_no_url(
    mirror: str, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRCNN_MIRROR", mirror)
    assert f"{mirror.rstrip('/')}/" in refused(capsys, ["fetch", NAME], cache)


def test_a_mirror_may_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"abc")
    download((tmp_path / "a.pth").as_uri(), tmp_path / "new/a.pth", hashlib.sha256(b"abc").hexdigest())
    assert (tmp_path / "new/a.pth").read_bytes() == b"abc"


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRCNN_CACHE", str(tmp_path / "file"))
    sentence = refused(capsys, ["fetch", NAME], tmp_path / "file")
    assert f"{tmp_path / 'file'}: cannot be written" in sentence and "set FRCNN_CACHE" in sentence


def test_a_backbone_is_not_fetched_behind_the_users_back() -> None:
    """The configuration of a fetched detector names its origin; a run from it alone must not download."""
    with torch.device("meta"):
        config = recipe("mobilenetv3-fpn")
        backbone = BackboneConfig(name="resnet18", weights="torchvision:fasterrcnn_resnet50_fpn")
        anchors = config.anchors.model_copy(update={"sizes": ((8,),) * 5})
        model = FasterRCNN(config.model_copy(update={"backbone": backbone, "anchors": anchors}), 2)
    with pytest.raises(CheckpointError, match="start from that detector with --weights"):
        load_pretrained(model)
