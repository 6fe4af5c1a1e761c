"""Several processes of one command: rank 0 runs it, the others help it to train and only ever warn."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from slimcv.cli.intake import log_to_stderr
from slimcv.cli.live import say
from slimcv.optimization import Caching
from slimcv.train.processes import launched

if TYPE_CHECKING:
    from slimcv.data import Dataset
    from slimcv.step import Context, Variant
    from slimcv.train.processes.agreement import Opening
    from slimcv.train.processes.group import Group

LEFT_ALONE = (
    "accelerate started this process alone: for several give accelerate launch --multi_gpu --num_processes N "
    "-m slimcv optimize …, which needs no GPU, and not --cpu"
)

log = logging.getLogger("slimcv")


def leave_to_rank_0(command: str) -> None:
    """End every process but rank 0, which then goes on as if it had been started alone.

    For a `command` that trains nothing together: several processes would write to the same `--out`.
    """
    place = launched.place()
    if place is None:
        return
    rank, count = place
    if rank:
        say(f"rank {rank} of {count} ends here: slimcv {command} is the work of rank 0 alone")
        raise SystemExit(0)
    launched.forget()


@contextmanager
def joined(*, alone: bool) -> Iterator[Group | None]:
    """The processes that were launched together, joined while the block runs; None for one that is alone.

    With `alone` nobody is waited for: rank 0 is left to itself, and the others end at once. Raises
    SlimcvError, in all others, where one of them ends before its time.
    """
    if alone:
        leave_to_rank_0("optimize --dry-run")
    launch = launched.here()
    if launch is None:
        if launched.left_alone():
            log_to_stderr()
            log.warning("%s", LEFT_ALONE)
        yield None
        return
    log_to_stderr()
    if launch.rank:
        log.setLevel(logging.WARNING)
        for lines in log.handlers:
            lines.setFormatter(logging.Formatter(f"  rank {launch.rank}: %(message)s"))

    # PyTorch's network code has no other switch for a page of addresses whenever a connection breaks.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    from slimcv.train.processes.group import EXIT_INTERRUPTED, Group

    try:
        with Group(launch) as group:
            log.info(
                "%d processes on %d machine%s; this one trains on %d thread%s",
                group.count,
                group.machines,
                "s" * (group.machines > 1),
                group.threads,
                "s" * (group.threads > 1),
            )
            yield group
    except KeyboardInterrupt:
        if launch.rank:
            raise SystemExit(EXIT_INTERRUPTED) from None  # Rank 0 says what there is to say.
        raise


def follow(group: Group, data: str | None, kept: Caching) -> None:
    """What a process does that is not rank 0. Its pictures are in `data`, by default where rank 0's are."""
    from slimcv import data as pictures
    from slimcv.measure import allocator
    from slimcv.train.processes import following

    def read(opening: Opening) -> Dataset:
        return pictures.load(
            data or opening.source or "",
            seed=opening.seed,
            classes=opening.classes,
            input=opening.input,
            cache=kept.folder,
            cache_limit=kept.limit,
            keep=kept.keep,
        )

    allocator.tune_or_tell()
    following.follow(group, read)


def begin(
    group: Group | None,
    variant: Variant,
    source: str | None,
    *,
    classes: tuple[str, ...] | None,
    seed: int,
) -> None:
    """Let the others read their pictures, as rank 0; without a `source` there is nothing for them to do."""
    if group is None:
        return

    from slimcv.train.processes import agreement

    agreement.tell(group, agreement.Opening(source, classes, variant.input, seed))
    if source is None:
        log.warning("nothing is trained: the other processes have nothing to do")


def lead(group: Group | None, context: Context, *, trains: bool) -> Context:
    """The context of a run that the others help to train. Raises SlimcvError where their pictures differ."""
    if group is None or context.data is None or not trains:
        return context

    from slimcv.train.processes import agreement

    agreement.agree(group, context.data)
    agreement.send_variant(group, context.teacher)
    return replace(context, processes=group, train_threads=group.threads)
