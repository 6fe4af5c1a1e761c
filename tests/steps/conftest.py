"""Pictures for steps that calibrate, and a trained network for those that shrink weights."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import data as datasets
from slimcv import runtimes
from slimcv.data.normalisation import normalised
from slimcv.measure import accuracy
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_noise):
    """Forty pictures of noise, 16 by 16, in two classes."""
    folder = tmp_path_factory.mktemp("data")
    write_noise(folder, size=16, each=20)
    return datasets.load(str(folder / "pictures"), cache=folder / "cache")


@pytest.fixture(scope="session")
def handwriting(tmp_path_factory):
    """Scikit-learn's handwritten digits and a network that reads them: data, variant, and two functions.

    `context(folder)` is one to apply steps in, `top1(variant, folder)` the percentage of val/ that an
    exported file gets right.
    """
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    for number, (image, label) in enumerate(zip(images.reshape(-1, 8, 8), labels, strict=True)):
        place = folder / "pictures" / ("val" if number % 3 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.repeat((image * 15.9).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(pixels).save(place / f"{number:04}.png")
    data = datasets.load(str(folder / "pictures"), cache=folder / "cache")
    spec = InputSpec(3, 8, 8)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(48, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip
    pictures = torch.from_numpy(normalised(np.array(data.train.pixels(8, 8, 3)), spec))
    answers = torch.from_numpy(data.train.labels)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(8):
        for index in torch.randperm(len(answers)).split(64):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(network(pictures[index]), answers[index]))
            optimizer.step()
    variant = Variant(capture.capture(network.eval(), spec), spec, data.classes)

    def fresh():
        return replace(variant, model=capture.copy(variant.model))

    def context(folder, **changes):
        given = Context(variant, data, folder, threads=1, train_threads=1)
        return replace(given, **changes)

    def top1(variant, folder):
        path = runtimes.write(replace(variant, artifacts={}), "onnxruntime", folder)
        prepared = runtimes.prepare(path, "onnxruntime", threads=1)
        return accuracy.evaluate(prepared, data.val, variant.input).top1

    return SimpleNamespace(data=data, fresh=fresh, context=context, top1=top1)
