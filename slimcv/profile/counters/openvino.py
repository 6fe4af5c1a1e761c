"""OpenVINO's performance counters: the real time of each node of the graph that the CPU plug-in executes."""

from __future__ import annotations

import io
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

from slimcv.errors import SlimcvError, last_line
from slimcv.models import capture
from slimcv.profile import named
from slimcv.profile.counters import SECONDS, Executed, Ran
from slimcv.profile.counters.calls import timed, undisturbed
from slimcv.runtimes import openvino as runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slimcv.profile.named import Named
    from slimcv.step import Variant

_MERGED, _KIND, _PRECISION = "originalLayersNames", "layerType", "runtimePrecision"
"""What the plug-in writes on each node of its graph; the first lists the nodes it was made of."""

_PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}

_NO_WORK = frozenset({"Input", "Output", "Parameter", "Result", "Const", "Constant"})


def run(variant: Variant, *, threads: int) -> Ran:
    """See `slimcv.profile.counters.count`."""
    precision = variant.details.get("inference_precision")
    return run_onnx(
        named.export(variant),
        capture.example(variant.input, batch=1).numpy(),
        threads=threads,
        precision=precision,
    )


def run_onnx(
    model: Named,
    batch: NDArray[np.float32],
    *,
    threads: int,
    precision: str | None = None,
    seconds: float = SECONDS,
) -> Ran:
    """Count an ONNX model; `precision` is what floats are computed in ("f32"), by default what is fastest."""
    openvino = runtime.import_library()
    settings = runtime.settings_for(threads)
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    core = openvino.Core()
    try:
        read = core.read_model(io.BytesIO(model.model))
        plain = runtime.OpenvinoModel(core.compile_model(read, "CPU", settings))
        call_ms, calls = timed(partial(plain.predict, batch), seconds=seconds)
        computed = plain.precision
        del plain  # Each compiled model has a copy of the weights.
        counting = core.compile_model(read, "CPU", {**settings, "PERF_COUNT": True})
    except RuntimeError as error:
        reason = last_line(error)
        raise SlimcvError(
            f"OpenVINO does not take the network: {reason}", "profile it in another --runtime"
        ) from error
    return Ran(_counted(counting, model, batch, calls=calls), call_ms, computed, calls)


def _counted(compiled: Any, model: Named, batch: NDArray[np.float32], *, calls: int) -> tuple[Executed, ...]:
    """The nodes of the graph that is executed, which has none for what was merged into another one.

    The status of an entry tells nothing: the plug-in says of a node below a microsecond that it did not run.
    """
    notes = {node.get_friendly_name(): node.get_rt_info() for node in compiled.get_runtime_model().get_ops()}
    request = compiled.create_infer_request()
    request.infer([batch])
    times: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for _ in range(calls):
        request.infer([batch])
        for entry in request.profiling_info:
            if entry.node_name not in notes:
                continue
            times[entry.node_name].append(1000 * entry.real_time.total_seconds())
            kinds[entry.node_name] = entry.node_type
    return tuple(
        Executed(
            name=name,
            kind=kinds[name],
            ms=undisturbed(spent),
            sources=model.sources(_note(notes[name], _MERGED), name),
            precision=_PRECISIONS.get(_note(notes[name], _PRECISION)),
        )
        for name, spent in times.items()
        if kinds[name] not in _NO_WORK
    )


def _note(notes: Any, key: str) -> str:
    return str(notes[key].astype(str)) if key in notes else ""
