"""A runtime's answers are compared with the network's own, and refused where they differ."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import data as datasets
from slimcv import parity, runtimes
from slimcv.errors import Rejected
from slimcv.models import capture
from slimcv.parity import Parity
from slimcv.step import Context, InputSpec, Variant

INPUT = InputSpec(3, 12, 12)

AGREEING = Parity(
    precision="fp32",
    pictures=50,
    max_abs_diff=1e-6,
    scale=1.0,
    relative_error=1e-6,
    agreement=100.0,
    allowed=1e-4,
)
HALF = replace(AGREEING, precision="bf16", allowed=parity.HALF_TOLERANCE, max_abs_diff=0.04)
INT8 = replace(AGREEING, precision="int8", allowed=parity.INT8_TOLERANCE, relative_error=0.04)


def variant(seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    return Variant(capture.capture(network, INPUT), INPUT)


def context(folder: Path, data=None):
    return Context(variant(), data, folder, threads=1, train_threads=1)


def dataset(folder: Path):
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(15):
            pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    return datasets.load(str(folder / "pictures"), cache=folder / "cache")


@pytest.mark.parametrize(
    ("found", "int8"),
    [
        (AGREEING, False),
        (HALF, False),
        (replace(INT8, max_abs_diff=0.5, agreement=98.0), True),
    ],
)
def test_each_precision_has_its_own_bound(found, int8):
    assert parity.objection(found, int8=int8) is None


@pytest.mark.parametrize(
    ("found", "int8", "said"),
    [
        (replace(AGREEING, max_abs_diff=1e-3), False, "largest difference"),
        (replace(AGREEING, max_abs_diff=float("nan")), False, "largest difference"),
        (replace(HALF, max_abs_diff=0.06), False, "largest difference"),
        (replace(HALF, agreement=98.0), False, "the same class"),
        (replace(INT8, relative_error=0.17), True, "relative error"),
        (replace(INT8, agreement=96.0), True, "the same class"),
    ],
)
def test_what_lies_outside_is_objected_to(found, int8, said):
    reason = parity.objection(found, int8=int8)
    assert reason is not None
    assert said in reason


def test_classes_nearer_than_the_tolerance_count_as_the_same():
    class Swapped:
        runtime = "eager"
        precision = "fp32"
        input_format = "float-nchw"

        def predict(self, batch):
            with torch.no_grad():
                answers = made.model(torch.from_numpy(batch)).numpy()
            return answers[:, ::-1].copy()

    made = variant()
    batch = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    assert parity.compare(made, Swapped(), batch, tolerance=1e-4).agreement < 100.0
    assert parity.compare(made, Swapped(), batch, tolerance=10.0).agreement == 100.0


def test_the_file_of_the_network_is_accepted_and_that_of_another_one_rejected(tmp_path):
    path = runtimes.write(variant(seed=0), "onnxruntime", tmp_path)
    here = context(tmp_path)
    found = parity.prove(variant(seed=0), path, "onnxruntime", context=here, tolerance=1e-4)
    assert found["max_abs_diff"] <= 1e-4 * found["scale"]
    with pytest.raises(Rejected, match="onnxruntime answers otherwise"):
        parity.prove(variant(seed=1), path, "onnxruntime", context=here, tolerance=1e-4)


def moved(made, by, **details):
    rungs = [{"taken": True, "error": by}, {"taken": False, "error": 0.01}, {"taken": True, "error": None}]
    return replace(made, precision="int8", details={"quantize_int8": {"rungs": rungs}, **details})


def test_kernels_may_add_as_much_to_an_int8_network_as_its_integers_did():
    expected = np.float32([[1.0, 0.0], [0.0, 1.0]])
    answers = expected + np.float32([[0.0, 0.3], [0.3, 0.0]])

    def reason(made):
        found = parity.compared(made, expected, answers, precision="int8", tolerance=1e-3)
        return parity.objection(found, int8=True)

    assert reason(moved(variant(), 0.4)) is None
    assert "allowed 0.2" in reason(moved(variant(), 0.2))
    assert "allowed 0.05" in reason(moved(variant(), 0.001))
    assert "allowed 0.05" in reason(moved(variant(), 0.4, finetune_int8={}))


def test_where_kernels_moved_an_int8_network_by_more_than_usual_its_gate_is_to_judge():
    def left(made, by):
        made = replace(made, details={"openvino": {"relative_error": by}})
        return parity.left_to_the_gate(made, "openvino")

    int8 = replace(variant(), precision="int8")
    assert left(int8, 0.2)
    assert not left(int8, 0.04)
    assert not left(variant(), 0.2)
    assert not parity.left_to_the_gate(int8, "onnxruntime")


@pytest.mark.parametrize("runtime", runtimes.EXACT)
def test_a_file_of_another_graph_is_rejected_however_much_the_integers_moved(tmp_path, runtime):
    path = runtimes.write(variant(seed=0), runtime, tmp_path)
    parity.prove(moved(variant(seed=0), 10.0), path, runtime, context=context(tmp_path), tolerance=1e-3)
    with pytest.raises(Rejected, match=r"allowed 0\.05"):
        parity.prove(moved(variant(seed=1), 10.0), path, runtime, context=context(tmp_path), tolerance=1e-3)


def test_pictures_come_from_the_tuning_split_and_synthetic_ones_fill_up(tmp_path):
    data = dataset(tmp_path)
    chosen = parity.pictures(variant(), context(tmp_path, data))
    made = parity.pictures(variant(), context(tmp_path))
    assert chosen.shape == made.shape == (parity.PICTURES, 12, 12, 3)
    assert chosen.dtype == made.dtype == np.uint8
    assert np.array_equal(chosen[: len(data.tuning)], np.asarray(data.tuning.pixels(12, 12, 3)))


def test_two_exports_never_share_a_folder(tmp_path):
    here = context(tmp_path / "work")
    first, _ = parity.export(variant(), "onnxruntime", context=here, tolerance=1e-4)
    second, _ = parity.export(variant(seed=1), "onnxruntime", context=here, tolerance=1e-4)
    assert first != second
    assert first.is_file()
    assert second.is_file()


def test_a_step_that_changes_outputs_is_not_lossless(tmp_path):
    with pytest.raises(Rejected, match="not what they were"):
        parity.unchanged(variant(), variant(seed=1), context=context(tmp_path))
    parity.unchanged(variant(), variant(), context=context(tmp_path))


def test_a_precision_asked_for_stays_with_the_file(tmp_path):
    asked = replace(variant(), details={"inference_precision": "f32"})
    path = runtimes.write(asked, "openvino", tmp_path)
    assert "inference_precision" in path.read_text()
    assert runtimes.prepare(path, "openvino", threads=1).precision == "fp32"
