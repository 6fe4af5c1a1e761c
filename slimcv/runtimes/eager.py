"""PyTorch itself, one operator after the other: what a user's model runs in before anything is done to it."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from slimcv.models import capture, checkpoint
from slimcv.runtimes.prepared import PLANES, InputFormat
from slimcv.step import InputSpec, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write(variant: Variant, folder: Path, name: str = "model") -> Path:
    """A checkpoint `.pt2`."""
    path = folder / f"{name}.pt2"
    checkpoint.save(variant, path)
    return path


def prepare(path: Path, *, threads: int, channels_last: bool = False) -> EagerModel:
    """Load a `.pt2`; `channels_last` stores weights and inputs channel by channel for each pixel.

    A network saved with the precision `bf16` runs under autocast.
    """
    variant = checkpoint.read(path)
    return in_memory(
        variant.model, threads=threads, channels_last=channels_last, autocast=variant.precision == "bf16"
    )


def in_memory(
    model: nn.Module, *, threads: int, channels_last: bool = False, autocast: bool = False
) -> EagerModel:
    """A model of this process, in evaluation mode, behind the same call as one read from a file."""
    if channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return EagerModel(model, threads=threads, channels_last=channels_last, autocast=autocast)


def tensor(batch: NDArray[np.generic]) -> torch.Tensor:
    """A C-contiguous array as a tensor with the strides that follow from its shape.

    numpy leaves any stride to a side of 1, and one channel that was moved to the front has those of
    channels_last: compiled code takes another path for them, or answers nonsense without an error.
    """
    return torch.from_numpy(batch.reshape(-1)).view(batch.shape)


def import_library() -> None:
    """Torch is imported with this file; what reads a `.pt2` takes as long again, whatever the model."""
    importlib.import_module("torch.export.pt2_archive")


def load_libraries(*, threads: int) -> None:
    """Write a tiny checkpoint, read it and run it: torch.export brings along far more than a small model."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(write(tiny(), Path(folder)), threads=threads)
    prepared.predict(np.zeros((1, 3, 8, 8), np.float32))


def tiny() -> Variant:
    """A convolution and a linear layer, with which a runtime shows what it needs for itself."""
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), *pooled)
    input = InputSpec(3, 8, 8)
    return Variant(capture.capture(layers.eval(), input), input)


class EagerModel:
    """A module called under `torch.inference_mode`, with `autocast` in bfloat16."""

    def __init__(self, model: nn.Module, *, threads: int, channels_last: bool, autocast: bool) -> None:
        self.runtime = "eager_channels_last" if channels_last else "eager"
        self._model = model
        self._threads = threads
        self._autocast = autocast
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    @property
    def precision(self) -> str:
        """That of the float parameters: eager PyTorch computes a quantised graph on dequantised values."""
        if self._autocast:
            return "bf16"
        floats = {p.dtype for p in self._model.parameters() if p.is_floating_point()}
        names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
        return names.get(floats.pop(), "fp32") if len(floats) == 1 else "fp32"

    @property
    def input_format(self) -> InputFormat:
        """Normalised planes, always."""
        return PLANES

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """See `Prepared.predict`."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            pixels = torch.from_numpy(batch).contiguous(memory_format=self._format)
            outputs: NDArray[np.float32] = self._model(pixels).float().numpy()
        return outputs
