"""ONNX Runtime's own 8-bit quantiser, on a network in floats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimcv import runtimes
from slimcv.data.normalisation import normalised
from slimcv.errors import NotApplicable, Rejected, first_line
from slimcv.quantization.compressor import quiet
from slimcv.runtimes import onnxruntime as onnx_file
from slimcv.runtimes.libraries import required

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimcv.step import InputSpec, Variant


def quantize(
    variant: Variant, pixels: NDArray[np.uint8], folder: Path, *, reduce_range: bool, takes_pixels: bool
) -> Path:
    """A QDQ `.onnx` in `folder`: u8 activations, s8 weights with one scale a channel.

    `pixels` (n, height, width, channels) are what it is calibrated on; with `takes_pixels` it is fed such
    ones and normalises them itself. How many threads it calibrates with is the library's choice. Raises
    NotApplicable where ONNX Runtime is not installed, Rejected where it cannot quantise the network.
    """
    with required("ONNX Runtime's form", raising=NotApplicable):
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

    planes = {key: value for key, value in variant.details.items() if key != "input_format"}
    source = runtimes.write(
        replace(variant, artifacts={}, details=planes), "onnxruntime", folder, name="float"
    )
    failures: tuple[type[Exception], ...] = (*onnx_file.refusals(), RuntimeError, TypeError)
    ready, quantized = folder / "ready.onnx", folder / "quantized.onnx"
    try:
        with quiet():
            quant_pre_process(source, ready, skip_symbolic_shape=True)
            quantize_static(
                ready,
                quantized,
                _Reader(pixels, variant.input),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    except failures as error:
        raise Rejected(f"ONNX Runtime does not quantise this network: {first_line(error)}") from error
    takes = variant.input if takes_pixels else None
    path = onnx_file.save(onnx.load(quantized), folder / "model.onnx", precision="int8", takes=takes)
    for part in (source, ready, quantized):
        part.unlink()
    return path


class _Reader:
    """Normalised pictures one by one, as ONNX Runtime asks for them."""

    def __init__(self, pixels: NDArray[np.uint8], input: InputSpec) -> None:
        self._left, self._input = iter(pixels), input

    def get_next(self) -> dict[str, Any] | None:
        """One batch by input name, None when there are no more."""
        picture = next(self._left, None)
        if picture is None:
            return None
        return {onnx_file.INPUT: np.ascontiguousarray(normalised(picture[np.newaxis], self._input))}
