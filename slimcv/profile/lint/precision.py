"""Whether bfloat16 is a fast path on this CPU with this version of torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from slimcv.measure import environment
from slimcv.profile.contest import Contest, Way, contest
from slimcv.profile.layers import Check
from slimcv.profile.lint.subject import SECONDS, WORTH_SAYING, Subject, noise
from slimcv.report import figures

MOST_MACS = 200_000_000
"""A larger convolution is not tried in bfloat16, which may be a hundred times slower than float32."""


def bf16(subject: Subject) -> Iterator[Check]:
    """The slowest convolution of a bearable size, alone: emulated, a whole network would take minutes."""
    convolutions = subject.convolutions()
    bearable = [one for one in convolutions if 0 < one[0].macs <= MOST_MACS]
    if not bearable:
        why = (
            f"every convolution has more than {figures.count(MOST_MACS)} MACs, which would take minutes "
            "where bfloat16 is emulated"
            if convolutions
            else "there is no convolution to try it on"
        )
        yield Check("bf16", "note", f"not timed, because {why}")
        return
    layer, module, shape = bearable[0]
    pixels = noise(shape)

    def call(wanted: bool) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=wanted):
            answer: Tensor = module(pixels)
        return answer

    timed = contest({"fp32": Way(lambda: call(False)), "bf16": Way(lambda: call(True))}, seconds=SECONDS / 2)
    yield judged(timed, layer=layer.name, native=environment.has_bf16_instructions())


def judged(timed: Contest, *, layer: str, native: bool) -> Check:
    """What calls of a layer in "fp32" and in "bf16" say, on a CPU that has such instructions or not."""
    float_ms, brain_ms = timed.ms("fp32"), timed.ms("bf16")
    text = (
        ("this CPU computes in bfloat16" if native else "this CPU has no bfloat16 instructions")
        + f": '{layer}' takes {figures.milliseconds(brain_ms)} under bf16 autocast, "
        f"{figures.milliseconds(float_ms)} in fp32"
    )
    if timed.faster("bf16", "fp32", least=WORTH_SAYING):
        fix = "stay in fp32" + ("; this version of torch has no fast path for the shape" if native else "")
        return Check("bf16", "note", text, fix, brain_ms, float_ms)
    if timed.faster("fp32", "bf16", least=WORTH_SAYING):
        fix = 'with torch.autocast("cpu", torch.bfloat16), if the accuracy allows it'
        return Check("bf16", "note", text, fix, float_ms, brain_ms)
    return Check("bf16", "fine", text, None, float_ms, brain_ms)
