"""Networks of torchvision and timm through capture and lift."""

import pytest
import torch
from torch import nn

from slimcv import models
from slimcv.errors import SlimcvError
from slimcv.models import architecture, capture, metadata
from slimcv.models.randomness import StochasticDepth
from slimcv.step import InputSpec


@pytest.mark.parametrize(
    "source",
    [
        "torchvision:resnet18?num_classes=4",
        "torchvision:mobilenet_v3_small?num_classes=4",
        "timm:resnet10t?num_classes=4&drop_rate=0.1&drop_path_rate=0.1",
    ],
)
def test_a_library_network_keeps_outputs_names_and_dropouts_through_export(source):
    variant = models.load(source, input="3x64x64")
    again = capture.lift(capture.exported(variant.model, variant.input))
    x = torch.randn(3, 3, 64, 64)
    assert torch.allclose(again(x), variant.model(x), atol=1e-6)
    assert set(again.state_dict()) == set(variant.model.state_dict())
    idle = (nn.Dropout, StochasticDepth)
    assert sum(isinstance(m, idle) for m in again.modules()) == sum(
        isinstance(m, idle) for m in variant.model.modules()
    )
    assert not any(node.op == "get_attr" for node in variant.model.graph.nodes)


def described(source):
    network = architecture.build(source)
    return metadata.describe(network, arch=source, input=None, mean=None, std=None)


def test_torchvisions_weights_tell_size_and_normalisation_without_being_downloaded():
    assert str(described("torchvision:efficientnet_b1?num_classes=3")) == "3x240x240"


def test_timms_configuration_tells_size_and_normalisation():
    assert described("timm:resnet10t?num_classes=3") == InputSpec(
        3, 176, 176, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )


def test_a_pickled_network_of_torchvision_is_fed_pictures_of_224():
    network = architecture.build("torchvision:squeezenet1_1")
    assert str(metadata.describe(network, arch=None, input=None, mean=None, std=None)) == "3x224x224"


@pytest.mark.parametrize(
    ("source", "suggestion"),
    [("timm:resnt18", "resnet18"), ("torchvision:mobilenet_v3_smal", "mobilenet_v3_small")],
)
def test_an_unknown_architecture_is_answered_with_the_nearest(source, suggestion):
    with pytest.raises(SlimcvError) as caught:
        models.load(source)
    assert suggestion in caught.value.hint


@pytest.mark.parametrize("name", ["resnet999", "fasterrcnn_resnet50_fpn"])
def test_an_architecture_that_only_describes_the_input_must_be_a_classifier_too(name):
    with pytest.raises(SlimcvError, match=f"no classifier '{name}'"):
        metadata.describe(None, arch=f"torchvision:{name}", input="3x8x8", mean=None, std=None)


@pytest.mark.parametrize("argument", ["pretrained=True", "weights=DEFAULT"])
def test_nothing_is_downloaded(argument):
    with pytest.raises(SlimcvError, match="would download"):
        models.load(f"torchvision:resnet18?{argument}")
