"""What every runtime offers once a model is loaded: one call from a batch of pictures to outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from slimcv.step import InputSpec

InputFormat = Literal["uint8-nhwc", "float-nchw"]
"""What a file is fed: pixels as they were decoded, which it normalises itself, or normalised planes."""

PIXELS: InputFormat = "uint8-nhwc"
PLANES: InputFormat = "float-nchw"

AS_FED = "export it with one input of pictures and a free batch, or use another runtime"
"""The hint where a runtime refuses what it is fed."""


class Prepared(Protocol):
    """A model loaded by a runtime, ready to be called with batches of any size."""

    @property
    def runtime(self) -> str:
        """One of `slimcv.runtimes.NAMES`."""
        ...

    @property
    def precision(self) -> str:
        """What the layers really run in, as the runtime tells it: "fp32", "bf16", "fp16" or "int8"."""
        ...

    @property
    def input_format(self) -> InputFormat:
        """What `predict` takes, as the file says it."""
        ...

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """Outputs float32 (n, outputs) for C-contiguous pictures.

        Fed "uint8-nhwc" they are uint8 (n, height, width, channels), fed "float-nchw" normalised float32
        (n, channels, height, width). What is returned stays valid after the next call.
        """
        ...


class PreparedOnnx(Prepared, Protocol):
    """A model that came as ONNX, whose file tells what it is fed."""

    @property
    def input_sides(self) -> Sequence[int | str | None]:
        """The shape of the one input; a free side is a name or None."""
        ...


def answer(prepared: Prepared, pixels: NDArray[np.uint8], input: InputSpec) -> NDArray[np.float32]:
    """Outputs (n, outputs) for uint8 pictures (n, height, width, channels), fed as the file takes them."""
    import numpy as np

    if prepared.input_format == PIXELS:
        return prepared.predict(np.ascontiguousarray(pixels))
    from slimcv.data.normalisation import normalised

    return prepared.predict(np.ascontiguousarray(normalised(pixels, input)))
