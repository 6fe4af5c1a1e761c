"""One runtime tried: `python -m slimcv.doctor.trial NAME` prints a `Runtime` as JSON in its last line.

A fault that slimcv knows is part of the answer, any other ends the process with its traceback.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from slimcv.doctor.findings import Runtime
from slimcv.errors import SlimcvError
from slimcv.measure import environment, threads

_ODD = "install another version of the runtime, for this one computes something else"


def attempt(name: str) -> Runtime:
    """Write a tiny model for the runtime, load it and call it twice."""
    import numpy as np

    from slimcv import runtimes
    from slimcv.runtimes import eager

    begun = perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="slimcv-") as folder:
            path = runtimes.write(eager.tiny(), name, Path(folder))
            prepared = runtimes.prepare(path, name, threads=threads.available())
            batch = np.zeros((1, 3, 8, 8), np.float32)
            prepared.predict(batch)
            seconds = perf_counter() - begun
            answered = prepared.predict(batch).shape == (1, 2)
    except SlimcvError as error:
        return Runtime(name, False, problem=error.message, hint=error.hint)
    if not answered:
        return Runtime(name, False, problem="the answer has another shape than the model's", hint=_ODD)
    kinds, details = _KNOWLEDGE[name]()
    return Runtime(name, True, prepared.precision, kinds, seconds, details)


def _torch() -> tuple[tuple[str, ...], str]:
    import torch

    details = f"kernels for {torch.backends.cpu.get_cpu_capability()}"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        details += ", without oneDNN"
    return _by_instructions(), details


def _inductor() -> tuple[tuple[str, ...], str]:
    import torch._inductor.cpp_builder as cpp_builder

    return _by_instructions(), f"compiler {cpp_builder.get_cpp_compiler()}"


def _onnxruntime() -> tuple[tuple[str, ...], str]:
    import onnxruntime

    providers = [
        provider.removesuffix("ExecutionProvider") for provider in onnxruntime.get_available_providers()
    ]
    return ("fp32", "int8"), f"providers {', '.join(providers)}"


def _openvino() -> tuple[tuple[str, ...], str]:
    from slimcv.runtimes.openvino import import_library

    core: Any = import_library().Core()
    capabilities = [str(one).lower() for one in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")]
    kinds = [one for one in ("fp32", "bf16", "fp16", "int8") if one in capabilities]
    return tuple(kinds), f"devices {', '.join(core.available_devices)}"


_KNOWLEDGE = {
    "eager": _torch,
    "inductor": _inductor,
    "aotinductor": _inductor,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def _by_instructions() -> tuple[str, ...]:
    """PyTorch has kernels for all; those that the CPU has no instructions for are emulated, and left out."""
    found = ["fp32"]
    found += ["bf16"] if environment.has_bf16_instructions() else []
    found += ["int8"] if environment.has_int8_instructions() else []
    return tuple(found)


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(asdict(attempt(sys.argv[1]))) + "\n")
