"""A picture has the same pixels wherever slimcv looks at it, nearly so where a JPEG is decoded small."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from slimcv import data, runtimes
from slimcv.data.batches import batches, gather, normalise
from slimcv.data.decoding import decode
from slimcv.data.normalisation import normalised
from slimcv.measure.accuracy import predict_pixels
from slimcv.models import capture
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 20, 24)


def scene(random, height, width):
    """Something like a photograph: soft shapes, edges and texture."""
    soft = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    pixels = np.asarray(soft).astype(float)
    pixels[height // 3 :, width // 2 :] = 255 - pixels[height // 3 :, width // 2 :]
    return Image.fromarray((pixels + random.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture
def source(tmp_path):
    random = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / f"data/{'ab'[number % 2]}/{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(random, *[(60, 80), (240, 200), (20, 24)][number % 3]).save(path, quality=92)
    return str(tmp_path / "data")


def test_cached_streamed_temporary_and_single_pictures_are_equal(source, tmp_path):
    single = None
    for options in ({}, {"cache_limit": 0}, {"keep": False}, {"input": INPUT, "cache": tmp_path / "other"}):
        split = data.load(source, **options).train
        alone = np.stack([decode(path, *INPUT.shape[1:], 3) for path in split.paths])
        found = split.pixels(INPUT.height, INPUT.width, 3)
        assert np.array_equal(np.asarray(found), alone)
        single = alone if single is None else single
        assert np.array_equal(alone, single)


def test_training_calibration_and_evaluation_see_the_very_same_numbers(source, tmp_path):
    """The exported artifact tells what it was given: it is the identity."""
    split = data.load(source).train
    pixels = split.pixels(INPUT.height, INPUT.width, 3)
    single = [decode(path, INPUT.height, INPUT.width, 3) for path in split.paths]
    alone = np.concatenate([normalised(picture[None], INPUT) for picture in single])
    training = normalise(gather(pixels, np.arange(len(split))), INPUT).numpy()
    calibration = torch.cat([x for x, _, _ in batches(pixels, split.labels, INPUT, batch_size=7)]).numpy()
    evaluation = predict_pixels(Runtime(identity(tmp_path)), pixels, INPUT, batch=5)
    for found in (training, calibration, evaluation):
        assert np.array_equal(found, alone)


def identity(folder):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *INPUT.shape]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, folder / "identity.onnx")
    return folder / "identity.onnx"


class Runtime:
    """The exported artifact in ONNX Runtime."""

    input_format = "float-nchw"

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def predict(self, x):
        return self.session.run(None, {"x": x})[0]


@pytest.mark.parametrize("fed", ["float-nchw", "uint8-nhwc"])
def test_a_file_that_was_exported_sees_the_very_same_numbers(source, tmp_path, fed):
    split = data.load(source).train
    pixels = split.pixels(INPUT.height, INPUT.width, 3)
    through = Variant(capture.capture(nn.Flatten(), INPUT), INPUT, details={"input_format": fed})
    path = runtimes.write(through, "onnxruntime", tmp_path)
    exported = runtimes.prepare(path, "onnxruntime", threads=1)
    assert exported.input_format == fed
    found = predict_pixels(exported, pixels, INPUT, batch=5)
    expected = normalise(gather(pixels, np.arange(len(split))), INPUT).flatten(1).numpy()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_a_jpeg_decoded_at_reduced_scale_has_nearly_the_pixels_of_a_whole_one(tmp_path, factor):
    """Bounds in grey levels of 255: the mean difference, and the largest of any pixel."""
    scene(np.random.default_rng(factor), 48 * factor, 64 * factor).save(tmp_path / "a.jpg", quality=92)
    with Image.open(tmp_path / "a.jpg") as image:
        image.load()
        whole = decode(image, 48, 64, 3).astype(int)
    with Image.open(tmp_path / "a.jpg") as image:
        image.draft(None, (128, 96))
        assert image.size[0] == 128
    difference = np.abs(decode(tmp_path / "a.jpg", 48, 64, 3) - whole)
    assert difference.mean() < 1
    assert difference.max() < 24
