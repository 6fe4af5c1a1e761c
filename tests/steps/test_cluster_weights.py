"""The step `cluster_weights`: few values for many weights, through training and INT8 into the file."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from slimcv import runtimes
from slimcv.errors import NotApplicable
from slimcv.steps.cluster_weights import ClusterWeights
from slimcv.steps.finetune import Finetune
from slimcv.steps.fuse_conv_bn import FuseConvBn
from slimcv.steps.prune_weights import PruneWeights
from slimcv.steps.quantize_int8 import QuantizeInt8
from slimcv.steps.quantize_weights import QuantizeWeights


def kernels(variant):
    return {name: weight.detach() for name, weight in variant.model.named_parameters() if weight.ndim > 1}


def integers(variant, folder):
    """Distinct values and zeros of every weight as the exported file holds it."""
    path = runtimes.write(variant, "onnxruntime", folder)
    stored = [numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer]
    return [values for values in stored if values.dtype == np.int8 and values.ndim > 1]


@pytest.fixture(scope="module")
def sparse(handwriting, tmp_path_factory):
    """Pruned, with its norms folded."""
    context = handwriting.context(tmp_path_factory.mktemp("sparse"))
    pruned = PruneWeights(sparsity=0.6, epochs=3, lr=0.003).apply(handwriting.fresh(), context)
    return FuseConvBn().apply(pruned, context)


@pytest.fixture(scope="module")
def clustered(handwriting, sparse, tmp_path_factory):
    context = handwriting.context(tmp_path_factory.mktemp("clustered"))
    return ClusterWeights(clusters=16, epochs=2, lr=0.001).apply(sparse, context)


@pytest.fixture
def fused(handwriting, tmp_path):
    return FuseConvBn().apply(handwriting.fresh(), handwriting.context(tmp_path))


def test_every_layer_has_few_values_its_zeros_and_the_accuracy(handwriting, sparse, clustered, tmp_path):
    zeros = {name: weight == 0 for name, weight in kernels(sparse).items()}
    for name, weight in kernels(clustered).items():
        assert 2 < len(weight.unique()) <= 16
        assert (weight == 0).equal(zeros[name])
    assert clustered.details["cluster_weights"]["values"].keys() == zeros.keys()
    before = handwriting.top1(handwriting.fresh(), tmp_path)
    assert handwriting.top1(clustered, tmp_path) >= before - 2


def test_training_improves_the_values_that_k_means_found(handwriting, fused, tmp_path):
    context = handwriting.context(tmp_path)
    found = [
        ClusterWeights(clusters=4, epochs=epochs, lr=0.002).apply(handwriting_copy(fused), context)
        for epochs in (0, 3)
    ]
    assert all(len(weight.unique()) <= 4 for variant in found for weight in kernels(variant).values())
    once, trained = (handwriting.top1(variant, tmp_path) for variant in found)
    assert trained > once + 3


def handwriting_copy(variant):
    from dataclasses import replace

    from slimcv.models import capture

    return replace(variant, model=capture.copy(variant.model))


def test_each_output_can_have_values_of_its_own(handwriting, fused, tmp_path):
    step = ClusterWeights(clusters=4, per="channel", init="kmeans++", epochs=0, exclude=["12"])
    found = kernels(step.apply(handwriting_copy(fused), handwriting.context(tmp_path, data=None)))
    assert found["12.weight"].equal(kernels(fused)["12.weight"])
    for name in ("0.weight", "3.weight", "7.weight"):
        assert all(len(row.unique()) <= 4 for row in found[name])
        assert len(found[name].unique()) > 4


@pytest.mark.slow
def test_they_stay_through_int8_and_its_training_into_the_exported_file(handwriting, clustered, tmp_path):
    context = handwriting.context(tmp_path)
    quantized = QuantizeInt8(preserve=["sparsity", "clusters"], calibration_images=64).apply(
        clustered, context
    )
    trained = Finetune(epochs=1, lr=0.001, ema=0).apply(quantized, context)
    wanted = {weight.shape: weight.numpy() for weight in kernels(clustered).values()}
    for variant in (quantized, trained):
        stored = integers(variant, tmp_path)
        assert len(stored) == len(wanted)
        for values in stored:
            floats = wanted[values.shape]
            assert len(np.unique(values)) <= 16
            assert (values[floats == 0] == 0).all()
            for value in np.unique(floats):
                assert len(np.unique(values[floats == value])) == 1
    assert quantized.details["quantize_int8"]["equalize"] is False
    assert handwriting.top1(trained, tmp_path) >= handwriting.top1(clustered, tmp_path) - 2


def test_without_preserve_int8_would_make_more_of_them(handwriting, clustered, tmp_path):
    context = handwriting.context(tmp_path)
    lost = QuantizeInt8(calibration_images=16).apply(handwriting_copy(clustered), context)
    assert max(len(np.unique(values)) for values in integers(lost, tmp_path)) > 32


def test_weights_alone_as_integers_keep_them_too(handwriting, clustered, tmp_path):
    kept, lost = (
        QuantizeWeights(preserve=preserve).apply(handwriting_copy(clustered), handwriting.context(tmp_path))
        for preserve in (["clusters"], [])
    )
    assert max(len(np.unique(values)) for values in integers(kept, tmp_path)) <= 16
    assert max(len(np.unique(values)) for values in integers(lost, tmp_path)) > 32


def test_norms_that_could_be_folded_must_be_folded_before(handwriting, tmp_path):
    with pytest.raises(NotApplicable, match="3 BatchNorms") as caught:
        ClusterWeights(epochs=0).apply(handwriting.fresh(), handwriting.context(tmp_path))
    assert "fuse_conv_bn before" in caught.value.hint


def test_too_small_a_network_is_not_applicable(handwriting, fused, tmp_path):
    with pytest.raises(NotApplicable, match="no layer has weights enough"):
        ClusterWeights(clusters=256, include=["12"], epochs=0).apply(fused, handwriting.context(tmp_path))
