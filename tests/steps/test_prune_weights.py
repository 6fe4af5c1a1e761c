"""The step `prune_weights`: as many zeros as asked for, that stay, for little accuracy and a smaller file."""

import zlib

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from pydantic import ValidationError

from slimcv import runtimes
from slimcv.errors import NotApplicable
from slimcv.steps.finetune import Finetune
from slimcv.steps.fuse_conv_bn import FuseConvBn
from slimcv.steps.prune_weights import PruneWeights
from slimcv.steps.quantize_int8 import QuantizeInt8
from slimcv.surgery import magnitude

TRAINING = {"epochs": 4, "lr": 0.003}


def kernels(variant):
    return {name: weight for name, weight in variant.model.named_parameters() if weight.ndim > 1}


@pytest.fixture(scope="module")
def pruned(handwriting, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    return PruneWeights(sparsity=0.8, **TRAINING).apply(handwriting.fresh(), handwriting.context(folder))


def test_the_zeros_asked_for_are_reached_and_the_accuracy_is_kept(handwriting, pruned, tmp_path):
    assert magnitude.sparsity(list(kernels(pruned).values())) == pytest.approx(0.8, abs=1e-3)
    assert pruned.details["prune_weights"]["sparsity"] == pytest.approx(0.8, abs=1e-3)
    before = handwriting.top1(handwriting.fresh(), tmp_path)
    assert before > 95
    assert handwriting.top1(pruned, tmp_path) >= before - 2


def test_a_compressed_file_is_half_as_large(handwriting, pruned, tmp_path):
    sizes = [
        len(zlib.compress(runtimes.write(variant, "onnxruntime", tmp_path).read_bytes(), 9))
        for variant in (handwriting.fresh(), pruned)
    ]
    assert sizes[1] < 0.5 * sizes[0]


def test_training_afterwards_keeps_them(handwriting, pruned, tmp_path):
    zeros = {name: weight == 0 for name, weight in kernels(pruned).items()}
    context = handwriting.context(tmp_path)
    kept = Finetune(epochs=1, lr=0.003).apply(pruned, context)
    assert all((weight == 0).equal(zeros[name]) for name, weight in kernels(kept).items())
    assert kept.details["finetune"]["epochs"] == 1


@pytest.mark.slow
def test_they_stay_through_fusing_and_int8_with_its_training_into_the_exported_file(
    handwriting, pruned, tmp_path
):
    context = handwriting.context(tmp_path)
    wanted = {name: weight.detach() == 0 for name, weight in kernels(pruned).items()}
    quantized = QuantizeInt8(preserve=["sparsity"], calibration_images=64).apply(
        FuseConvBn().apply(pruned, context), context
    )
    trained = Finetune(epochs=2, lr=0.003, ema=0).apply(quantized, context)
    assert trained.details["finetune_int8"]["epochs"] == 2
    for variant in (quantized, trained):
        path = runtimes.write(variant, "onnxruntime", tmp_path)
        stored = [numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer]
        integers = [values for values in stored if values.dtype == np.int8 and values.ndim > 1]
        assert len(integers) == len(wanted)
        for name, zeros in wanted.items():
            found = next(values for values in integers if values.shape == zeros.shape)
            assert (found[zeros.numpy()] == 0).all(), name
        points = [tensor for name, tensor in variant.model.state_dict().items() if "zero_point" in name]
        assert points
        assert not any(point.any() for point in points), "scales are symmetric"
    assert handwriting.top1(trained, tmp_path) >= handwriting.top1(pruned, tmp_path) - 2


@pytest.mark.parametrize(("pattern", "share"), [("2:4", 0.5), ("1x4", 0.7), ("unstructured", 0.7)])
def test_without_epochs_or_pictures_all_go_at_once_in_the_pattern(handwriting, tmp_path, pattern, share):
    step = PruneWeights(pattern=pattern, epochs=0, exclude=["0"])
    assert not step.trains
    given = handwriting.fresh()
    found = step.apply(given, handwriting.context(tmp_path, data=None))
    matrices = {name: weight.movedim(1, -1).flatten(1) for name, weight in kernels(found).items()}
    assert int((matrices.pop("0.weight") == 0).sum()) == 0
    assert magnitude.sparsity(list(matrices.values())) == pytest.approx(share, abs=1e-2)
    if pattern != "unstructured":
        counts = {int(n) for each in matrices.values() for n in (each.reshape(-1, 4) == 0).sum(dim=1)}
        assert counts == ({2} if pattern == "2:4" else {0, 4})
    with_pictures = step.apply(handwriting.fresh(), handwriting.context(tmp_path))
    assert all(weight.equal(kernels(found)[name]) for name, weight in kernels(with_pictures).items())


@pytest.mark.parametrize(
    "wrong", [{"pattern": "4:2"}, {"pattern": "half"}, {"pattern": "2:4", "sparsity": 0.7}, {"sparsity": 1.0}]
)
def test_a_pattern_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        PruneWeights(**wrong)


def test_no_layer_chosen_is_not_applicable(handwriting, tmp_path):
    with pytest.raises(NotApplicable, match="chosen by include"):
        PruneWeights(include=["none"]).apply(handwriting.fresh(), handwriting.context(tmp_path))
    with pytest.raises(NotApplicable, match="of 4 inputs or more"):
        PruneWeights(include=["0"], pattern="2:4").apply(handwriting.fresh(), handwriting.context(tmp_path))


def test_it_says_that_it_saves_no_time():
    from slimcv import recipe

    assert "not for speed" in recipe.step_summary("prune_weights")
    assert "saves no time" in PruneWeights.__doc__
