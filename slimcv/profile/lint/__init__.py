"""What makes a network slower than it need be on this very CPU: each rule measured where it can be."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from slimcv.measure import environment
from slimcv.profile.layers import Check
from slimcv.profile.lint import denormals, inplace, layout, machine, precision
from slimcv.profile.lint.subject import Subject
from slimcv.profile.timing import threads_set

__all__ = ["Subject", "in_order", "lint"]

_STATES = {"fault": 0, "note": 1, "fine": 2}


def lint(subject: Subject) -> list[Check]:
    """Every rule's finding but the allocator's, which cannot be left as it was.

    The network, thread count and flushing are.
    """
    found = list(machine.threads(subject, asked=torch.get_num_threads()))
    with threads_set(subject.threads):
        rules = (denormals.weights, layout.memory_format, layout.channels, inplace.inplace, precision.bf16)
        for rule in rules:
            found += rule(subject)
    int8 = machine.int8(subject, native=environment.has_int8_instructions())
    return [*found, *int8, *machine.compiler()]


def in_order(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Faults first, what costs most before the others."""
    return tuple(sorted(checks, key=lambda check: (_STATES[check.state], -_saved(check))))


def _saved(check: Check) -> float:
    return 0.0 if check.now_ms is None or check.fixed_ms is None else check.now_ms - check.fixed_ms
