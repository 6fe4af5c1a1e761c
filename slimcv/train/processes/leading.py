"""Rank 0's side of a training by several processes: the others are sent what they need, and let go after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from slimcv.errors import SlimcvError
from slimcv.step import Variant
from slimcv.train import state as states
from slimcv.train.live import Live
from slimcv.train.optimizer import by_name
from slimcv.train.planning import Plan
from slimcv.train.processes.agreement import packed
from slimcv.train.processes.group import LostError, Order, Processes
from slimcv.train.state import State
from slimcv.train.teacher import Targets

CARRIED_ON = ("model", "optimizer", "average")
"""The parts of an interrupted training's state that every process needs."""


@contextmanager
def led(
    processes: Processes, variant: Variant, plan: Plan, *, seed: int, saved: State | None
) -> Iterator[None]:
    """While the block runs the others follow the training of `variant`; alone nothing happens.

    `saved` is the state of an interrupted training that is gone on with.
    """
    if processes.count == 1:
        yield
        return
    processes.order(Order.TRAIN)
    processes.send(states.packed(lesson(variant, plan, seed=seed, saved=saved)))
    try:
        yield
    except SlimcvError as error:
        if not isinstance(error, LostError):
            processes.order(Order.REST)
        raise
    processes.order(Order.REST)


def lesson(variant: Variant, plan: Plan, *, seed: int, saved: State | None) -> State:
    """Everything a training depends on: network, settings, what the teacher says, and how far it had come.

    `student` is the network's `.pt2` file, uint8; `targets/<view>` the teacher's outputs (see Targets).
    """
    teaching = plan.teaching
    tensors = {"student": torch.frombuffer(bytearray(packed(variant)), dtype=torch.uint8)}
    if isinstance(teaching, Targets):
        tensors |= {f"targets/{view}": torch.tensor(np.array(of)) for view, of in teaching.logits.items()}
    if saved is not None:
        tensors |= {
            name: value for name, value in saved.tensors.items() if name.partition("/")[0] in CARRIED_ON
        }
    values = {
        "settings": plan.settings.model_dump(mode="json"),
        "precision": plan.precision,
        "seed": seed,
        "shape": list(variant.input.shape),
        "live": teaching.form if isinstance(teaching, Live) else None,
        "names": [*by_name(variant.model)],
        "updates": saved.values["updates"] if saved is not None else 0,
        "pruned": saved.values["pruned"] if saved is not None else 0.0,
    }
    return State(tensors, values)
