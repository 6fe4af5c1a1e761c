"""ONNX Runtime: one `.onnx` file with its weights inside."""

from __future__ import annotations

import io
import os
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from slimcv.errors import Refused, SlimcvError, first_line
from slimcv.runtimes import flushing
from slimcv.runtimes.prepared import AS_FED, PIXELS, PLANES, InputFormat
from slimcv.runtimes.quiet import quiet

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from slimcv.step import InputSpec, Variant

INPUT = "input"
OUTPUT = "logits"
_NORMALISED = "normalised"

_LARGEST_FILE = 2**31 - 2**24
"""Protocol buffers end at 2 GB; what is not weights is far below 16 MB."""

_PRECISION_KEY = "slimcv.precision"

_ON_INTEGERS = (
    b"QuantizeLinear",
    b"DynamicQuantizeLinear",
    b"QLinearConv",
    b"QLinearMatMul",
    b"QGemm",
    b"ConvInteger",
    b"MatMulInteger",
)
"""Operators that only a graph which computes on 8-bit integers has."""

_CHUNK_BYTES = 1 << 20


def write(variant: Variant, folder: Path, name: str = "model") -> Path:
    """One ONNX file (opset 18 or newer) with input `input` and output `logits`.

    The input is normalised float32 (batch, channels, height, width), or uint8 (batch, height, width,
    channels) where the variant's details say so; the graph then begins with the normalisation.

    A quantised graph becomes QuantizeLinear and DequantizeLinear around float operators (QDQ). Raises
    SlimcvError for a model that holds more than 2 GB or an operator that ONNX does not have.
    """
    from slimcv.models import capture

    require_size(variant)
    model = exported(capture.deterministic(variant.model), variant.input)
    tidy(model)
    pixels = variant.details.get("input_format") == PIXELS
    return save(
        model, folder / f"{name}.onnx", precision=variant.precision, takes=variant.input if pixels else None
    )


def save(model: Any, path: Path, *, precision: str, takes: InputSpec | None) -> Path:
    """Write an ONNX protocol buffer with its precision noted; with `takes` it is fed pixels of this kind.

    The file appears when it is complete. Raises SlimcvError where it cannot be written.
    """
    import onnx

    if takes is not None:
        _take_pixels(model, takes)
    onnx.helper.set_model_props(model, {_PRECISION_KEY: precision})
    onnx.checker.check_model(model)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(model.SerializeToString(deterministic=True))
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SlimcvError(
            f"cannot write {path}: {error.strerror}", "free space or choose another --out"
        ) from error
    return path


def prepare(path: Path | bytes, *, threads: int, exact: bool = False) -> OnnxModel:
    """Load an `.onnx` file, or its bytes; `exact` leaves its graph as it is written."""
    known = refusals()
    try:
        chosen = options(threads, optimized=not exact)
        loaded = session(path if isinstance(path, bytes) else os.fspath(path), chosen)
    except known as error:
        reason = first_line(error)
        named = "the model" if isinstance(path, bytes) else path
        raise SlimcvError(f"ONNX Runtime does not load {named}: {reason}", "write the file anew") from error
    return OnnxModel(loaded, path)


def input_shape(path: Path | bytes) -> tuple[tuple[int | None, ...], InputFormat]:
    """The sides of the first input, None for a free one, and what is fed."""
    prepared = prepare(path, threads=1)
    sides = tuple(side if isinstance(side, int) else None for side in prepared.input_sides)
    return sides, prepared.input_format


def import_library() -> Any:
    """The module onnxruntime."""
    import onnxruntime

    return onnxruntime


def load_libraries(*, threads: int) -> None:
    """Import the library and start its threads with a session of one operator."""
    session(_one_relu(), options(threads))


class OnnxModel:
    """An inference session."""

    runtime = "onnxruntime"

    def __init__(self, session: Any, source: Path | bytes) -> None:
        self._session = session
        self._noted: str | None = session.get_modelmeta().custom_metadata_map.get(_PRECISION_KEY)
        # Only what is not noted is looked up later: a model in memory is not to stay there for it.
        self._source = None if self._noted else source
        fed = session.get_inputs()[0]
        self._input: str = fed.name
        self.input_format: InputFormat = PIXELS if fed.type == "tensor(uint8)" else PLANES

    @property
    def input_sides(self) -> list[int | str | None]:
        """Of the first input; a free side is a name or None."""
        return list(self._session.get_inputs()[0].shape)

    @cached_property
    def precision(self) -> str:
        """As written into the file: ONNX Runtime runs a QDQ graph on integers, but does not tell.

        Of a file that slimcv did not write, what its operators say.
        """
        source, self._source = self._source, None
        return self._noted or ("int8" if source is not None and _on_integers(source) else "fp32")

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """See `Prepared.predict`. Raises Refused."""
        begun = flushing.begin()
        try:
            outputs: NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        except refusals() as error:
            reason = first_line(error)
            raise Refused(f"ONNX Runtime does not run the model: {reason}", AS_FED) from error
        finally:
            flushing.end(begun)
        return outputs


