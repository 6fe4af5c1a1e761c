"""Pictures are decoded on all cores: threads suffice, since Pillow works outside the interpreter lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from slimcv.measure.threads import available

Part = TypeVar("Part")
Result = TypeVar("Result")

AHEAD = 3
"""Parts that a core may be ahead of the one who asks: enough to keep it busy, little to hold in memory."""


def in_order(
    function: Callable[[Part], Result], parts: Iterable[Part], *, ahead: int = AHEAD
) -> Iterator[Result]:
    """Yield the function's results for all parts in their order, computed on all cores and a little ahead.

    The parts should take milliseconds each: handing one over takes a tenth of one. `ahead` is how many each
    core may be ahead. Parts not begun are dropped where the caller stops asking or the function raises.
    """
    workers = available()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="slimcv-decode") as pool:
        try:
            for part in parts:
                waiting.append(pool.submit(function, part))
                if len(waiting) > ahead * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
