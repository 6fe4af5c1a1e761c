"""What every runtime offers once a model is loaded: one call from a batch of pictures to outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (n, outputs) for normalised pictures (n, channels, height, width), both C-contiguous
        float32.

        What is returned stays valid after the next call.
        """
        ...
