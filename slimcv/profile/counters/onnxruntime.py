"""ONNX Runtime's profiler: the time in the kernel of each node of the graph that the session optimised."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv.errors import SlimcvError, first_line
from slimcv.models import capture
from slimcv.profile import named
from slimcv.profile.counters import SECONDS, Executed, Ran
from slimcv.profile.counters.calls import timed, undisturbed
from slimcv.runtimes import flushing
from slimcv.runtimes import onnxruntime as runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slimcv.profile.named import Named
    from slimcv.step import Variant

_KERNEL = "_kernel_time"

_PRECISIONS = {"float": "fp32", "bfloat16": "bf16", "float16": "fp16", "uint8": "int8", "int8": "int8"}
"""By the type of what a kernel reads first."""


def run(variant: Variant, *, threads: int) -> Ran:
    """See `slimcv.profile.counters.count`."""
    batch = capture.example(variant.input, batch=1).numpy()
    return run_onnx(named.export(variant), batch, threads=threads, precision=variant.precision)


def run_onnx(
    model: Named,
    batch: NDArray[np.float32],
    *,
    threads: int,
    precision: str | None = None,
    seconds: float = SECONDS,
) -> Ran:
    """Count an ONNX model; `precision` is the word for what it mostly computes in, as the file decides."""
    plain = runtime.prepare(model.model, threads=threads)
    call_ms, calls = timed(partial(plain.predict, batch), seconds=seconds)
    del plain
    with tempfile.TemporaryDirectory(prefix="slimcv-") as folder:
        events, made_of = _events(model, batch, Path(folder), threads=threads, calls=calls)
    times: dict[str, list[float]] = defaultdict(list)
    told: dict[str, dict[str, Any]] = {}
    for event in events:
        name = event["name"].removesuffix(_KERNEL)
        times[name].append(event["dur"] / 1000)
        told[name] = event["args"]
    # The first call, which sets up buffers, is left out.
    nodes = tuple(
        Executed(
            name=name,
            kind=told[name].get("op_name", ""),
            ms=undisturbed(spent[1:] or spent),
            sources=made_of.get(name) or model.sources(name),
            precision=_precision(told[name]),
        )
        for name, spent in times.items()
    )
    return Ran(nodes, call_ms, precision or "fp32", calls)


def _precision(told: Mapping[str, Any]) -> str | None:
    """What a kernel computes in: not what it writes, which for integers may be floats again."""
    types = [name for read in told.get("input_type_shape", ()) for name in read]
    return _PRECISIONS.get(types[0]) if types else None


def _events(
    model: Named, batch: NDArray[np.float32], folder: Path, *, threads: int, calls: int
) -> tuple[list[dict[str, Any]], dict[str, tuple[str, ...]]]:
    """The kernels' events, and the sources of each node of the optimised graph."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = runtime.options(threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    try:
        session = runtime.session(model.model, options)
        feed = {session.get_inputs()[0].name: batch}
        with flushing.flushing():
            for _ in range(calls + 1):
                session.run(None, feed)
    except (state.Fail, state.NotImplemented, state.RuntimeException) as error:
        reason = first_line(error)
        raise SlimcvError(
            f"ONNX Runtime does not run the network: {reason}", "profile it in another --runtime"
        ) from error
    entries = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    events = [one for one in entries if one.get("cat") == "Node" and one["name"].endswith(_KERNEL)]
    return events, _made_of(folder / "optimised.onnx", model)


def _made_of(path: Path, model: Named) -> dict[str, tuple[str, ...]]:
    """The sources of each node of the optimised graph, by what values it makes and reads.

    A change of layout that the session put in belongs to the layer whose values it changes, and where that
    is not told, to the layer that reads them.
    """
    import onnx

    graph = onnx.load(path).graph
    # A node in a blocked layout is named after the value that it makes, which has another name then.
    made = {node.name: (*node.output, node.name) for node in graph.node}
    known = {model.value(name) for names in made.values() for name in names}
    readers: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name] += made[node.name]
    found = {}
    for node in graph.node:
        around = (made[node.name], [after for name in node.output for after in readers[name]], node.input)
        sources = (_merged(names, known, model) for names in around)
        found[node.name] = next(filter(None, sources), ())
    return found


def _merged(names: Iterable[str], known: Collection[str | None], model: Named) -> tuple[str, ...]:
    """The layers that make these values out of other `known` ones: what one node of the session does."""
    values = [value for value in map(model.value, names) if value is not None]
    ahead, marked = list(values), dict[str, None]()
    while ahead:
        value = ahead.pop()
        marked[value] = None
        ahead += [
            name
            for name in model.reads.get(value, ())
            if name not in known and name not in marked and (name in model.reads)
        ]
    return model.sources(*marked)
