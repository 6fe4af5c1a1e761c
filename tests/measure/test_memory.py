"""Peak memory is this process's own and can be measured for one stretch of work."""

import subprocess
import sys

import pytest

from slimcv.measure.memory import Memory

CODE = """
from slimcv.measure import allocator, memory
import numpy as np
{tune}
before = memory.resident()
np.ones(50_000_000, np.uint8)
first = memory.peak()
possible = memory.reset_peak()
np.ones(10_000_000, np.uint8)
print(before, first, memory.peak(), possible)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_starts_again_after_a_reset():
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(tune="")], capture_output=True, text=True, check=True
    )
    before, first, second, possible = done.stdout.split()
    # The kernel may take back pages of the libraries in the meantime, and counts resident ones in batches.
    assert int(first) - int(before) >= 45_000_000
    if possible == "True":
        assert 5_000_000 <= int(second) - int(before) < 40_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_tuned_allocator_keeps_what_was_freed():
    code = """
import ctypes
from slimcv.measure import allocator, memory
tuned = allocator.tune()
import numpy as np
np.ones(50_000_000, np.uint8)
kept = memory._status("VmRSS")
print(tuned, kept - memory.resident())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tuned, released = done.stdout.split()
    assert tuned == "False" or int(released) >= 40_000_000


def test_a_models_own_memory_is_the_peak_above_the_runtimes():
    assert Memory(100, 400, 250).model_bytes == 150
    assert Memory(100, 400, 90).model_bytes == 0
