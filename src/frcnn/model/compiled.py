"""The detector compiled by ``torch.compile``, for a small number of padded sizes.

``regional`` compiles the two parts that are network only: backbone, pyramid and RPN head as one graph, the
box head as another; what lies between them runs as it is. ``step`` compiles the whole path as one graph.
Either way a graph holds for one shape: so many pictures of one padded size. A batch of another shape than
those that are compiled runs as without compiling, which gives the same numbers.

The network itself is not changed: names of weights stay, and a copy of it is not compiled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from frcnn.model.buckets import MOST_SIZES, OBJECTS, fitting, pad_objects, pad_pictures
from frcnn.model.detector import FasterRCNN, Regions, Seen
from frcnn.model.postprocess import Limits
from frcnn.model.preprocess import Size
from frcnn.structures import ImageBatch, Noise, Targets, Trace

Mode = Literal["regional", "step"]
MOST_GRAPHS = 256
"""Of one function, over all detectors of the process; the sizes are limited here, not by torch."""


class CompileError(ValueError):
    """``torch.compile`` cannot be used; the message says what to do."""


class Shape(NamedTuple):
    """What a graph holds for."""

    images: int
    height: int
    width: int
    objects: int
    autocast: str

    def __str__(self) -> str:
        """As it stands in messages."""
        objects = f" with {self.objects} objects" if self.objects else ""
        return f"{self.images} x {self.height}x{self.width}{objects}"


def compile_detector(
    model: FasterRCNN,
    mode: Mode = "regional",
    *,
    training: bool = False,
    images: int | None = None,
    sizes: Sequence[Size] | None = None,
    graphs: bool | None = None,
) -> Compiled:
    """Compile a network, from its next call on: the first batch of every shape takes the time.

    Args:
        model: its ``forward`` and ``frcnn.model.detector.detect`` use what is compiled; ``trace`` does not.
        mode: ``regional`` or ``step``.
        training: compile training steps (losses); else detection.
        images: pictures of a batch that is compiled for; None: as many as the first batch has.
        sizes: padded (height, width) to compile for; None: the first six that come.
        graphs: record CUDA graphs of the regions; None: on a GPU, with ``regional``.

    Returns:
        ``model.compiled``, which knows what was compiled and how long it took.

    Raises:
        ValueError: for more than six sizes, or for ``step`` with replaced parts.
    """
    model.compiled = Compiled(model, mode, training, images, sizes, graphs)
    return model.compiled


def check_compiler(device: torch.device | str) -> None:
    """Compile and run a small function.

    Raises:
        CompileError: when that does not work here, with the reason and what to do.
    """
    values = torch.linspace(-1, 1, 64, device=device)
    try:
        found = torch.compile(_probe, fullgraph=True, dynamic=False)(values)
    except Exception as error:  # whatever a compiler or driver may throw is the finding
        raise CompileError(
            f"torch.compile does not work on {torch.device(device).type} here ({_reason(error)}); "
            f"{_advice(torch.device(device))}, or leave out --compile"
        ) from error
    if not torch.allclose(found, _probe(values)):
        raise CompileError(f"torch.compile gives wrong numbers on {device} here; leave out --compile")


def _probe(values: Tensor) -> Tensor:
    return (values.sin() + 1).relu().cumsum(0)


class Compiled:
    """The compiled functions of one network, and what became of its batches.

    Attributes:
        mode: ``regional`` or ``step``.
        training: compiled for training steps, else for detection.
        images: pictures of a batch; None until the first one comes.
        sizes: padded sizes that are compiled for.
        seconds: of the first call of every shape, which is the time that compiling took.
        outside: batches that ran as without compiling.
        inside: batches that were compiled.
    """

    def __init__(
        self,
        model: FasterRCNN,
        mode: Mode,
        training: bool,
        images: int | None,
        sizes: Sequence[Size] | None,
        graphs: bool | None,
    ) -> None:
        """See ``compile_detector``."""
        if sizes is not None and len(sizes) > MOST_SIZES:
            raise ValueError(f"{len(sizes)} padded sizes to compile for; give at most {MOST_SIZES}")
        replaced = model.parts.replaced
        if mode == "step" and replaced:
            raise ValueError(
                f"part {replaced[0]} is replaced and may not fit into one graph; compile with 'regional', "
                "which leaves replaced parts as they are"
            )
        self.mode, self.training, self.images = mode, training, images
        self.sizes: list[Size] = list(sizes or ())
        self.seconds: dict[Shape, float] = {}
        self.inside = self.outside = 0
        self._open = sizes is None
        self._model = model
        self._news: list[str] = []
        cuda = next(model.parameters()).device.type == "cuda"
        self._graphs = mode == "regional" and (cuda if graphs is None else graphs)
        self._regions = self._compile_regions(replaced) if mode == "regional" else None
        self._step = self._compile(self._whole)

    def _compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] | None = {"triton.cudagraphs": True} if self._graphs else None
        return torch.compile(function, fullgraph=True, dynamic=False, options=options)

    def _compile_regions(self, replaced: Sequence[str]) -> Regions:
        model = self._model
        see: Callable[[ImageBatch], Seen] = self._compile(model.see)
        if "rpn_head" in replaced:
            extract = self._compile(model.extract)

            def see(batch: ImageBatch) -> Seen:
                batch, features = extract(batch)
                return Seen(batch, features, *model.rpn_head(features))

        classify = model.box_head if "box_head" in replaced else self._compile(model.box_head.forward)
        return Regions(see, classify)

    def fit(self, batch: ImageBatch, targets: Targets) -> tuple[ImageBatch, Targets]:
        """A training batch padded to what is compiled, before noise is drawn for it.

        More padding is to the network what a larger picture in the same batch would be. A batch that fits
        into no size, or of another number of pictures, is returned as it is.
        """
        size = fitting((batch.pixels.shape[2], batch.pixels.shape[3]), self.sizes)
        if not self.training or size is None or len(batch) != (self.images or len(batch)):
            return batch, targets
        return pad_pictures(batch, size), pad_objects(targets) if self.mode == "step" else targets

    def trace(
        self,
        batch: ImageBatch,
        targets: Targets | None = None,
        noise: Noise | None = None,
        detect: bool = False,
        limits: Limits | None = None,
    ) -> Trace:
        """As ``FasterRCNN.trace``, compiled where the shape is. ``step`` leaves out maps, pooled features."""
        model = self._model
        if (targets is not None and not detect) != self.training:
            return model.trace(batch, targets, noise, detect, limits)
        shape = self._shape(batch, targets)
        if not self._covers(shape):
            self.outside += 1
            return model.trace(batch, targets, noise, detect, limits)
        self.inside += 1
        with self._watched(shape), torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS):
            if self._graphs:
                torch.compiler.cudagraph_mark_step_begin()
            if self._regions is not None:
                return model.trace(batch, targets, noise, detect, limits, self._regions)
            anchors = model.anchors(shape.height, shape.width, batch.pixels.device)
            return replace(self._step(batch, anchors, targets, noise, limits), batch=batch)

    def _whole(
        self,
        batch: ImageBatch,
        anchors: Tensor,
        targets: Targets | None,
        noise: Noise | None,
        limits: Limits | None,
    ) -> Trace:
        """The whole path, and of its values those that are needed: each output costs memory."""
        trace = self._model.stages(batch, anchors, targets, noise, limits=limits)
        kept = Trace(batch, (), trace.rpn.detach(), losses=trace.losses)
        if targets is not None:
            return kept
        return replace(
            kept,
            proposals=trace.proposals,
            class_logits=trace.class_logits,
            deltas=trace.deltas,
            detections=trace.detections,
        )

    def _shape(self, batch: ImageBatch, targets: Targets | None) -> Shape:
        n, _, height, width = batch.pixels.shape
        kind = batch.pixels.device.type
        cast = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else ""
        objects = 0 if targets is None or self.mode == "regional" else targets.labels.shape[1]
        return Shape(n, height, width, objects, cast)

    def _covers(self, shape: Shape) -> bool:
        """Whether the shape is compiled; takes it up while there is room. Says once what is not."""
        size = (shape.height, shape.width)
        if self._open and size not in self.sizes and len(self.sizes) < MOST_SIZES:
            self.sizes.append(size)
        if self.images is None:
            self.images = shape.images
        found = size in self.sizes and shape.images == self.images and shape.objects <= OBJECTS[-1]
        if not found and not self.outside:
            self._news.append(
                f"not compiled: {shape}; compiled are batches of {self.images} in the sizes "
                f"{', '.join(f'{h}x{w}' for h, w in self.sizes)}; others run as without --compile"
            )
        return found

    @contextmanager
    def _watched(self, shape: Shape) -> Iterator[None]:
        """Time the first call of a shape; a graph that cannot be made is one sentence."""
        if shape in self.seconds:
            yield
            return
        start = time.perf_counter()
        try:
            yield
        except torch._dynamo.exc.TorchDynamoException as error:
            raise CompileError(
                f"the detector cannot be compiled for {shape} ({_reason(error)}); "
                + ("set train.compile=regional, or " if self.mode == "step" else "")
                + "leave out --compile"
            ) from error
        self.seconds[shape] = time.perf_counter() - start
        self._news.append(f"compiled {shape} in {self.seconds[shape]:.0f} s ({self.mode})")

    def news(self) -> list[str]:
        """What happened since the last call of this: a sentence for each compiled shape."""
        found = list(self._news)
        self._news.clear()
        return found

    def summary(self) -> str:
        """One line: ``compiled in 47 s (3 shapes)``, and how many batches that did not concern."""
        count = len(self.seconds)
        text = f"compiled in {sum(self.seconds.values()):.0f} s ({count} shape{'s' * (count != 1)})"
        if self.outside:
            text += f"; {self.outside} of {self.outside + self.inside} batches ran as without --compile"
        return text


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200].rstrip(".")


def _advice(device: torch.device) -> str:
    if device.type == "cpu":
        return (
            "it needs a C++ compiler (apt install g++, xcode-select --install, or Visual Studio's Build "
            "Tools; the environment variable CXX names another one)"
        )
    return "it needs the Triton that belongs to this torch, and a C compiler"
