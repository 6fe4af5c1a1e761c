"""The network compiled for training, forward and backward."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable

import torch
from torch.fx import GraphModule

from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.runtimes import inductor
from slimcv.runtimes.quiet import quiet
from slimcv.step import InputSpec
from slimcv.train import objective
from slimcv.train.average import restore, snapshot
from slimcv.train.descent import Forward
from slimcv.train.feed import Batch
from slimcv.train.precision import Precision, autocast, step_seconds
from slimcv.train.settings import FinetuneSettings

log = logging.getLogger("slimcv")


def compiled(
    model: GraphModule,
    input: InputSpec,
    *,
    sizes: Iterable[int],
    settings: FinetuneSettings,
    precision: Precision,
) -> Forward:
    """What `model` computes in training mode, compiled for batches of these `sizes` and tried on each.

    The weights stay those of `model`, which itself is not compiled and can be exported as before; its weights
    and running statistics are left as they are. The loss is not part of it: it is a thousandth of a step, and
    compiled code shared by every training of a process would be compiled anew for each until torch gives up.
    Raises SlimcvError where there is no C++ compiler or the network does not compile.
    """
    inductor.require_compiler()
    capture.set_training(model, True)
    # A graph of its own, because switching batch norms that are operators rewrites the code of `model`.
    own = GraphModule(model, copy.deepcopy(model.graph))
    forward: Forward = torch.compile(own, dynamic=False, fullgraph=True)
    before, begun = snapshot(model), time.perf_counter()
    try:
        with quiet():
            for size in sizes:
                _try(forward, size, input, settings, precision)
    except capture.FAULTS as error:
        raise SlimcvError(
            f"torch.compile failed: {capture.first_line(error)}", "train without compile"
        ) from error
    finally:
        restore(model, before)
        model.zero_grad(set_to_none=True)
    log.info("compiled for training in %.0f s", time.perf_counter() - begun)
    return forward


def share_of_eager(
    model: GraphModule,
    forward: Forward,
    input: InputSpec,
    *,
    size: int,
    settings: FinetuneSettings,
    precision: Precision,
) -> float:
    """How long a gradient of `size` pictures takes compiled, as a share of what it takes in eager PyTorch.

    What the compiler saves on activations it may lose on norms and pooling (a network of depthwise-separable
    convolutions in channels_last: 1.9 times as long). `model` is left as it is.
    """
    given, before = _noise(size, input), snapshot(model)
    try:
        eager = step_seconds(model, given, settings, precision=precision)
        return step_seconds(model, given, settings, precision=precision, forward=forward) / eager
    finally:
        restore(model, before)
        model.zero_grad(set_to_none=True)


def _try(
    forward: Forward, size: int, input: InputSpec, settings: FinetuneSettings, precision: Precision
) -> None:
    given = _noise(size, input)
    with autocast(precision):
        logits = forward(given.pictures)
    torch.autograd.backward(objective.loss(logits, given.labels, None, settings))


def _noise(size: int, input: InputSpec) -> Batch:
    """Normalised noise: how long pooling and the gradients of ReLU take depends on what they are given."""
    numbers = torch.Generator().manual_seed(0)
    shape = (size, input.height, input.width, input.channels)
    pictures = torch.randn(shape, generator=numbers).permute(0, 3, 1, 2)
    return Batch(pictures, torch.zeros(size, dtype=torch.int64), None)
