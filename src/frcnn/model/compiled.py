"""The detector compiled by ``torch.compile``, for a small number of padded sizes.

``regional`` compiles the two parts that are network only: backbone, pyramid and RPN head as one graph, the
box head as another; what lies between them runs as it is. ``step`` compiles the whole path as one graph.
Either way a graph holds for one shape: so many pictures of one padded size. A batch of another shape than
those that are compiled runs as without compiling, which gives the same numbers.

The network itself is not changed: names of weights stay, and a copy of it is not compiled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from frcnn.model.buckets import MOST_SIZES, OBJECTS, commonest, fitting, pad_objects, pad_pictures
from frcnn.model.compiler import CompileError, check_compiler, reason_of
from frcnn.model.detector import Network, Regions, Seen
from frcnn.model.postprocess import Limits
from frcnn.model.preprocess import Size
from frcnn.structures import ImageBatch, Noise, Targets, Trace

Mode = Literal["regional", "step"]
Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]
MOST_GRAPHS = 256
"""Of one function, over all detectors of the process; the sizes are limited here, not by torch."""


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
    model: Network,
    mode: Mode = "regional",
    *,
    training: bool = False,
    images: int | None = None,
    sizes: Sequence[Size] | None = None,
    graphs: bool | None = None,
    backend: str = "inductor",
) -> Compiled:
    """Compile a network, from its next call on: the first batch of every shape takes the time.

    Args:
        model: its ``forward`` and ``frcnn.model.detector.detect`` use what is compiled; ``trace`` does not.
        mode: ``regional`` or ``step``.
        training: compile training steps (losses); else detection.
        images: pictures of a batch that is compiled for; None: as many as the first batch has.
        sizes: padded (height, width) to compile for; None: the first six that come.
        graphs: record CUDA graphs of the regions; None: on a GPU, with ``regional``.
        backend: of ``torch.compile``; ``aot_eager`` makes the graphs and runs them by plain PyTorch.

    Returns:
        ``model.compiled``, which knows what was compiled and how long it took.

    Raises:
        ValueError: for more than six sizes, or for ``step`` with replaced parts.
    """
    model.compiled = Compiled(model, mode, training, images, sizes, _compiler(model, mode, graphs, backend))
    return model.compiled


def check_compile(model: Network, mode: Mode) -> None:
    """Find out in seconds, before any work, whether ``compile_detector`` can do what is asked.

    Raises:
        ValueError: for ``step`` with replaced parts.
        CompileError: when ``torch.compile`` does not work on the model's device.
    """
    _check_parts(model, mode)
    check_compiler(next(model.parameters()).device)


class Compiled:
    """The compiled functions of one network, and what became of its batches.

    Attributes:
        mode: ``regional`` or ``step``.
        training: compiled for training steps, else for detection.
        images: pictures of a batch; None until the first one comes.
        sizes: padded sizes that are compiled for.
        seconds: of the first detection, or the first training step, of every shape, nearly all of which is
            the time that compiling took.
        outside: batches that ran as without compiling.
        inside: batches that were compiled.
    """

    def __init__(
        self,
        model: Network,
        mode: Mode,
        training: bool,
        images: int | None,
        sizes: Sequence[Size] | None,
        compiler: Compiler,
    ) -> None:
        """See ``compile_detector``."""
        if sizes is not None and len(sizes) > MOST_SIZES:
            raise ValueError(f"{len(sizes)} padded sizes to compile for; give at most {MOST_SIZES}")
        _check_parts(model, mode)
        self.mode, self.training, self.images = mode, training, images
        self.sizes: list[Size] = list(sizes or ())
        self.seconds: dict[Shape, float] = {}
        self.inside = self.outside = 0
        self._begun: tuple[Shape, float] | None = None
        self._open = sizes is None
        self._model = model
        self._news: list[str] = []
        self._regions = _compile_regions(model, compiler) if mode == "regional" else None
        self._step = compiler(self._whole)

    def expect(self, counts: Mapping[Size, int], images: int) -> None:
        """Compile for the sizes that come most often, where none were named to ``compile_detector``.

        Args:
            counts: how often every padded size is going to come.
            images: pictures of most batches.
        """
        if self._open:
            self._open, self.images = False, images
            self.sizes = list(dict.fromkeys([*self.sizes, *commonest(counts)]))[:MOST_SIZES]

    def fit(self, batch: ImageBatch, targets: Targets) -> tuple[ImageBatch, Targets]:
        """A training batch padded to what is compiled, before noise is drawn for it.

        More padding is to the network what a larger picture in the same batch would be. A batch that fits
        into no size, or of another number of pictures, is returned as it is.
        """
        if not self.training or len(batch) != (self.images or len(batch)):
            return batch, targets
        size = fitting((batch.pixels.shape[2], batch.pixels.shape[3]), self.sizes)
        batch = batch if size is None else pad_pictures(batch, size)
        return batch, pad_objects(targets) if self.mode == "step" else targets

    def trace(
        self,
        batch: ImageBatch,
        targets: Targets | None = None,
        noise: Noise | None = None,
        detect: bool = False,
        limits: Limits | None = None,
    ) -> Trace:
        """As ``Network.trace``, compiled where the shape is. ``step`` leaves out maps, pooled features."""
        model = self._model
        if (targets is not None and not detect) != self.training:
            return model.trace(batch, targets, noise, detect, limits)
        shape = self._shape(batch, targets)
        if not self._covers(shape):
            self.outside += 1
            return model.trace(batch, targets, noise, detect, limits)
        self.inside += 1
        with self._watched(shape), torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS):
            if batch.pixels.is_cuda:
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
        if targets is not None:
            rpn = None if trace.rpn is None else trace.rpn.detach()
            return Trace(batch, (), rpn, losses=trace.losses, counts=trace.counts)
        return replace(trace, batch=batch, features=(), pooled=None)

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
        self.stepped()  # where nobody said so before
        if shape in self.seconds:
            yield
            return
        start = time.perf_counter()
        self._begun = shape, start
        try:
            yield
        except torch._dynamo.exc.TorchDynamoException as error:
            raise self.refusal(error) from error
        except BaseException:
            self._begun = None
            raise
        self.seconds[shape] = time.perf_counter() - start
        if not self.training:
            self.stepped()

    def stepped(self) -> None:
        """The work on a batch is done. To be called after a training step: its gradients are compiled only
        when they are first computed, and count as well.
        """
        if self._begun is None:
            return
        (shape, start), self._begun = self._begun, None
        self.seconds[shape] = time.perf_counter() - start
        when = ", first step after" if self.training else " in"
        self._news.append(f"compiled {shape}{when} {self.seconds[shape]:.0f} s ({self.mode})")

    def refusal(self, error: BaseException) -> CompileError:
        """What to say of a graph that could not be made, forwards or backwards."""
        shape = "these shapes" if self._begun is None else str(self._begun[0])
        return CompileError(
            f"the detector cannot be compiled for {shape} ({reason_of(error)}); "
            + ("set train.compile=regional, or " if self.mode == "step" else "")
            + "leave out --compile"
        )

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


def _check_parts(model: Network, mode: Mode) -> None:
    replaced = model.parts.replaced
    if mode == "step" and replaced:
        raise ValueError(
            f"part {replaced[0]} is replaced and may not fit into one graph; compile with 'regional', "
            "which leaves replaced parts as they are"
        )


def _compiler(model: Network, mode: Mode, graphs: bool | None, backend: str) -> Compiler:
    if graphs is None:
        graphs = mode == "regional" and next(model.parameters()).is_cuda and backend == "inductor"
    options: dict[str, Any] | None = {"triton.cudagraphs": True} if graphs else None
    return partial(torch.compile, fullgraph=True, dynamic=False, backend=backend, options=options)


def _compile_regions(model: Network, compiler: Compiler) -> Regions:
    """The regions; replaced parts in them stay as they are."""
    replaced = model.parts.replaced
    heads = model.heads
    classify = heads if "box_head" in replaced else tuple(compiler(head.forward) for head in heads)
    if "rpn_head" not in replaced:
        return Regions(compiler(model.see), classify)
    extract = compiler(model.extract)

    def see(batch: ImageBatch) -> Seen:
        batch, features = extract(batch)
        logits, deltas = model.rpn_head(features[model.looked_at])  # type: ignore[operator]
        return Seen(batch, features, logits, deltas)

    return Regions(see, classify)
