"""How tensors lie in memory: their format, and channel counts that fill no whole vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from slimcv.measure import environment
from slimcv.profile import kinds
from slimcv.profile.contest import Contest, Way, contest
from slimcv.profile.layers import Check
from slimcv.profile.lint.subject import SECONDS, WORTH_SAYING, Subject, called, many, noise
from slimcv.report import figures

_FORMAT = "memory format"

HEAVY = 0.02
"""The share of the time from which a layer's channels are looked at."""
TIMED_LAYERS = 3

MOST_COPIED_BYTES = 200_000_000
"""Weights beyond that are not copied into another memory format to time it."""


def memory_format(subject: Subject) -> Iterator[Check]:
    """Whole calls with contiguous tensors and in channels_last."""
    weights = [parameter for parameter in subject.model.parameters() if parameter.ndim == 4]
    if not weights:
        yield Check(_FORMAT, "fine", "no convolution has weights in floats")
        return
    copied = sum(weight.numel() * weight.element_size() for weight in weights)
    if copied > MOST_COPIED_BYTES:
        size = figures.size(copied)
        yield Check(_FORMAT, "note", f"not timed, because the other layout of the weights takes {size} more")
        return
    last = subject.picture.contiguous(memory_format=torch.channels_last)
    with _both_formats(weights) as lay_out:
        ways = {
            "contiguous": Way(subject.run, partial(lay_out, "contiguous")),
            "channels_last": Way(called(subject.model, last), partial(lay_out, "channels_last")),
        }
        timed = contest(ways, seconds=SECONDS)
    yield judged_format(timed)


def judged_format(timed: Contest) -> Check:
    """What calls that were timed as "contiguous" and as "channels_last" say."""
    now, other = timed.ms("contiguous"), timed.ms("channels_last")
    text = (
        f"a call takes {figures.milliseconds(now)} with contiguous tensors (NCHW), "
        f"{figures.milliseconds(other)} in channels_last (NHWC)"
    )
    if timed.faster("contiguous", "channels_last", least=WORTH_SAYING):
        fix = "model.to(memory_format=torch.channels_last), and the same for its input"
        return Check(_FORMAT, "fault", text, fix, now, other)
    return Check(_FORMAT, "fine", text, None, now, other)


def channels(subject: Subject) -> Iterator[Check]:
    """Dense convolutions that would do more in the same time with a few channels more, the slowest timed.

    The last check counts all that were looked at, and what else multiplies and was not.
    """
    lanes = environment.channel_blocks()[0]
    dense = [one for one in subject.convolutions() if one[0].share >= HEAVY and one[1].groups == 1]
    wider = [(*one, widened(one[1], lanes=lanes)) for one in dense]
    odd = [(layer, module, shape, wide) for layer, module, shape, wide in wider if wide is not None]
    for layer, module, shape, wide in odd[:TIMED_LAYERS]:
        found = _contest(module, wide, shape)
        more = wide.weight.numel() / module.weight.numel()
        now, widest = found.ms("as it is"), found.ms("widened")
        slow = found.faster("as it is", "widened", least=WORTH_SAYING / more)
        text = (
            f"'{layer.name}' has {_width(module)} channels and takes {figures.milliseconds(now)}; "
            f"with {_width(wide)}, {figures.significant(more)} times the work, {figures.milliseconds(widest)}"
        )
        fix = f"prune it to a multiple of {lanes} channels, or train it with one" if slow else None
        yield Check("channels", "fault" if slow else "fine", text, fix, now, widest)
    text = (
        f"{len(dense) - len(odd)} of {many(len(dense), 'dense convolution')} with {100 * HEAVY:g} % of "
        f"the time or more read and write a multiple of {lanes} channels, pictures aside"
    )
    untimed = len(odd[TIMED_LAYERS:])
    text += f"; {untimed} of the others not timed" if untimed else ""
    others = _others(subject, {layer.node for layer, *_ in dense})
    text += f"; not looked at: {others}" if others else ""
    yield Check("channels", "note" if untimed else "fine", text)


def _others(subject: Subject, looked_at: Collection[str]) -> str:
    """How many other layers that take as long multiply, by kind; empty where there are none."""
    heavy = [one for one in subject.layers if one.share >= HEAVY and one.node not in looked_at]
    found = Counter(one.kind for one in heavy if kinds.is_matrix_work(one.kind))
    named = {kind: f"{kind} layer" if kind == kinds.LINEAR else kind for kind in found}
    return ", ".join(many(count, named[kind]) for kind, count in found.items())


def widened(module: nn.Conv2d, *, lanes: int) -> nn.Conv2d | None:
    """The same convolution with a multiple of `lanes` channels; None where it has one, or for groups.

    What a picture has, 1 or 3 channels, cannot be changed and stays.
    """
    reads = module.in_channels if module.in_channels in (1, 3) else _rounded_up(module.in_channels, lanes)
    writes = _rounded_up(module.out_channels, lanes)
    if module.groups != 1 or (reads, writes) == (module.in_channels, module.out_channels):
        return None
    return nn.Conv2d(
        reads,
        writes,
        module.kernel_size,  # type: ignore[arg-type]
        stride=module.stride,  # type: ignore[arg-type]
        padding=module.padding,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        bias=module.bias is not None,
    )


def _contest(module: nn.Conv2d, wide: nn.Conv2d, shape: tuple[int, ...]) -> Contest:
    ways = {
        "as it is": Way(called(module, noise(shape))),
        "widened": Way(called(wide, noise((shape[0], wide.in_channels, *shape[2:])))),
    }
    return contest(ways, seconds=SECONDS / 2)


def _width(module: nn.Conv2d) -> str:
    return f"{module.in_channels} → {module.out_channels}"


def _rounded_up(number: int, lanes: int) -> int:
    return -(-number // lanes) * lanes


@contextmanager
def _both_formats(weights: Sequence[nn.Parameter]) -> Iterator[Callable[[str], None]]:
    """Copies of the weights in both memory formats, to be put in place by name; afterwards the own again."""
    own = [weight.data for weight in weights]
    layouts = {
        "contiguous": [weight.contiguous() for weight in own],
        "channels_last": [weight.contiguous(memory_format=torch.channels_last) for weight in own],
    }

    def lay_out(name: str) -> None:
        for weight, chosen in zip(weights, layouts[name], strict=True):
            weight.data = chosen

    try:
        yield lay_out
    finally:
        for weight, first in zip(weights, own, strict=True):
            weight.data = first
