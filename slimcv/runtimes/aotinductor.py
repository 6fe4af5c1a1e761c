"""PyTorch's compiler ahead of time: a `.pt2` package of machine code, which needs no compiler where it runs.

Such a package is a program for one kind of CPU. Whoever loads it runs it: unlike every other file of a bundle
it is never taken for what is served unless somebody asks for it by name.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.runtimes import eager, inductor
from slimcv.runtimes.prepared import PLANES, InputFormat
from slimcv.runtimes.quiet import quiet
from slimcv.writing import complete

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimcv.step import Variant

_PRECISION_KEY = "slimcv_precision"


def write(variant: Variant, folder: Path, name: str = "model") -> Path:
    """A package for batches of any size and for this CPU's instructions, compiled in some ten seconds.

    A variant with the precision `bf16` is compiled under autocast. Raises SlimcvError where there is no C++
    compiler or the network does not compile.
    """
    import torch._inductor.config as inductor_config
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import InductorError

    inductor.require_compiler()
    path = folder / f"{name}.pt2"
    metadata = {"aot_inductor.metadata": {_PRECISION_KEY: variant.precision}}
    bf16 = variant.precision == "bf16"
    try:
        with (
            quiet(),
            torch.no_grad(),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
            # Both the export and the compilation, or the weights stay parameters.
            inductor_config.patch(freezing=True),
            tempfile.TemporaryDirectory(prefix="slimcv-") as unfinished,
        ):
            program = capture.exported(capture.deterministic(variant.model), variant.input)
            made = aoti_compile_and_package(
                program, package_path=f"{unfinished}/model.pt2", inductor_configs=metadata
            )
            with complete(path) as file:
                file.write(Path(made).read_bytes())
    except (TorchDynamoException, InductorError, RuntimeError) as error:
        raise SlimcvError(
            f"AOTInductor failed: {capture.first_line(error)}", "use another runtime: onnxruntime or openvino"
        ) from error
    return path


def prepare(path: Path, *, threads: int) -> AotModel:
    """Load and with it run the machine code of a package. Raises SlimcvError where it is none."""
    from torch._inductor import aoti_load_package

    try:
        with quiet():
            loaded = aoti_load_package(os.fspath(path))
    except (RuntimeError, OSError) as error:
        raise SlimcvError(
            f"AOTInductor does not load {path}: {capture.first_line(error)}",
            "it runs only where it was compiled for: write the file anew on this machine",
        ) from error
    return AotModel(loaded, threads=threads)


def import_library() -> None:
    """Torch, and what loads a package."""
    eager.import_library()
    importlib.import_module("torch._inductor")


def load_libraries(*, threads: int) -> None:
    """Compile a tiny model and run it."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(write(eager.tiny(), Path(folder)), threads=threads)
        prepared.predict(np.zeros((1, 3, 8, 8), np.float32))


class AotModel:
    """A loaded package."""

    runtime = "aotinductor"

    def __init__(self, loaded: Any, *, threads: int) -> None:
        self._loaded = loaded
        self._threads = threads
        self.precision: str = loaded.get_metadata().get(_PRECISION_KEY, "fp32")

    @property
    def input_format(self) -> InputFormat:
        """Normalised planes, always."""
        return PLANES

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """See `Prepared.predict`."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            outputs: NDArray[np.float32] = self._loaded(eager.tensor(batch)).float().numpy()
        return outputs
