"""OpenVINO: an intermediate representation, `.xml` for the graph and `.bin` for the weights."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv.errors import Refused, SlimcvError, last_line
from slimcv.runtimes import onnxruntime as onnx_file
from slimcv.runtimes.prepared import AS_FED, PIXELS, PLANES, InputFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slimcv.step import Variant

_PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}

_PRECISION = ["slimcv", "inference_precision"]
"""Where in the file a precision is kept that must not be left to what the CPU does best."""

_NOTED = re.compile(rb'<slimcv>\s*<inference_precision value="(\w+)"\s*/>')
"""The same as it stands in the text of an `.xml`."""

_INTEGERS = ("u8", "i8")

_IN_FLOATS = {"LP_TRANSFORMS_MODE": "NO"}
"""The plug-in's own switch for its low-precision transformations, which put integers in place of floats."""


def write(variant: Variant, folder: Path, name: str = "model") -> Path:
    """The `.xml`, with its `.bin` beside it; made from the variant's `.onnx`, which is written first if
    missing.

    Weights keep their precision. What OpenVINO computes in is decided when the file is loaded, unless the
    variant carries `details["inference_precision"]`, which is then kept in the file; and a network in floats
    that cannot be proved in bfloat16 here is kept to float32 everywhere.
    """
    from slimcv.measure import environment

    precision = variant.details.get("inference_precision")
    if precision is None and variant.precision == "fp32" and not environment.has_bf16_instructions():
        precision = "f32"
    known = _known(variant)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as unfinished:
        source = known or onnx_file.write(variant, Path(unfinished))
        try:
            convert(source, Path(unfinished) / f"{name}.xml", precision=precision)
            for suffix in (".bin", ".xml"):
                (Path(unfinished) / f"{name}{suffix}").replace(folder / f"{name}{suffix}")
        except OSError as error:
            raise SlimcvError(
                f"cannot write {folder / name}.xml: {error.strerror}", "free space or choose another --out"
            ) from error
    return folder / f"{name}.xml"


def _known(variant: Variant) -> Path | None:
    """The variant's `.onnx`, where it is there and fed as this file is to be."""
    path = variant.artifacts.get("onnxruntime")
    fed = (variant.details.get("onnxruntime") or {}).get("input_format", PLANES)
    same = fed == variant.details.get("input_format", PLANES)
    return path if path is not None and path.is_file() and same else None


def prepare(
    path: Path | bytes, *, threads: int, inference_precision: str | None = None, exact: bool = False
) -> OpenvinoModel:
    """Load an `.xml` with its `.bin` (or an `.onnx`, or the bytes of one) for one request at a time.

    `inference_precision` stands for what an `.xml` may say itself. With `exact` no layer is computed on
    integers.
    """
    openvino = import_library()
    settings = settings_for(threads)
    if exact:
        settings |= _IN_FLOATS
        inference_precision = "f32"
    try:
        model = openvino.Core().read_model(_source(path))
        if inference_precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = inference_precision
        elif model.has_rt_info(_PRECISION):
            settings["INFERENCE_PRECISION_HINT"] = model.get_rt_info(_PRECISION).astype(str)
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    return OpenvinoModel(compiled)


def noted_precision(path: Path) -> str | None:
    """What an `.xml` says that floats are to be computed in, such as "f32"; None where it leaves that open.

    OpenVINO itself does not heed it, and is not needed to read it.
    """
    found = _NOTED.search(path.read_bytes())
    return found[1].decode() if found else None


def _source(path: Path | bytes) -> str | io.BytesIO:
    return io.BytesIO(path) if isinstance(path, bytes) else os.fspath(path)


def _unreadable(path: Path | bytes, error: RuntimeError) -> SlimcvError:
    reason = last_line(error)
    named = "the model" if isinstance(path, bytes) else path
    return SlimcvError(f"OpenVINO does not load {named}: {reason}", "write the file anew")


def input_shape(path: Path | bytes) -> tuple[tuple[int | None, ...], InputFormat]:
    """The sides of the first input, None for a free one, and what is fed."""
    openvino = import_library()
    try:
        first = openvino.Core().read_model(_source(path)).input(0)
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    return _sides(first), _fed(first)


def import_library() -> Any:
    """The module openvino, imported without its telemetry.

    Otherwise every import forks the process to report to a web service, leaves files in the home directory,
    and hangs where the fork meets a thread of torch. OpenVINO takes the telemetry package for absent if its
    import fails.
    """
    telemetry = "openvino_telemetry"
    if "openvino" in sys.modules or telemetry in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[telemetry]


