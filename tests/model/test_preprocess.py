"""Room 2 against torchvision's transform, and its promises about padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from frcnn.config import PreprocessConfig
from frcnn.model.preprocess import normalise, pad_batch, prepare, resize_image, target_size

TV = PreprocessConfig(min_size=120, max_size=200, method="torchvision")
PIL_SPEC = PreprocessConfig(min_size=96, max_size=160, method="pillow")
SHAPES = [(80, 121), (133, 61), (150, 150), (97, 240)]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, height, width])
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_target_size_of_nothing_is_refused() -> None:
    for height, width, scale in [(0, 0, 1.0), (0, 5, 1.0), (5, 0, 1.0), (5, 5, 0.0)]:
        with pytest.raises(ValueError, match="has no pixels"):
            target_size(height, width, PIL_SPEC, scale)


def test_target_size_equals_torchvision_for_all_aspects() -> None:
    spec = PreprocessConfig(min_size=800, max_size=1333, method="torchvision")
    transform = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3).eval()
    random = np.random.default_rng(3).integers(1, 400, (40, 2)).tolist()
    for height, width in [*random, (427, 640), (640, 427), (500, 500), (40, 4000)]:
        shape = torch.empty(1, height, width)  # one channel keeps the resize cheap
        assert target_size(height, width, spec) == tuple(transform.resize(shape)[0].shape[-2:])


def test_pillow_rounds_and_torchvision_floors() -> None:
    floor = PreprocessConfig(min_size=100, max_size=1000, method="torchvision")
    near = PreprocessConfig(min_size=100, max_size=1000, method="pillow")
    assert target_size(300, 467, floor) == (100, 155)
    assert target_size(300, 467, near) == (100, 156)
    assert target_size(1, 10_000, near) == (1, 1000), "a side never vanishes"
    assert target_size(1, 10_000, PreprocessConfig(min_size=10, max_size=10, method="pillow")) == (1, 10)


def test_scale_multiplies_both_limits_and_fixed_size_wins() -> None:
    assert target_size(100, 100, PIL_SPEC, 0.5) == (48, 48)
    assert target_size(100, 1000, PIL_SPEC, 0.5) == (8, 80)
    fixed = PIL_SPEC.model_copy(update={"fixed_size": (64, 72)})
    assert target_size(100, 1000, fixed, 0.5) == (64, 72)


@pytest.mark.parametrize("fixed", [None, (100, 140)])
def test_batch_equals_torchvision(fixed: tuple[int, int] | None) -> None:
    spec = TV.model_copy(update={"fixed_size": fixed})
    arrays = [picture(*shape) for shape in SHAPES]
    sizes = [target_size(*shape, spec) for shape in SHAPES]
    images = [resize_image(a, spec, s) for a, s in zip(arrays, sizes, strict=True)]
    batch = normalise(pad_batch(images, SHAPES, spec), spec)
    flipped = None if fixed is None else (fixed[1], fixed[0])  # torchvision's is (width, height)
    transform = GeneralizedRCNNTransform(120, 200, list(TV.mean), list(TV.std), fixed_size=flipped).eval()
    boxes = torch.tensor([[1.0, 2.0, 30.5, 40.25]])
    targets = [{"boxes": boxes.clone()} for _ in arrays]
    floats = [torch.from_numpy(a).permute(2, 0, 1).float() / 255 for a in arrays]
    expected, moved = transform(floats, targets)
    assert batch.sizes.tolist() == [list(s) for s in expected.image_sizes]
    assert batch.pixels.shape == expected.tensors.shape
    torch.testing.assert_close(batch.pixels.contiguous(), expected.tensors, rtol=0, atol=1e-6)
    scaled = boxes * batch.scales.flip(1).repeat(1, 2)[:, None]
    torch.testing.assert_close(scaled, torch.stack([m["boxes"] for m in moved]), rtol=0, atol=0)


def test_pad_batch_refuses_nothing_and_wrong_counts() -> None:
    for images, sizes in [([], []), ([torch.zeros(3, 4, 4)], [])]:
        with pytest.raises(ValueError, match="give one of each"):
            pad_batch(images, sizes, PIL_SPEC)
    with pytest.raises(ValueError, match="smaller than a resized picture"):
        pad_batch([torch.zeros(3, 40, 4)], [(40, 4)], PIL_SPEC, padded_size=(32, 32))


def test_pad_batch_places_pads_and_describes() -> None:
    images = [torch.full((3, 33, 20), 7, dtype=torch.uint8), torch.full((3, 10, 40), 9, dtype=torch.uint8)]
    batch = pad_batch(images, [(66, 80), (5, 40)], PIL_SPEC)
    assert batch.pixels.dtype == torch.uint8
    assert batch.pixels.shape == (2, 3, 64, 64)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.pixels[0, :, :33, :20].eq(7).all()
    assert batch.pixels.sum().item() == 7 * 3 * 33 * 20 + 9 * 3 * 10 * 40
    assert batch.sizes.tolist() == [[33.0, 20.0], [10.0, 40.0]]
    assert batch.original_sizes.tolist() == [[66.0, 80.0], [5.0, 40.0]]
    assert batch.scales.tolist() == [[0.5, 0.25], [2.0, 1.0]]
    larger = pad_batch(images, [(66, 80), (5, 40)], PIL_SPEC, padded_size=(96, 128))
    assert larger.pixels.shape == (2, 3, 96, 128)


def test_fixed_size_is_padded_to_the_multiple() -> None:
    spec = PIL_SPEC.model_copy(update={"fixed_size": (50, 64)})
    image = resize_image(picture(30, 30), spec, target_size(30, 30, spec))
    assert pad_batch([image], [(30, 30)], spec).pixels.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("spec", [PIL_SPEC, TV], ids=["pillow", "torchvision"])
def test_a_batch_equals_single_pictures_inside_them(spec: PreprocessConfig) -> None:
    images = [resize_image(picture(*s), spec, target_size(*s, spec)) for s in SHAPES]
    joint = normalise(pad_batch(images, SHAPES, spec), spec)
    assert joint.pixels.dtype == torch.float32
    assert joint.pixels.is_contiguous(memory_format=torch.channels_last)
    for i, (image, shape) in enumerate(zip(images, SHAPES, strict=True)):
        alone = normalise(pad_batch([image], [shape], spec), spec).pixels[0]
        h, w = image.shape[1:]
        assert torch.equal(joint.pixels[i, :, :h, :w], alone[:, :h, :w])
        assert not joint.pixels[i, :, h:].any()
        assert not joint.pixels[i, :, :, w:].any()


def test_normalise_formula_and_padding_even_where_it_is_not_black() -> None:
    image = torch.from_numpy(picture(20, 24)).permute(2, 0, 1)
    batch = pad_batch([image], [(20, 24)], PIL_SPEC)
    batch.pixels[:, :, 20:] = 255
    result = normalise(batch, PIL_SPEC).pixels[0]
    mean, std = (torch.tensor(v)[:, None, None] for v in (PIL_SPEC.mean, PIL_SPEC.std))
    torch.testing.assert_close(result[:, :20, :24], (image.float() / 255 - mean) / std, rtol=0, atol=1e-5)
    assert not result[:, 20:].any()
    assert not result[:, :, 24:].any()
    again = normalise(normalise(batch, PIL_SPEC), PIL_SPEC)
    assert torch.equal(again.pixels[0], result), "floats pass unchanged"


def test_normalise_compiles_whole_without_growing_with_the_batch() -> None:
    counts = []
    for n in (1, 4):
        nodes: list[int] = []

        def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor], nodes: list[int] = nodes) -> object:
            nodes.append(len(list(graph.graph.nodes)))
            return graph.forward

        images = [torch.from_numpy(picture(*s)).permute(2, 0, 1) for s in SHAPES[:n]]
        batch = pad_batch(images, SHAPES[:n], PIL_SPEC)
        torch.compiler.reset()
        compiled = torch.compile(lambda b: normalise(b, PIL_SPEC), fullgraph=True, backend=backend)
        assert torch.equal(compiled(batch).pixels, normalise(batch, PIL_SPEC).pixels)
        counts += nodes
    assert len(counts) == 2
    assert counts[0] == counts[1]


def test_resize_pillow_antialiases_and_accepts_both_kinds_of_picture() -> None:
    array = picture(90, 160)
    image = Image.fromarray(array)
    result = resize_image(image, PIL_SPEC, (30, 53))
    assert result.dtype == torch.uint8
    assert result.shape == (3, 30, 53)
    assert torch.equal(result, resize_image(array, PIL_SPEC, (30, 53)))
    fortran = np.asfortranarray(array)
    assert torch.equal(result, resize_image(fortran, PIL_SPEC, (30, 53))), "strides do not matter"
    assert result.float().std() < 0.5 * array.std(), "noise is averaged away, not sampled"
    assert np.array_equal(resize_image(array, PIL_SPEC, (90, 160)).permute(1, 2, 0).numpy(), array)


def test_resize_does_not_share_memory_with_the_input() -> None:
    array = picture(8, 8)
    before = array.copy()
    resize_image(array, PIL_SPEC, (8, 8)).fill_(0)
    resize_image(array, TV, (8, 8)).fill_(0)
    assert np.array_equal(array, before)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), "uint8"),
        (np.zeros((4, 4, 4), np.uint8), "RGB order"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (Image.new("L", (4, 4)), "mode 'L'"),
    ],
)
def test_resize_refuses_other_pictures(image: np.ndarray | Image.Image, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resize_image(image, PIL_SPEC, (4, 4))


def test_prepare_asks_for_a_reduced_decode_only_where_the_method_allows() -> None:
    asked: list[tuple[int, int] | None] = []

    def read(at_least: tuple[int, int] | None) -> np.ndarray:
        asked.append(at_least)
        return picture(200, 100)

    assert prepare((200, 100), PIL_SPEC, 0.5, read).shape == (3, 80, 40)
    assert prepare((200, 100), TV, 1.0, read).shape == (3, 200, 100)
    assert asked == [(80, 40), None]
