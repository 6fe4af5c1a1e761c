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
from slimcv.train.precision import Precision, autocast
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


def _try(
    forward: Forward, size: int, input: InputSpec, settings: FinetuneSettings, precision: Precision
) -> None:
    pictures = torch.zeros(size, input.height, input.width, input.channels).permute(0, 3, 1, 2)
    with autocast(precision):
        logits = forward(pictures)
    loss = objective.loss(logits, torch.zeros(size, dtype=torch.int64), None, settings)
    torch.autograd.backward(loss)