def load_libraries(*, threads: int) -> None:
    """Write, read and run one convolution, which loads the reader of `.xml` files and the CPU plug-in."""
    import numpy as np

    openvino = import_library()
    opset13 = openvino.opset13
    pixels = opset13.parameter([-1, 3, 8, 8], openvino.Type.f32)
    weight = opset13.constant(np.ones((16, 3, 3, 3), np.float32))
    maps = opset13.relu(opset13.convolution(pixels, weight, [1, 1], [0, 0], [0, 0], [1, 1]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(openvino.Model([maps], [pixels]), os.fspath(path), compress_to_fp16=False)
        prepared = prepare(path, threads=threads)
        prepared.predict(np.zeros((1, 3, 8, 8), np.float32))


def executed_precisions(path: Path, *, threads: int = 1) -> dict[str, int]:
    """How many convolutions and fully connected layers run in which precision, e.g. `{"u8": 21, "f32": 1}`.

    As the CPU plug-in reports it for the graph it really executes; layer fusion and quantisation are done by
    then.
    """
    return prepare(path, threads=threads).layer_precisions()


def _sides(port: Any) -> tuple[int | None, ...]:
    return tuple(side.get_length() if side.is_static else None for side in port.get_partial_shape())


class OpenvinoModel:
    """A compiled model and its one inference request."""

    runtime = "openvino"

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._tensor = import_library().Tensor
        self.input_format: InputFormat = _fed(compiled.input(0))

    @property
    def input_sides(self) -> list[int | str | None]:
        """Of the first input; a free side is None."""
        return list(_sides(self._compiled.input(0)))

    @property
    def precision(self) -> str:
        """`int8` where more than half of the layers run in 8 bits, else what the plug-in chose for floats."""
        layers = self.layer_precisions()
        if 2 * sum(layers.get(kind, 0) for kind in _INTEGERS) > sum(layers.values()):
            return "int8"
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        return _PRECISIONS.get(str(hint), str(hint))

    def layer_precisions(self) -> dict[str, int]:
        """See `executed_precisions`."""
        found: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ops():
            properties = node.get_rt_info()
            if _property(properties, "layerType") in ("Convolution", "FullyConnected", "MatMul"):
                found[_property(properties, "runtimePrecision")] += 1
        return dict(found)

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """See `Prepared.predict`. Raises Refused."""
        if not batch.flags.writeable:
            batch = batch.copy()  # Memory is shared only with what may be written to.
        try:
            # This takes 70 µs less than handing the array to `infer`, which looks at it at length.
            self._request.set_input_tensor(self._tensor(batch, shared_memory=True))
            self._request.infer()
        except RuntimeError as error:
            reason = last_line(error)
            raise Refused(f"OpenVINO does not run the model: {reason}", AS_FED) from error
        outputs: NDArray[np.float32] = self._request.get_output_tensor(0).data
        # The request writes its next outputs into the same memory.
        return outputs.copy()


def _fed(port: Any) -> InputFormat:
    return PIXELS if port.get_element_type().get_type_name() == "u8" else PLANES


def settings_for(threads: int) -> dict[str, Any]:
    """How models are compiled: one request at a time on so many threads.

    Where oneDNN may not use the CPU's bfloat16 (`environment.isa_cap`), the plug-in chooses it all the same
    and answers with what is no number, so that it is told of float32.
    """
    from slimcv.measure import environment

    capped = environment.isa_cap() is not None and not environment.has_bf16_instructions()
    return {
        **({"INFERENCE_PRECISION_HINT": "f32"} if capped else {}),
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # A pinned thread waits for its core while another one is idle, and every process pins to the same.
        "ENABLE_CPU_PINNING": False,
    }


def convert(source: Path, path: Path, *, precision: str | None) -> None:
    """Write an `.onnx` as the `.xml` at `path` with its `.bin`, and in it what it is to be computed in.

    `read_model` and not `convert_model`: the same converter without its telemetry. Raises SlimcvError.
    """
    openvino = import_library()
    try:
        model = openvino.Core().read_model(os.fspath(source))
        if precision is not None:
            model.set_rt_info(precision, _PRECISION)
        openvino.save_model(model, os.fspath(path), compress_to_fp16=False)
    except RuntimeError as error:
        reason = last_line(error)
        raise SlimcvError(
            f"OpenVINO does not convert the model: {reason}", "use the runtime onnxruntime for this model"
        ) from error


def _property(properties: Any, name: str) -> str:
    """An entry of a node's runtime information as text; empty where there is none."""
    return str(properties[name].astype(str)) if name in properties else ""
