"""A bundle as `slimcv optimize` leaves it, of a small network that tells colours apart."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import bundle, report, runtimes
from slimcv.measure import environment
from slimcv.models import capture
from slimcv.report.html import render_html
from slimcv.report.reading import of
from slimcv.results import Latency, Measurement
from slimcv.serving import golden
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 16, 12)
CLASSES = ("blue", "green", "<red>")
MEASURED = Measurement(
    parameters=10,
    buffers=0,
    macs=100,
    latency_ms=Latency(p50=1.0, p90=1.1, p99=None, n=20, spread=0.01),
    threads=1,
    runtime="onnxruntime",
)


class Colours(nn.Module):
    """The mean of each channel, blue first."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        weight = torch.eye(3).flip(0).reshape(3, 3, 1, 1) * 4
        self.conv.weight = nn.Parameter(weight)

    def forward(self, x):
        return self.pool(self.conv(x)).flatten(1)


@pytest.fixture(scope="session")
def variant():
    details = {"input_format": runtimes.PIXELS}
    return Variant(capture.capture(Colours(), INPUT), INPUT, classes=CLASSES, details=details)


@pytest.fixture(scope="session")
def made(tmp_path_factory, variant):
    """Written once; every test has a copy."""
    place = tmp_path_factory.mktemp("bundle")
    out, exported = place / "colours-slim", place / "exported"
    artifacts = []
    for runtime in ("onnxruntime", "openvino", "eager"):
        path = runtimes.write(variant, runtime, exported)
        artifacts += bundle.place(out, path, runtime, precision="fp32", latency_ms=1.0)
    document = report.build(
        model={"source": "colours.pt"},
        recipe={"name": "cpu_fast", "text": "name: cpu_fast\n"},
        environment=environment.describe().as_json(),
        gate={"max_drop": 1.0, "met": True},
        original=MEASURED,
        optimized=dataclasses.replace(MEASURED, top1=99.0),
        records=[],
        artifacts=artifacts,
        seconds=1.0,
    )
    samples = golden.made(out / "model.onnx", "onnxruntime", variant.input, split=None, threads=1, seed=0)
    (out / bundle.PAGE).write_text(render_html([of(document, out)]))
    bundle.write(
        out,
        document,
        variant,
        serve="onnxruntime",
        golden=samples,
        license="apache-2.0",
        beside=[bundle.PAGE],
    )
    return out


@pytest.fixture
def folder(tmp_path, made):
    return shutil.copytree(made, tmp_path / made.name)


@pytest.fixture
def pictures(tmp_path):
    """A folder of each colour, of pictures larger than the model's input."""
    colours = {"blue": (10, 20, 250), "green": (10, 250, 20), "<red>": (250, 20, 10)}
    place = tmp_path / "pictures"
    for name, colour in colours.items():
        (place / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((40, 30, 3), colour, dtype=np.uint8) - np.uint8(number)
            Image.fromarray(pixels).save(place / name / f"{number}.png")
    return place
