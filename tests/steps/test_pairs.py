"""Every ordered pair of steps: what the recipe check lets through keeps what the first one gained.

Steps are those of the registry, so that a new one is tried with no line added: before it weights are pruned,
clustered or made integers, and afterwards zeros must be zeros, equal weights equal, integers integers.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from slimcv import recipe
from slimcv.errors import NotApplicable, Rejected, SlimcvError
from slimcv.models import capture
from slimcv.recipe import Entry, order
from slimcv.step import Context, InputSpec, Stage, Variant
from slimcv.train.settings import FinetuneSettings

INPUT = InputSpec(3, 16, 16)

SHORT = {"epochs": 1, "batch": 8, "lr": 0.003}

QUICK = {
    "finetune": SHORT,
    "prune_weights": SHORT | {"sparsity": 0.5},
    "cluster_weights": SHORT | {"clusters": 8},
    "quantize_int8": {"calibration_images": 8},
    "prune_channels": {"calibration_images": 8},
    "low_rank": {"rank": 8, "calibration_images": 8},
    "depthwise_separable": {"calibration_images": 8},
}
"""Parameters that make long work short, or give a small network something to do."""

OTHERS = [
    ("prune_weights", {"epochs": 0, "pattern": "2:4"}),
    ("prune_weights", {"epochs": 0, "sparsity": 0.3}),
    ("prune_channels", QUICK["prune_channels"] | {"correct": False}),
    ("finetune", SHORT | {"preserve": ("sparsity",)}),
    ("finetune", SHORT | {"preserve": ()}),
    ("fuse_conv_bn", {"absorb": True}),
    ("cluster_weights", {"epochs": 0, "clusters": 16}),
    ("cluster_weights", {"epochs": 0, "clusters": 16, "per": "channel"}),
    ("cluster_weights", {"epochs": 0, "clusters": 8, "preserve": ()}),
    ("quantize_int8", {"calibration_images": 8, "preserve": ("sparsity", "clusters"), "scale_bits": 7}),
    ("quantize_weights", {"per_channel": False}),
    ("quantize_weights", {"bits": 4, "preserve": ("clusters",), "scale_bits": 7}),
]

FIRST = [
    ("prune_weights", {"epochs": 0, "sparsity": 0.6}),
    ("prune_weights", {"epochs": 0, "pattern": "2:4"}),
    ("cluster_weights", {"epochs": 0, "clusters": 8}),
    ("cluster_weights", {"epochs": 0, "clusters": 4, "per": "channel"}),
    ("quantize_int8", {"calibration_images": 8}),
    ("quantize_weights", {}),
]

SECOND = [
    (name, QUICK.get(name, {}))
    for name in recipe.step_names()
    if recipe.step_class(name).stage < Stage.EXPORT
] + OTHERS

RECOVERING = ("fuse_conv_bn", "low_rank", "prune_channels", "quantize_int8", "reduce_resolution")


def network():
    """Something for every step: a dense layer on a map, norms, a 1×1 convolution."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, 2),
    ).eval()  # fmt: skip


@pytest.fixture
def context(data, tmp_path):
    variant = Variant(capture.capture(network(), INPUT), INPUT, data.classes)
    return Context(variant, data, tmp_path, threads=1, train_threads=1)


def entry(name, parameters, recover=None):
    settings = None if recover is None else FinetuneSettings(**recover)
    return Entry(name, recipe.step_class(name)(**parameters), settings)


def applied(one, variant, context):
    """What an entry makes of a variant, as the workbench does it; the same where it has nothing to do."""
    try:
        made = one.step.apply(replace(variant, model=capture.copy(variant.model)), context)
    except (NotApplicable, Rejected):
        return variant
    if one.recover is not None:
        finetune = recipe.step_class("finetune")(**one.recover.model_dump(exclude_unset=True))
        made = finetune.apply(made, context)
    return made


def weights(variant):
    """What layers hold, as floats or integers, by name."""
    return {
        name: tensor.detach()
        for name, tensor in variant.model.state_dict().items()
        if tensor.ndim > 1 and name.endswith("weight")
    }


def values(tensor):
    """How many distinct values there are in all, and in the output that has the most."""
    return len(torch.unique(tensor)), max(len(torch.unique(row)) for row in tensor.flatten(1))


def crowded(tensor):
    """How many groups of four neighbouring inputs have more than two weights that are not zero."""
    matrix = tensor.movedim(1, -1).flatten(1)
    groups = matrix[:, : matrix.shape[1] // 4 * 4].reshape(-1, 4)
    return int(((groups != 0).sum(1) > 2).sum())


def losses(before, after):
    """What of zeros, shared values and integers is gone, in words."""
    old, new = weights(before), weights(after)
    for name, tensor in old.items():
        found = new.get(name)
        if found is None:
            yield f"{name} is gone"
            continue
        if (tensor == 0).float().mean() > 0.05:
            if found.shape == tensor.shape and not (found[tensor == 0] == 0).all():
                yield f"{name}: weights that were zero are not"
            elif int((found != 0).sum()) > int((tensor != 0).sum()):
                yield f"{name}: more weights than before are not zero"
        if crowded(tensor) == 0 < crowded(found):
            yield f"{name}: groups of four have more than two weights"
        for what, was, now in zip(("layer", "output"), values(tensor), values(found), strict=True):
            if was <= 16 and now > was:
                yield f"{name}: {was} values of a {what} became {now}"
        if tensor.dtype == torch.int8 and found.dtype != torch.int8:
            yield f"{name}: no integers any more"


def admitted(*entries):
    try:
        order.check(entries, Path("pair.yaml"))
    except SlimcvError:
        return False
    return True


def told(pair):
    return pair[0] + "".join(f" {key}={value}" for key, value in pair[1].items() if key not in SHORT)


def start(first, context):
    """The network that a first step is given; norms are folded before weights share values."""
    if first == "prune_weights":
        return context.teacher
    return applied(entry("fuse_conv_bn", {}), context.teacher, context)


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRST, ids=told)
def test_whatever_the_recipe_check_lets_through_keeps_what_was_gained(first, context):
    given = start(first[0], context)
    before = applied(entry(*first), given, context)
    assert before is not given
    tried = set()
    for name, parameters in SECOND:
        for recover in (None, SHORT) if name in RECOVERING else (None,):
            second = entry(name, parameters, recover)
            if admitted(entry(*first), second):
                tried.add(name)
                found = list(losses(before, applied(second, before, context)))
                assert not found, (told(first), told((name, parameters)), recover, found)
    assert {"quantize_int8", "quantize_weights"} <= tried


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("prune_weights", ("low_rank", {})),
        ("prune_weights", ("depthwise_separable", {})),
        ("prune_weights", ("global_average_pool", {})),
        ("2:4", ("prune_channels", {"correct": False})),
        ("cluster_weights", ("quantize_int8", {})),
        ("cluster_weights", ("quantize_weights", {})),
        ("cluster_weights", ("low_rank", {})),
        ("cluster_weights", ("cluster_weights", {"per": "channel", "epochs": 0})),
    ],
)
def test_what_it_refuses_would_have_been_lost(first, second, context):
    name, parameters = second
    earlier = entry(*next(pair for pair in FIRST if first in (pair[0], pair[1].get("pattern"))))
    later = entry(name, QUICK.get(name, {}) | parameters)
    before = applied(earlier, start(earlier.name, context), context)
    assert not admitted(earlier, later)
    assert list(losses(before, applied(later, before, context)))
