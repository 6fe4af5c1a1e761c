"""The main job from Python."""

import numpy as np
import pytest
import torch
from torch import nn

import slimcv
from slimcv import bundle
from slimcv.errors import SlimcvError


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "export.yaml").write_text("steps: [export_onnx]")
    return str(tmp_path / "export.yaml")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def test_a_network_in_memory_becomes_a_bundle_and_stays_as_it_was(recipe, tmp_path):
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = slimcv.optimize(
        net, recipe=recipe, input="3x16x16", out=tmp_path / "out", threads=1, classes=("cat", "dog"), quick=True
    )
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert result.gate_met
    assert result.report["model"]["source"] == "Sequential"
    assert result.report["optimized"]["top1"] is None
    picture = np.zeros((20, 20, 3), np.uint8)
    assert result.load(threads=1).predict(picture).label in ("cat", "dog")
    assert bundle.read(result.folder).golden is not None


def test_a_file_gets_its_folder_by_its_name_and_the_same_call_repeats_the_report(
    recipe, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.save(network(), "net.pt")
    first = slimcv.optimize("net.pt", recipe=recipe, input="3x16x16", threads=1, license="mit", quick=True)
    assert first.folder.name == "net-slim"
    assert bundle.read(first.folder).license == "mit"
    again = slimcv.optimize("net.pt", recipe=recipe, input="3x16x16", threads=1, license="mit", quick=True)
    assert again.report["optimized"] == first.report["optimized"]
    assert again.speedup == first.speedup


def test_what_is_missing_is_said(recipe, tmp_path):
    with pytest.raises(SlimcvError, match="no name to call a folder by"):
        slimcv.optimize(network(), recipe=recipe, input="3x16x16")
    with pytest.raises(SlimcvError, match="budget soon"):
        slimcv.optimize(network(), recipe=recipe, input="3x16x16", out=tmp_path / "out", budget="soon")
    with pytest.raises(SlimcvError, match="cpu_fats"):
        slimcv.optimize(network(), recipe="cpu_fats", out=tmp_path / "out")
