"""The loop most people write: DataLoader workers, Pillow, transforms picture by picture, eager fp32."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from slimcv.data import Split
from slimcv.step import InputSpec

WORKERS = 2
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Trained:
    """Whole epochs' seconds, the pictures of one, and when training ended, seconds after it began."""

    epoch_seconds: tuple[float, ...]
    pictures: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Of the median epoch from the second on."""
        return self.pictures / statistics.median(self.epoch_seconds[1:])


class Pictures(Dataset[tuple[Tensor, int]]):
    """Files decoded, resized, flipped and normalised one by one, every time they are asked for."""

    def __init__(self, paths: Sequence[str], labels: np.ndarray, input: InputSpec) -> None:
        self._paths, self._labels, self._input = paths, labels, input
        self._mean = torch.tensor(input.mean).view(-1, 1, 1)
        self._std = torch.tensor(input.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        size = (self._input.width, self._input.height)
        pixels = decoded(self._paths[position], size)
        picture = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)
        if torch.rand(()) < 0.5:
            picture = picture.flip(-1)
        return (picture - self._mean) / self._std, int(self._labels[position])


def decoded(path: str, size: tuple[int, int]) -> np.ndarray:
    """Uint8 (height, width, 3) of a file, resized as torchvision's transforms do by default."""
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR))


def loader(split: Split, input: InputSpec, batch: int) -> DataLoader[tuple[Tensor, int]]:
    """Mixed batches of a split from two worker processes."""
    pictures = Pictures(split.paths, split.labels, input)
    return DataLoader(pictures, batch_size=batch, shuffle=True, num_workers=WORKERS)


def train(
    model: nn.Module,
    split: Split,
    input: InputSpec,
    *,
    batch: int,
    epochs: int = 1_000_000,
    budget: float = float("inf"),
) -> Trained:
    """AdamW on the cross-entropy, until so many epochs or seconds are over."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    batches = loader(split, input, batch)
    begun, finished = time.perf_counter(), []
    while len(finished) < epochs and time.perf_counter() - begun < budget:
        epoch_begun = time.perf_counter()
        for pictures, labels in batches:
            optimizer.zero_grad()
            functional.cross_entropy(model(pictures), labels).backward()
            optimizer.step()
            if time.perf_counter() - begun >= budget:
                break
        finished.append(time.perf_counter() - epoch_begun)
    return Trained(tuple(finished), len(split), time.perf_counter() - begun)
