"""Profiles of small networks, and the advice drawn from them."""

import ctypes
import json
import re
import warnings

import pytest
import torch
from torch import nn

from slimcv import report
from slimcv.measure import allocator
from slimcv.models.capture import capture
from slimcv.profile import profile, render
from slimcv.report import figures, reading
from slimcv.step import InputSpec, Variant


def variant_of(model, *, size=64):
    spec = InputSpec(3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Variant(capture(model, spec), spec)


def dense_head_network():
    """VGG-like: 3×3 convolutions and a dense layer on the flattened 16×16 map."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(16),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.4),
        nn.Linear(32 * 16 * 16, 64),
        nn.ReLU(),
        nn.Linear(64, 5),
    )


class Separable(nn.Module):
    """Depthwise and pointwise convolutions, a residual sum and a pooled head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.pointwise(self.depthwise(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    return profile(variant_of(dense_head_network()), threads=1, name="net")


def test_layers_are_named_counted_and_shaped_in_the_order_of_the_network(dense):
    layers = {layer.name: layer for layer in dense.layers}
    first = dense.layers[0]
    assert (first.name, first.kind, first.output) == ("0", "3×3 convolution", (16, 64, 64))
    assert first.parameters == 3 * 16 * 9 + 16
    assert first.macs == 64 * 64 * 3 * 16 * 9
    assert (layers["9"].kind, layers["9"].output, layers["9"].macs) == ("linear", (64,), 32 * 16 * 16 * 64)
    assert layers["2"].kind == "batch norm"


def test_totals_are_those_of_the_layers(dense):
    assert sum(layer.parameters for layer in dense.layers) == dense.totals.parameters
    assert sum(layer.macs for layer in dense.layers) == dense.totals.macs
    assert sum(layer.share for layer in dense.layers) == pytest.approx(1)
    assert sum(layer.ms for layer in dense.layers) == pytest.approx(dense.totals.layers_ms)
    assert sum(kind.ms for kind in dense.by_kind) == pytest.approx(dense.totals.layers_ms)
    assert sum(kind.layers for kind in dense.by_kind) == len(dense.layers)


def test_the_layers_together_take_about_as_long_as_a_call(dense):
    assert dense.totals.layers_ms > 0
    assert 0 <= dense.totals.between_layers < 0.7


def test_peak_memory_is_that_of_the_tensors_alive_together(dense):
    largest = 16 * 64 * 64 * 4
    assert dense.totals.peak_activation_bytes == 2 * largest
    assert dense.totals.peak_activation_layer in ("relu", "0", "2")
    assert dense.totals.weight_bytes >= 4 * dense.totals.parameters
    assert dense.totals.peak_rss_bytes is None or dense.totals.peak_rss_bytes >= dense.totals.weight_bytes


def test_advice_about_a_step_has_the_figures_of_its_prediction(dense):
    known = {one["step"]: one for one in dense.predictions}
    told = [advice for advice in dense.advice if advice.saved_ms is not None]
    assert told
    for advice in told:
        one = known[advice.step]
        assert (advice.saved_ms, advice.saved_bytes) == (one["saved_ms"], one["saved_bytes"])
        assert advice.share == pytest.approx(
            one["saved_ms"] / one["before_ms"]
            if advice.of == "time"
            else one["saved_bytes"] / one["before_bytes"]
        )
        assert not (one["verdict"] and advice.of == "time")


def test_a_pooled_network_is_not_told_to_pool():
    found = profile(variant_of(Separable(), size=32), threads=1)
    kinds = {layer.name: layer.kind for layer in found.layers}
    assert kinds["stem"] == "5×5 convolution"
    assert kinds["depthwise"] == "depthwise convolution"
    assert kinds["pointwise"] == "pointwise convolution"
    assert "element-wise" in kinds.values()
    steps = {advice.step for advice in found.advice}
    assert "global_average_pool" not in steps
    assert "reduce_resolution" not in steps


def test_profiling_leaves_weights_and_thread_count_alone():
    variant = variant_of(Separable(), size=32)
    before = {name: tensor.clone() for name, tensor in variant.model.state_dict().items()}
    threads = torch.get_num_threads()
    profile(variant, threads=2)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(before[name], tensor) for name, tensor in variant.model.state_dict().items())


@pytest.mark.skipif(not allocator.tunable(), reason="this C library has no allocator to tune")
def test_the_tuned_allocator_is_compared_with_the_calls_before_it_was(limits):
    found = profile(variant_of(Separable(), size=32), threads=1, limits=limits, allocators=True)
    assert found.totals.default_allocator_ms == found.totals.call_ms
    assert found.totals.tuned_allocator_ms > 0
    told = [line for line in render(found, "markdown").splitlines() if "allocator as it is" in line]
    assert any(figures.milliseconds(found.totals.tuned_allocator_ms) in line for line in told)
    check = next(check for check in found.lint if check.rule == "allocator")
    assert (check.now_ms, check.fixed_ms) == (
        found.totals.default_allocator_ms,
        found.totals.tuned_allocator_ms,
    )


def test_an_allocator_that_cannot_be_tuned_is_left_as_it_is_and_not_compared(limits, monkeypatch, caplog):
    real = ctypes.CDLL
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name, *more, **how: object() if name is None else real(name, *more, **how)
    )
    found = profile(variant_of(Separable(), size=32), threads=1, limits=limits, allocators=True)
    assert (found.totals.default_allocator_ms, found.totals.tuned_allocator_ms) == (None, None)
    assert "allocator" not in {check.rule for check in found.lint}
    assert allocator.UNTUNED in caplog.messages


def test_json_holds_every_layer_and_is_strict(dense):
    values = json.loads(render(dense, "json"), parse_constant=pytest.fail)
    assert values["schema_version"] == 1
    assert values["model"]["name"] == "net"
    assert values["model"]["input"] == "3x64x64"
    assert len(values["layers"]) == len(dense.layers)
    assert set(values["advice"][0]) >= {"text", "step", "share"}
    assert values["totals"]["default_allocator_ms"] is None
    assert values["by_kind"]
    assert {check["rule"] for check in values["lint"]} >= {"threads", "denormals", "compiler", "int8"}


def test_what_is_printed_as_json_is_read_back_by_report(dense, tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(render(dense, "json"))
    assert reading.read(path).document == json.loads(path.read_text())


def test_text_fits_a_terminal_and_ends_with_advice_and_lint(dense):
    text = render(dense, "text")
    assert max(len(line) for line in text.splitlines()) <= 80
    words = " ".join(text.split())
    assert "averaging the 256 positions first leaves about 2.05 k" in words
    assert "peak memory while predicting, weights included" in words
    assert "allocator" not in words
    assert "What this CPU makes of it" in words
    assert "in order: " in words


def test_a_name_from_a_foreign_file_cannot_move_the_cursor(dense):
    values = dense.as_json()
    values["totals"]["peak_activation_layer"] = "relu\x1b[2J"
    values["predictions"] = [{**one, "problem": "no \x1b[2J"} for one in values["predictions"]]
    assert "\x1b" not in report.render_profile(values, "text")


def test_every_step_s_line_is_there_to_paste(dense):
    values = dense.as_json()
    for one in values["predictions"]:
        one["problem"] = one["problem"] if one["step"] != "low_rank" else None
    foretold = [one["step"] for one in values["predictions"] if one["problem"] is None]
    title = "for a recipe's steps, a line for each of them alone"
    for format in ("text", "markdown"):
        text = report.render_profile(values, format)
        _, _, after = text.partition(f"{title}:")
        lines = [line for line in after.splitlines() if line.startswith("  - ")][: len(foretold)]
        assert [re.findall(r"\w+", line)[0] for line in lines] == foretold
        assert "  - {low_rank: {}, recover: {}}" in lines


PLUGIN = """
from typing import ClassVar

from pydantic import model_validator

from slimcv.step import Stage, Step


class Needy(Step):
    stage: ClassVar[Stage] = Stage.SURGERY
    strength: float

    def apply(self, variant, context):
        return variant


class Picky(Step):
    stage: ClassVar[Stage] = Stage.SURGERY
    strength: float = 2.0

    @model_validator(mode="after")
    def check(self):
        raise ValueError("a strength of 2 is too much")

    def apply(self, variant, context):
        return variant
"""


def test_another_package_s_step_without_defaults_is_a_row_and_no_end(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text(PLUGIN)
    metadata = tmp_path / "needy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: needy\nVersion: 1.0\n")
    points = "[slimcv.steps]\nneedy = needy:Needy\npicky = needy:Picky\n"
    (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    found = profile(variant_of(Separable(), size=32), threads=1, repeats=1)
    problems = {one["step"]: one["problem"] for one in found.predictions}
    assert problems["needy"] == "needs the parameter strength"
    assert problems["picky"].startswith("its defaults are refused: ")
    words = " ".join(render(found, "text").split())
    assert "needy: needs the parameter strength" in words.partition("not foretold: ")[2]


def test_markdown_escapes_the_names_of_layers(dense):
    values = dense.as_json()
    values["layers"][0]["name"] = "a|b"
    values["model"]["name"] = "<b>x</b>"
    text = report.render_profile(values, "markdown")
    assert r"| a\|b |" in text
    assert r"\<b\>x\</b\>" in text
