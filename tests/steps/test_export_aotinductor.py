"""The step `export_aotinductor`: it runs where there is no compiler, and is shipped where it is asked for."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import slimcv
from slimcv import bundle, runtimes
from slimcv.errors import NotApplicable, SlimcvError
from slimcv.models import capture
from slimcv.runtimes import eager
from slimcv.step import Context, InputSpec, Stage, Variant
from slimcv.steps.export_aotinductor import ExportAotinductor

INPUT = InputSpec(3, 8, 8)

WHERE_IT_RUNS = """
import sys
from pathlib import Path
import numpy as np
from slimcv import runtimes

prepared = runtimes.prepare(Path(sys.argv[1]), "aotinductor", threads=1)
np.save(sys.argv[3], prepared.predict(np.load(sys.argv[2])))
print(prepared.precision)
"""


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    return nn.Sequential(*layers).eval()


@pytest.fixture
def variant():
    return Variant(capture.capture(network(), INPUT), INPUT)


def test_pictures_of_one_channel_are_answered_as_the_network_does(tmp_path):
    """The channel that is moved to the front leaves strides that look like channels_last."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 8 * 8, 3)
    gray = InputSpec(1, 12, 12, mean=(0.5,), std=(0.25,))
    variant = Variant(capture.capture(nn.Sequential(*layers).eval(), gray), gray)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 1), np.uint8)
    prepared = runtimes.prepare(runtimes.write(variant, "aotinductor", tmp_path), "aotinductor", threads=1)
    expected = runtimes.answer(eager.in_memory(variant.model, threads=1), pixels, gray)
    np.testing.assert_allclose(runtimes.answer(prepared, pixels, gray), expected, rtol=1e-4, atol=1e-5)


def without_compiler():
    return {**{name: value for name, value in os.environ.items() if name != "CXX"}, "PATH": ""}


def test_the_step_exports_and_changes_nothing():
    assert ExportAotinductor.stage is Stage.EXPORT
    assert ExportAotinductor.lossless


def test_without_a_compiler_it_is_not_applicable(variant, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NotApplicable, match=r"C\+\+ compiler"):
        ExportAotinductor().apply(variant, Context(variant, None, tmp_path, threads=1, train_threads=1))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_package_answers_like_the_network_where_there_is_no_compiler(variant, tmp_path):
    made = ExportAotinductor().apply(variant, Context(variant, None, tmp_path, threads=1, train_threads=1))
    assert made.runtime == "aotinductor"
    assert made.details["aotinductor"]["max_abs_diff"] < 1e-3
    pixels = np.random.default_rng(0).standard_normal((3, *INPUT.shape), dtype=np.float32)
    np.save(tmp_path / "pixels.npy", pixels)
    words = [made.artifacts["aotinductor"], tmp_path / "pixels.npy", tmp_path / "answers.npy"]
    done = subprocess.run(
        [sys.executable, "-c", WHERE_IT_RUNS, *map(str, words)],
        env=without_compiler(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "fp32\n"), done.stderr
    with torch.no_grad():
        expected = network()(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_bundle_of_machine_code_is_made_and_run_for_whoever_asks_for_it(tmp_path):
    (tmp_path / "plain.yaml").write_text("steps: [fuse_conv_bn]")
    result = slimcv.optimize(
        network(),
        recipe=str(tmp_path / "plain.yaml"),
        input=str(INPUT),
        out=tmp_path / "out",
        threads=1,
        runtime="aotinductor",
        quick=True,
    )
    manifest = bundle.read(tmp_path / "out")
    assert manifest.serve.runtime == "aotinductor"
    assert manifest.serve.path == bundle.PLACES["aotinductor"]
    assert result.report["optimized"]["runtime"] == "aotinductor"
    with pytest.raises(SlimcvError, match="machine code"):
        slimcv.load(tmp_path / "out")
    picture = np.zeros((8, 8, 3), np.uint8)
    said = slimcv.load(tmp_path / "out", runtime="aotinductor", threads=1).predict(picture)
    beside = runtimes.prepare(tmp_path / "out" / "model.pt2", "eager", threads=1)
    answers = runtimes.answer(beside, picture[np.newaxis], INPUT)[0]
    probabilities = np.exp(answers) / np.exp(answers).sum()
    assert said.probabilities[0] == pytest.approx(probabilities.max(), abs=1e-4)
