"""PyTorch's compiler with frozen weights: layers fused into generated C++."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from slimcv.errors import Refused, SlimcvError, first_line
from slimcv.models import checkpoint
from slimcv.runtimes import eager
from slimcv.runtimes.prepared import PLANES, InputFormat
from slimcv.runtimes.quiet import quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from slimcv.step import Variant

_COMPILERS = ("g++", "clang++", "c++")

_MOST_PROGRAMS = 64
"""PyTorch by itself refuses the ninth of a network. Sizes of batches double: these are enough for any."""


def write(variant: Variant, folder: Path, name: str = "model") -> Path:
    """A checkpoint `.pt2`; it is compiled when it is loaded, for the machine it is loaded on."""
    path = folder / f"{name}.pt2"
    checkpoint.save(variant, path)
    return path


def prepare(path: Path, *, threads: int, freezing: bool = True) -> InductorModel:
    """Load a `.pt2`. It is compiled at the first call, and for few sizes of batches, each in seconds.

    A network saved with the precision `bf16` is compiled under autocast. Without `freezing` the weights stay
    parameters, which a quantised graph cannot be compiled with. Raises SlimcvError there, and where there is
    no C++ compiler.
    """
    require_compiler()
    variant = checkpoint.read(path)
    if variant.precision == "int8" and not freezing:
        raise SlimcvError("torch.compile has 8-bit layers for frozen weights alone", "use inductor")
    return InductorModel(
        variant.model, threads=threads, autocast=variant.precision == "bf16", freezing=freezing
    )


def import_library() -> None:
    """What reads a `.pt2`; the compiler itself is imported at the first call."""
    eager.import_library()


def load_libraries(*, threads: int) -> None:
    """Compile a tiny model: it loads the compiler, which takes more memory than most models."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(write(eager.tiny(), Path(folder)), threads=threads)
    prepared.predict(np.zeros((1, 3, 8, 8), np.float32))


def require_compiler() -> None:
    """Raise SlimcvError where no C++ compiler is to be found."""
    if os.environ.get("CXX") or any(map(shutil.which, _COMPILERS)):
        return
    raise SlimcvError(
        "torch.compile needs a C++ compiler and there is none on PATH", "install g++ or clang, or set CXX"
    )


class InductorModel:
    """A module compiled for few batch sizes: one picture, and others of which each is twice the one before.

    A batch between two sizes is filled up to the larger one. The first batch that is larger than all so far
    is compiled as it is, where that is twice as large: whoever times one size times that very size.
    """

    def __init__(
        self, model: nn.Module, *, threads: int, autocast: bool = False, freezing: bool = True
    ) -> None:
        self.runtime = "inductor" if freezing else "inductor_unfrozen"
        self._freezing = freezing
        self._autocast = autocast
        self._quantized = any(b.dtype in (torch.int8, torch.uint8) for b in model.buffers())
        self._threads = threads
        self._compiled_for: set[tuple[int, ...]] = set()
        self._compiled = torch.compile(model, dynamic=False, fullgraph=True)

    @property
    def precision(self) -> str:
        """`int8` for a quantised graph: freezing puts oneDNN's 8-bit layers in place of its float ones."""
        return "int8" if self._quantized else "bf16" if self._autocast else "fp32"

    @property
    def input_format(self) -> InputFormat:
        """Normalised planes, always."""
        return PLANES

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """See `Prepared.predict`; compiles at the first call with a shape. Raises Refused."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        count = len(batch)
        if batch.shape not in self._compiled_for and count > 1:
            batch = np.concatenate([batch, np.repeat(batch[-1:], self._size(batch.shape) - count, axis=0)])
        pixels = eager.tensor(batch)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            outputs = self._compiled(pixels) if batch.shape in self._compiled_for else self._compile(pixels)
        result: NDArray[np.float32] = outputs.float().numpy()
        return result[:count]

    def _size(self, shape: tuple[int, ...]) -> int:
        """How many pictures are computed for a batch of this shape."""
        known = sorted(each[0] for each in self._compiled_for if each[1:] == shape[1:])
        enough = [size for size in known if size >= shape[0]]
        return enough[0] if enough else max(shape[0], 2 * known[-1] if known else 0)

    def _compile(self, pixels: torch.Tensor) -> torch.Tensor:
        """The first call with a shape. Freezing works as a setting of the process, not as an option."""
        import torch._dynamo.config as dynamo_config
        import torch._inductor.config as inductor_config
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        logging.getLogger("slimcv").debug("compiling for batches of %d", len(pixels))
        try:
            with (
                quiet(),
                inductor_config.patch(freezing=self._freezing),
                dynamo_config.patch(recompile_limit=_MOST_PROGRAMS),
            ):
                outputs: torch.Tensor = self._compiled(pixels)
        except (TorchDynamoException, InductorError) as error:
            reason = first_line(error)
            raise Refused(
                f"torch.compile failed: {reason}", "use another runtime: onnxruntime or openvino"
            ) from error
        self._compiled_for.add(tuple(pixels.shape))
        return outputs
