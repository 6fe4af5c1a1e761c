"""The schema for editors says of recipes what the parser says, and comes from the same models."""

import json
import subprocess
import sys

import pytest
import yaml
from jsonschema import Draft202012Validator

from slimcv import recipe
from slimcv.errors import SlimcvError
from slimcv.gate import Gate
from slimcv.train.settings import FinetuneSettings


@pytest.fixture(scope="module")
def validator():
    return Draft202012Validator(recipe.recipe_schema())


def parses(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    try:
        recipe.load(str(path))
    except SlimcvError:
        return False
    return True


def test_it_is_a_schema_itself():
    Draft202012Validator.check_schema(recipe.recipe_schema())


@pytest.mark.parametrize("name", recipe.names())
def test_every_shipped_recipe_is_valid(validator, name):
    validator.validate(yaml.safe_load(recipe.find(name).read_text("utf-8")))


TAKEN = [
    "steps: [fuse_conv_bn]",
    "steps:\n- finetune:",
    "steps:\n- finetune: {}\n  gate:\n  recover:",
    "name: mine\ndescription: two words\nobjective: size\ngate: {max_drop: 0.5}\nsteps: [compile]",
    "gate: {confidence: 0.9, max_size: 100000}\nsteps: [compile]",
    "gate:\nsteps: [fuse_conv_bn]",
    "steps:\n- depthwise_separable: {rank: 2, include: ['layer*.conv?']}\n  recover: {epochs: 3}",
    "steps:\n- fuse_conv_bn: {}\n  gate: {max_step_drop: 1.0, max_drop: null}",
    "steps:\n- finetune: {budget: 90, memory: 4GB, batch: auto, checkpoint_every: 1m}",
    "steps:\n- finetune: {budget: 1h30m, memory: 3.5GiB, batch: 64, preserve: [clusters]}",
    "steps:\n- finetune: {budget: null, memory: 500 MB, lr: 0.002}",
    "steps:\n- finetune: {budget: 90s, memory: 4000000000}",
    "steps:\n- prune_weights: {pattern: '2:4'}",
    "steps:\n- prune_weights: {pattern: 1x4, exclude: auto}",
    "steps:\n- quantize_int8: {reduce_range: true, preserve: [sparsity, clusters]}",
    "steps:\n- quantize_int8: {reduce_range: auto}\n- export_onnx",
    "steps:\n- either: [[depthwise_separable], [prune_channels: {macs: 0.5}, finetune]]\n- fuse_conv_bn",
]

REFUSED = [
    "stps: [fuse_conv_bn]",
    "description: no steps",
    "steps: []",
    "steps: fuse_conv_bn",
    "steps: [[fuse_conv_bn]]",
    "steps: [3]",
    "steps: [fuse_conv_nb]",
    "steps: [gate]",
    "steps:\n- depthwise_seperable: {}",
    "steps:\n- depthwise_separable: {rnak: 2}",
    "steps:\n- depthwise_separable: {rank: 0}",
    "steps:\n- depthwise_separable: {rank: many}",
    "steps:\n- depthwise_separable: 2",
    "steps:\n- depthwise_separable: [2]",
    "steps:\n- depthwise_separable: {include: conv1}",
    "steps:\n- fuse_conv_bn: {}\n  finetune: {}",
    "steps:\n- recover: {epochs: 2}",
    "steps:\n- fuse_conv_bn: {}\n  recover: {epohcs: 1}",
    "steps:\n- fuse_conv_bn: {}\n  recover: 3",
    "steps:\n- fuse_conv_bn: {}\n  gate: {confidence: 0.9}",
    "steps:\n- fuse_conv_bn: {}\n  gate: {max_drop: -1}",
    "steps: [fuse_conv_bn]\ngate: {max_dorp: 1}",
    "steps: [fuse_conv_bn]\ngate: {max_step_drop: 1}",
    "steps: [fuse_conv_bn]\ngate: {min_speedup: 0}",
    "steps: [fuse_conv_bn]\nobjective: speed",
    "steps: [fuse_conv_bn]\nobjective:",
    "steps:\n- finetune: {budget: soon}",
    "steps:\n- finetune: {budget: 0}",
    "steps:\n- finetune: {memory: 4 barrels}",
    "steps:\n- finetune: {batch: 1}",
    "steps:\n- finetune: {schedule: linear}",
    "steps:\n- prune_weights: {pattern: 2-4}",
    "steps:\n- prune_weights: {pattern: 2:4}",
    "steps:\n- quantize_int8: {preserve: zeros}",
    "- fuse_conv_bn",
    "steps:\n- either: [[depthwise_separable]]",
    "steps:\n- either: [[depthwise_separable], []]",
    "steps:\n- either: [depthwise_separable, prune_channels]",
    "steps:\n- either: [[depthwise_separable], [prune_channels]]\n  gate: {max_drop: 1}",
    "steps:\n- either: [[depthwise_separable], [either: [[finetune], [prune_channels]]]]",
]


@pytest.mark.parametrize("text", TAKEN)
def test_what_the_parser_takes_is_valid(validator, tmp_path, text):
    assert parses(tmp_path, text)
    validator.validate(yaml.safe_load(text))


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_parser_refuses_is_not_valid(validator, tmp_path, text):
    assert not parses(tmp_path, text)
    assert not validator.is_valid(yaml.safe_load(text))


def test_only_order_is_left_to_the_parser(validator, tmp_path):
    for text in ("steps: [fuse_conv_bn, depthwise_separable]", "steps: [cluster_weights, fuse_conv_bn]"):
        assert validator.is_valid(yaml.safe_load(text))
        assert not parses(tmp_path, text)


@pytest.mark.parametrize("name", recipe.step_names())
def test_every_step_stands_in_it_with_all_its_parameters_described(name):
    definition = recipe.recipe_schema()["$defs"]["steps"]["properties"][name]
    assert set(definition["properties"]) == set(recipe.step_class(name).model_fields)
    assert recipe.step_summary(name) in definition["description"]
    assert all(parameter["description"] for parameter in definition["properties"].values())


def test_every_default_is_one_that_the_schema_takes():
    schema = recipe.recipe_schema()
    for name in recipe.step_names():
        definition = schema["$defs"]["steps"]["properties"][name]
        defaults = {key: value["default"] for key, value in definition["properties"].items()}
        Draft202012Validator(definition).validate(defaults)


def test_training_and_gates_are_described_for_whoever_hovers_over_them():
    schema = recipe.recipe_schema()
    recover = schema["$defs"]["recover"]["properties"]
    assert {key: value["description"] for key, value in recover.items()} == {
        key: field.description for key, field in FinetuneSettings.model_fields.items()
    }
    assert all(field.description for field in Gate.model_fields.values())


def test_the_command_prints_it_without_paying_for_torch():
    code = (
        "import sys\nfrom slimcv import cli\nsys.argv = ['slimcv', 'recipes', 'schema']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'numpy', 'onnx', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == recipe.recipe_schema()
