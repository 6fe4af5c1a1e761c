"""OpenVINO's own 8-bit quantiser, NNCF, on a network in floats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimcv import runtimes
from slimcv.errors import NotApplicable, Rejected, first_line
from slimcv.quantization.compressor import quiet
from slimcv.runtimes import openvino as openvino_runtime
from slimcv.runtimes.libraries import required

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimcv.step import Variant


def quantize(variant: Variant, pictures: NDArray[np.generic], folder: Path, *, reduce_range: bool) -> Path:
    """An `.xml` with its `.bin` in `folder`, quantised with NNCF's own defaults but for the weights' range.

    `pictures` are as the file is fed (see slimcv.runtimes.prepared), one after the other. With `reduce_range`
    all weights keep to half of it, without none does; NNCF by itself does so to the first layer. How
    many threads it calibrates with is the library's choice. Raises NotApplicable where NNCF or OpenVINO is
    not installed, Rejected where it cannot quantise the network.
    """
    with required("NNCF's form", raising=NotApplicable):
        with quiet():
            import nncf
            from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        openvino = openvino_runtime.import_library()
    source = runtimes.write(replace(variant, artifacts={}), "openvino", folder, name="float")
    path = folder / "model.xml"
    samples = [np.ascontiguousarray(picture[np.newaxis]) for picture in pictures]
    failures: tuple[type[Exception], ...] = (*_refusals(), RuntimeError, ValueError)
    try:
        with quiet():
            quantized = nncf.quantize(
                openvino.Core().read_model(source),
                nncf.Dataset(samples),
                subset_size=len(samples),
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.ENABLE if reduce_range else OverflowFix.DISABLE
                ),
            )
            openvino.save_model(quantized, path, compress_to_fp16=False)
    except failures as error:
        raise Rejected(f"NNCF does not quantise this network: {first_line(error)}") from error
    for part in (source, source.with_suffix(".bin")):
        part.unlink()
    return path


def _refusals() -> tuple[type[Exception], ...]:
    """NNCF's own errors, which have nothing but Exception in common."""
    from nncf import errors

    return tuple(one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception))
