"""What a step did to the time of training, measured to be held against what was foretold of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from slimcv.errors import NotApplicable
from slimcv.models import capture
from slimcv.profile.contest import Way, contest
from slimcv.profile.prediction.bench import TRAINED_BATCH
from slimcv.profile.timing import threads_set

if TYPE_CHECKING:
    from slimcv.step import Variant

SECONDS = 1.0
"""What the turns may take together, three of each at least."""


@dataclass(frozen=True)
class Gradients:
    """Milliseconds a picture of forward and backward through the whole network, before and after a step."""

    before_ms: float
    after_ms: float

    def as_json(self) -> dict[str, Any]:
        """What a record keeps."""
        return asdict(self)


def gradients(before: Variant, after: Variant, *, threads: int) -> Gradients:
    """Time both networks in turns as their layers were timed: fp32, channels_last, few pictures of noise.

    What surrounds a gradient (pictures, teacher, optimiser) is left out. The variants are left as they are.
    Raises NotApplicable for a network without a gradient.
    """
    ways = {name: Way(_gradient(one)) for name, one in (("before", before), ("after", after))}
    try:
        with threads_set(threads):
            found = contest(ways, seconds=SECONDS)
    except RuntimeError as error:
        raise NotApplicable(f"the network has no gradient: {capture.first_line(error)}") from error
    return Gradients(found.ms("before") / TRAINED_BATCH, found.ms("after") / TRAINED_BATCH)


def _gradient(variant: Variant) -> Callable[[], None]:
    model = capture.copy(variant.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    capture.set_training(model, True)
    batch = capture.example(variant.input, batch=TRAINED_BATCH).contiguous(memory_format=torch.channels_last)

    def compute() -> None:
        torch.autograd.backward(model(batch).sum())
        model.zero_grad(set_to_none=True)

    return compute