def refusals() -> tuple[type[Exception], ...]:
    """What the library raises where a file, or what it is fed, is not to its liking."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
        ValueError,
    )


def _on_integers(source: Path | bytes) -> bool:
    """Whether a graph has an operator on integers.

    The file is searched for their names as a node holds them (field 4 of NodeProto: tag, length, text), in
    pieces: parsing it would need onnx, and count as the model's memory.
    """
    names = b"|".join(re.escape(bytes([4 << 3 | 2, len(name)]) + name) for name in _ON_INTEGERS)
    longest = 2 + max(map(len, _ON_INTEGERS))
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        last = b""
        while piece := stream.read(_CHUNK_BYTES):
            last = last[-longest:] + piece
            if re.search(names, last):
                return True
    return False


def session(model: str | bytes, chosen: Any) -> Any:
    """An inference session of a file or its bytes.

    The library has the thread that makes its first one take denormal numbers for zero ever after, if
    `options` say that its own threads do; here that ends with the making, and `OnnxModel` turns it on for
    each call.
    """
    import onnxruntime

    with flushing.flushing():
        return onnxruntime.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])


def options(threads: int, *, optimized: bool = True) -> Any:
    """How sessions are made: so many threads, denormal numbers as zero.

    Where the graph is not `optimized`, floats between roundings stay floats instead of becoming integers.
    """
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    chosen.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    chosen.log_severity_level = 3
    chosen.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Threads that keep spinning after a call take the cores from whatever is measured next.
    chosen.add_session_config_entry("session.force_spinning_stop", "1")
    return chosen


def exported(model: GraphModule, input: InputSpec) -> Any:
    """A graph in eval mode as an ONNX protocol buffer, with the notes of torch's exporter on each node.

    Raises SlimcvError for an operator that ONNX does not have.
    """
    import torch
    from torch.onnx import OnnxExporterError

    from slimcv.models import capture

    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                capture.exported(model, input),
                (),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                external_data=False,
                verbose=False,
            )
            return program.model_proto if program is not None else None
    except OnnxExporterError as error:
        reason = first_line(error.__cause__ or error)
        raise SlimcvError(
            f"the model cannot be written as ONNX: {reason}",
            "use the runtimes eager or inductor for this model",
        ) from error


def tidy(model: Any) -> None:
    """Name the free dimension "batch" and drop the exporter's notes, which hold paths of the user's code."""
    graph = model.graph
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if not symbol:
        raise SlimcvError(
            "the model only works with one batch size, which is written into its code",
            "use x.shape[0] instead of a number, for instance x.flatten(1) instead of x.view(8, -1)",
        )
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = "batch"
    for part in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _take_pixels(model: Any, input: InputSpec) -> None:
    """Put the normalisation in front: scale and shift of each channel, then channels before rows."""
    from onnx import TensorProto, helper, numpy_helper

    from slimcv.data.normalisation import coefficients

    graph = model.graph
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == INPUT:
                node.input[place] = _NORMALISED
    scale, shift = coefficients(input)
    graph.initializer.extend(
        [numpy_helper.from_array(scale, "pixel_scale"), numpy_helper.from_array(shift, "pixel_shift")]
    )
    first = [
        helper.make_node("Cast", [INPUT], ["pixel"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixel", "pixel_scale"], ["pixel_scaled"]),
        helper.make_node("Add", ["pixel_scaled", "pixel_shift"], ["pixel_normalised"]),
        helper.make_node("Transpose", ["pixel_normalised"], [_NORMALISED], perm=[0, 3, 1, 2]),
    ]
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    shape: list[str | int | None] = ["batch", input.height, input.width, input.channels]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))


def require_size(variant: Variant) -> None:
    """Raise SlimcvError for a model that one ONNX file cannot hold."""
    tensors = (*variant.model.parameters(), *variant.model.buffers())
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > _LARGEST_FILE:
        raise SlimcvError(
            f"the model holds {size / 1e9:.1f} GB of weights and one ONNX file holds at most 2 GB",
            "use the runtimes eager or inductor for this model",
        )


def _one_relu() -> bytes:
    """The smallest model, spelled as bytes because importing onnx would count as the runtime's memory."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    scalar = field(1, bytes([1 << 3, 1]) + field(2, field(1, bytes([1 << 3, 1]))))
    node = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Relu"))
    values = field(11, field(1, b"x") + field(2, scalar)) + field(12, field(1, b"y") + field(2, scalar))
    graph = field(7, node + field(2, b"g") + values)
    return bytes([1 << 3, 8]) + graph + field(8, bytes([2 << 3, 18]))
