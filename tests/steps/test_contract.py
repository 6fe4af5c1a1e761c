"""What every step must keep to; a new file in slimcv/steps is tested here with no line added."""

import importlib
import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import nn

import slimcv.steps
from slimcv import data as datasets
from slimcv.errors import NotApplicable
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Stage, Step, Variant

INPUT = InputSpec(3, 32, 32)

FOLDER = Path(next(iter(slimcv.steps.__path__)))

RECIPES = Path(__file__).parents[2] / "recipes"

NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")

QUICK = {
    "finetune": {"epochs": 1, "batch": 8},
    "prune_weights": {"epochs": 1, "batch": 8},
    "cluster_weights": {"epochs": 1, "batch": 8},
    "quantize_int8": {"calibration_images": 8},
}
"""Parameters that make long work short; a step that is not here runs with its defaults."""


def step_class(name):
    module = importlib.import_module(f"slimcv.steps.{name}")
    return getattr(module, "".join(word.capitalize() for word in name.split("_")))


def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 8 * 8, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    ).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_noise):
    folder = tmp_path_factory.mktemp("data")
    write_noise(folder, size=32, each=12, classes=("blue", "green", "red"))
    return datasets.load(str(folder / "pictures"), cache=folder / "cache")


@pytest.fixture
def original():
    torch.manual_seed(0)
    return Variant(capture.capture(network(), INPUT), INPUT)


def test_the_folder_holds_steps():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_frozen_and_builds_from_its_defaults(name):
    step = step_class(name)()
    assert isinstance(step, Step)
    assert isinstance(step.stage, Stage)
    for key in type(step).model_fields:
        with pytest.raises(ValidationError):
            setattr(step, key, getattr(step, key))
    with pytest.raises(ValidationError):
        type(step)(no_such_parameter=1)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_documented(name):
    step = step_class(name)
    module = inspect.getmodule(step)
    assert module is not None
    assert module.__doc__
    assert module.__doc__.splitlines()[0].strip()
    assert step.__doc__
    assert step.apply.__doc__
    for key, field in step.model_fields.items():
        assert field.description, f"{name}.{key} has no description"


@pytest.mark.parametrize("name", NAMES)
def test_it_stands_in_a_recipe(name):
    used = set()
    for path in RECIPES.glob("*.yaml"):
        for entry in yaml.safe_load(path.read_text("utf-8"))["steps"]:
            roads = [[entry]] if isinstance(entry, str) else entry.get("either", [[entry]])
            used |= {
                name for road in roads for one in road for name in ([one] if isinstance(one, str) else one)
            }
    assert name in used


@pytest.mark.parametrize("name", NAMES)
def test_it_leaves_the_original_bit_identical_and_keeps_the_output_shape(name, original, data, tmp_path):
    before = {key: tensor.clone() for key, tensor in original.model.state_dict().items()}
    code, artifacts, details = original.model.code, dict(original.artifacts), dict(original.details)
    context = Context(original, data, tmp_path, threads=1, train_threads=1)
    given = replace(original, model=capture.copy(original.model))
    step = step_class(name)(**QUICK.get(name, {}))
    try:
        found = step.apply(given, context)
    except NotApplicable:
        found = None
    after = original.model.state_dict()
    assert original.model.code == code
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert (original.artifacts, original.details) == (artifacts, details)
    if found is not None:
        capture.set_training(found.model, False)
        with torch.no_grad():
            assert found.model(torch.zeros(2, *found.input.shape)).shape == (2, 3)
