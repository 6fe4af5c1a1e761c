"""What each runtime does here with a tiny model, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from slimcv.doctor.findings import Runtime
from slimcv.measure import threads

_SECONDS = 300.0

_TORCH, _COMPILER = "pip install 'torch>=2.10'", "apt install g++ (or another C++ compiler on PATH)"
_HINTS = {
    "eager": _TORCH,
    "inductor": _COMPILER,
    "aotinductor": _COMPILER,
    "onnxruntime": "pip install onnx onnxscript onnxruntime",
    "openvino": "pip install openvino",
}


def try_all() -> tuple[Runtime, ...]:
    """Every runtime, as many at a time as there are cores; the seconds are no measurement of speed."""
    with ThreadPoolExecutor(threads.available()) as pool:
        return tuple(pool.map(tried, _HINTS))


def tried(name: str) -> Runtime:
    """What `slimcv.doctor.trial` has to say in a process of its own, or what ended it."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "slimcv.doctor.trial", name],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Runtime(name, False, problem=f"no answer within {_SECONDS:.0f} s", hint=_HINTS[name])
    answers = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and answers:
        found = json.loads(answers[-1])
        return Runtime(**{**found, "precisions": tuple(found["precisions"])})
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = lines[-1] if lines and done.returncode > 0 else f"the process ended with {done.returncode}"
    return Runtime(name, False, problem=said, hint=_HINTS[name])
