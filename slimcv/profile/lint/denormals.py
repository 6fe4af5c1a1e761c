"""Denormal numbers among a network's weights: those too small for the CPU's fast paths (IEEE 754)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from slimcv.profile.contest import Way, contest
from slimcv.profile.layers import Check
from slimcv.profile.lint.subject import SECONDS, WORTH_SAYING, Subject, many
from slimcv.profile.timing import flushing_as_before, threads_set
from slimcv.report import figures

_PORTION = 1 << 20
"""Elements looked at together: the copies made for it stay small beside the network."""
_MAGNITUDE, _SMALLEST_NORMAL = 0x7FFFFFFF, 0x00800000
"""A float32 without its sign, and the bits of 2^-126, the smallest number that is not denormal."""
_NAMED = 3
_FIX = "set them to zero: p.data.masked_fill_(p.abs() < 1e-30, 0) for every p in model.parameters()"


def weights(subject: Subject) -> Iterator[Check]:
    """How many weights are denormal, and what a call takes with and without them."""
    found = count(subject.model)
    if not found:
        yield Check("denormals", "fine", "no weight is denormal")
        return
    named = ", ".join(f"'{name}'" for name in sorted(found, key=lambda name: -found[name])[:_NAMED])
    text = f"{many(sum(found.values()), 'weight')} closer to zero than 1.2e-38 (denormal), most in {named}"
    # Flushing is a mode of one thread, and OpenMP's other threads would keep theirs.
    with flushing_as_before() as can_be_chosen, threads_set(1):
        if not can_be_chosen:
            yield Check("denormals", "note", text, _FIX)
            return
        ways = {
            "kept": Way(subject.run, partial(torch.set_flush_denormal, False)),
            "flushed": Way(subject.run, partial(torch.set_flush_denormal, True)),
        }
        timed = contest(ways, seconds=SECONDS)
    kept, flushed = timed.ms("kept"), timed.ms("flushed")
    costly = timed.faster("kept", "flushed", least=WORTH_SAYING)
    text += (
        f": a call on one thread takes {figures.milliseconds(kept)}, {figures.milliseconds(flushed)} where "
        "the CPU takes them for zero" + ("" if costly else "; other CPUs are many times slower with them")
    )
    yield Check("denormals", "fault" if costly else "note", text, _FIX, kept, flushed)


def count(model: nn.Module) -> dict[str, int]:
    """How many denormal values each float32 parameter and buffer holds, by name; those with none left out.

    The bits are looked at, because a processor told to flush denormals takes them for zero.
    """
    named = chain(model.named_parameters(), model.named_buffers())
    found = {name: _count(tensor) for name, tensor in named if tensor.dtype == torch.float32}
    return {name: number for name, number in found.items() if number}


def _count(tensor: Tensor) -> int:
    flat = tensor.detach().reshape(-1)
    return sum(_denormal(flat[start : start + _PORTION]) for start in range(0, flat.numel(), _PORTION))


def _denormal(values: Tensor) -> int:
    bits = values.contiguous().view(torch.int32) & _MAGNITUDE
    return int(((bits > 0) & (bits < _SMALLEST_NORMAL)).sum())
