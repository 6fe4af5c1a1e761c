"""What the machine, its limits and its software mean for a network: threads, allocator, INT8, compiler."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import torch

from slimcv.errors import SlimcvError
from slimcv.measure import threads as limits
from slimcv.profile.contest import Contest, Way, contest
from slimcv.profile.layers import Check
from slimcv.profile.lint.subject import SECONDS, WORTH_SAYING, Subject, many
from slimcv.profile.timing import threads_set
from slimcv.profile.whole import Whole
from slimcv.report import figures
from slimcv.runtimes import inductor


def threads(subject: Subject, *, asked: int) -> Iterator[Check]:
    """`asked`, the threads PyTorch uses here without being told, against those that can run and against one.

    Affinity and the quota of the container are what limits them (see slimcv.measure.threads).
    """
    allowed, quota = limits.available(), limits.quota_cpus()
    tried = sorted({1, asked, allowed, subject.threads})
    if len(tried) == 1:
        yield Check("threads", "fine", _running(asked, allowed, quota))
        return
    ways = {str(count): Way(subject.run, partial(torch.set_num_threads, count)) for count in tried}
    with threads_set(asked):
        timed = contest(ways, seconds=SECONDS)
    yield judged_threads(timed, asked=asked, allowed=allowed, quota=quota)


def judged_threads(timed: Contest, *, asked: int, allowed: int, quota: float | None) -> Check:
    """What calls with several numbers of threads, by that number, say of the `asked` ones."""
    text = _running(asked, allowed, quota)
    tried = sorted(map(int, timed.rounds_ms))
    best = min(tried, key=lambda count: (timed.ms(str(count)), count))
    now, fixed = timed.ms(str(asked)), timed.ms(str(best))
    times = ", ".join(f"{figures.milliseconds(timed.ms(str(count)))} with {count}" for count in tried)
    text += f": a call takes {times}"
    if best == asked or not timed.faster(str(asked), str(best), least=WORTH_SAYING):
        return Check("threads", "fine", text, None, now, fixed)
    told = os.environ.get("OMP_NUM_THREADS")
    text += f"; OMP_NUM_THREADS is {told}" if told else ""
    fix = f"torch.set_num_threads({best}), or OMP_NUM_THREADS={best} before the start"
    return Check("threads", "fault", text, fix, now, fixed)


def _running(asked: int, allowed: int, quota: float | None) -> str:
    limit = f"{allowed} can run at once" + (f" (quota of {quota:g} CPUs)" if quota is not None else "")
    return f"PyTorch uses {many(asked, 'thread')}, {limit}"


def allocator(whole: Whole) -> Check:
    """Whole eager calls with glibc's malloc as it is, and once it gives nothing back to the kernel."""
    default, tuned = whole.default_ms, whole.tuned_ms
    text = (
        f"a call takes {figures.milliseconds(default)} with the C library's allocator as it is, "
        f"{figures.milliseconds(tuned)} once it keeps freed memory"
    )
    if default < WORTH_SAYING * tuned:
        return Check("allocator", "fine", text, None, default, tuned)
    gain = figures.significant(default / tuned, 2)
    fix = f"slimcv.measure.allocator.tune() at the start of the program: {gain}× from that alone"
    return Check("allocator", "fault", text, fix, default, tuned)


def int8(subject: Subject, *, native: bool) -> Iterator[Check]:
    """Whether the CPU sums 8-bit products (`native`), and what large products reach with and without."""
    limits = subject.limits
    reached = ""
    if limits is not None and limits.int8_gflops is not None:
        reached = f"; large products reach {figures.significant(limits.int8_gflops / limits.fp32_gflops, 2)} "
        reached += "times the speed of fp32"
    if native:
        text = f"this CPU sums 8-bit products in 32 bits (VNNI, AMX or dot product){reached}"
        yield Check("int8", "fine", text)
        return
    text = f"this CPU has no instructions for 8-bit products (VNNI): INT8 gains less speed here{reached}"
    yield Check("int8", "note", text, "expect a quarter of the size; slimcv optimize measures the speed")


def compiler() -> Iterator[Check]:
    """Whether torch.compile finds what it needs."""
    try:
        inductor.require_compiler()
    except SlimcvError as error:
        yield Check("compiler", "note", error.message, error.hint)
    else:
        yield Check("compiler", "fine", "torch.compile finds a C++ compiler")
