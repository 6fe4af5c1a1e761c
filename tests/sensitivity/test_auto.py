"""`exclude: auto`: a step spares the layers that the table of `slimcv sensitivity` ranks worst."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from slimcv import data as datasets
from slimcv import recipe
from slimcv.models import capture
from slimcv.run import Run
from slimcv.sensitivity import analysis
from slimcv.step import Context, InputSpec, Variant

INPUT = InputSpec(3, 12, 12)

STEPS = {
    "prune_weights": ("prune_50", {"epochs": 0, "sparsity": 0.5}),
    "cluster_weights": ("cluster_16", {"epochs": 0, "clusters": 16}),
    "low_rank": ("rank_half", {"rank": 4, "round_to": 1, "calibration_images": 16}),
    "depthwise_separable": ("depthwise_separable", {"calibration_images": 16}),
}
"""The treatment of each step, and parameters that train nothing."""


def network():
    """Small layers of every kind that bear much and little, a norm to fold, and a large dense one."""
    torch.manual_seed(1)
    made = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 48, 1), nn.ReLU(),
        nn.MaxPool2d(4), nn.Flatten(), nn.Linear(48 * 9, 128), nn.ReLU(), nn.Linear(128, 2),
    )  # fmt: skip
    with torch.no_grad():
        made[1].running_var.uniform_(0.01, 4.0)
        made[1].running_mean.uniform_(-0.5, 0.5)
    return made.eval()


@pytest.fixture(scope="module")
def table(tmp_path_factory, write_noise):
    """The context, and the rows of the table of layers by name."""
    folder = tmp_path_factory.mktemp("auto")
    write_noise(folder, size=12, each=24)
    data = datasets.load(str(folder / "pictures"), cache=folder / "cache", input=INPUT)
    variant = Variant(capture.capture(network(), INPUT), INPUT, data.classes)
    context = Context(variant, data, folder / "work", threads=1, train_threads=1)
    with Run.open(folder / "run", identity={}) as run:
        rows = [record.details for record in analysis.analyse(context, run, images=32)][1:]
    return context, {row["name"]: row for row in rows}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_spares_what_the_table_ranks_worst(name, table, tmp_path):
    context, rows = table
    treatment, parameters = STEPS[name]
    given = context.teacher
    if name == "cluster_weights":
        fuse = recipe.step_class("fuse_conv_bn")()
        given = fuse.apply(replace(given, model=capture.copy(given.model)), context)
    step = recipe.step_class(name)(exclude="auto", **parameters)
    applied = step.apply(replace(given, model=capture.copy(given.model)), replace(context, workdir=tmp_path))

    errors = {
        layer: row["treatments"][treatment]["error"]
        for layer, row in rows.items()
        if row["treatments"][treatment]["error"] is not None
    }
    room = 0.1 * sum(row["weights"] for row in rows.values())
    left = sum(error**2 for error in errors.values()) / 2
    spared, remaining = [], math.fsum(error**2 for error in errors.values())
    for layer in sorted(errors, key=errors.__getitem__, reverse=True):
        if remaining > left and rows[layer]["weights"] <= room:
            spared.append(layer)
            room -= rows[layer]["weights"]
            remaining -= errors[layer] ** 2
    assert spared
    assert len(spared) < len(errors)
    for layer in spared:
        before, after = given.model.get_submodule(layer), applied.model.get_submodule(layer)
        assert type(after) is type(before)
        assert torch.equal(after.weight, before.weight)
    changed = [
        layer for layer in errors if layer not in spared and not same(given.model, applied.model, layer)
    ]
    assert changed, "the others are treated"
    if name != "low_rank":
        assert applied.details[name]["exclude"] == spared


def same(before, after, layer):
    one, other = (model.get_submodule(layer) for model in (before, after))
    return type(one) is type(other) and torch.equal(one.weight, other.weight)
