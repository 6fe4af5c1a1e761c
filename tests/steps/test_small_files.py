"""Pruned, clustered and quantised: each makes the packed file smaller, and the last still reads digits."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import slimcv
from slimcv import packed
from slimcv.steps.cluster_weights import ClusterWeights
from slimcv.steps.export_onnx import ExportOnnx
from slimcv.steps.finetune import Finetune
from slimcv.steps.fuse_conv_bn import FuseConvBn
from slimcv.steps.prune_weights import PruneWeights
from slimcv.steps.quantize_int8 import QuantizeInt8

CHAIN = {
    "fused": [FuseConvBn()],
    "pruned": [PruneWeights(sparsity=0.6, epochs=4, lr=0.003)],
    "clustered": [ClusterWeights(clusters=16, epochs=2, lr=0.001)],
    "quantised": [
        QuantizeInt8(preserve=["sparsity", "clusters"], scale_bits=7, calibration_images=64),
        Finetune(epochs=1, lr=0.001, ema=0),
    ],
}


def top1(path, split):
    """Percentage that the packed file itself gets right."""
    outputs = slimcv.load(path, threads=1).outputs(np.asarray(split.pixels(8, 8, 3)))
    return 100 * float(np.mean(outputs.argmax(axis=1) == split.labels))


@pytest.mark.slow
def test_each_step_of_the_chain_makes_the_packed_file_smaller_and_all_of_them_ten_times(
    handwriting, tmp_path
):
    variant, context = handwriting.fresh(), handwriting.context(tmp_path)
    original = tmp_path / "original.pt"
    torch.save(variant.model.state_dict(), original)
    floats = handwriting.top1(variant, tmp_path)
    sizes = {}
    for name, steps in CHAIN.items():
        for step in steps:
            variant = step.apply(variant, context)
        exported = ExportOnnx().apply(replace(variant, artifacts={}), context)
        path = tmp_path / f"{name}.slim"
        packed.pack(exported.artifacts["onnxruntime"], out=path, strip=True)
        sizes[name] = path.stat().st_size
    assert all(after < before for before, after in pairwise(sizes.values())), sizes
    assert original.stat().st_size >= 10 * sizes["quantised"]
    assert top1(path, handwriting.data.val) >= floats - 1
