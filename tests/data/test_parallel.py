"""Work on many pictures: on all cores, in order, and no further ahead than it may be."""

from threading import Barrier

import pytest

from slimcv.data.parallel import in_order
from slimcv.measure.threads import available


def test_parts_are_worked_on_by_all_cores_at_once():
    together = Barrier(available())
    # A thread goes on only when all the others have come to the same place; alone it would wait in vain.
    found = in_order(lambda part: (part, together.wait(timeout=60)), range(2 * available()))
    assert [part for part, _ in found] == list(range(2 * available()))


def test_an_error_ends_the_work_and_is_the_callers():
    begun = []

    def work(part):
        begun.append(part)
        return 1 / (part - 3)

    with pytest.raises(ZeroDivisionError):
        list(in_order(work, range(10_000)))
    assert len(begun) < 100 * available()
