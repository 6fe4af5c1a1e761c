"""Resident memory of this process, now and at its highest, as Linux counts it."""

import gc
from dataclasses import dataclass
from pathlib import Path

from slimcv.measure import allocator

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """Bytes resident in a worker process.

    `baseline_bytes` with the runtime loaded but no model, `loading_peak_bytes` while the model was loaded and
    called for the first time, `predicting_peak_bytes` while it predicted after that. Where the kernel does
    not let the peak be reset, the last two are the same.
    """

    baseline_bytes: int
    loading_peak_bytes: int
    predicting_peak_bytes: int

    @property
    def model_bytes(self) -> int:
        """What predicting takes on top of the runtime: weights, activations, repacked copies."""
        return max(0, self.predicting_peak_bytes - self.baseline_bytes)


def resident() -> int:
    """Bytes resident now, after giving back what is free; 0 where the system does not tell."""
    gc.collect()
    allocator.trim()
    return _status("VmRSS")


def peak() -> int:
    """The most that was resident since the process started or `reset_peak` was called.

    Not `ru_maxrss`, which a child process inherits from its parent.
    """
    return _status("VmHWM")


def reset_peak() -> bool:
    """Let the peak start again from what is resident now; False where the kernel does not allow it."""
    gc.collect()
    allocator.trim()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
