"""What a network is fed: from the user's words, else from what timm and torchvision say about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from slimcv.errors import SlimcvError
from slimcv.models.architecture import parse, torchvision_models
from slimcv.step import IMAGENET_MEAN, IMAGENET_STD, InputSpec

_LARGEST_SIDE = 8192
_TORCHVISION_SIDES = {"Inception3": 299}
_GREY = 0.5
"""Mean and standard deviation assumed where channels are not red, green and blue: pixels in -1…1."""


def parse_shape(text: str) -> tuple[int, int, int]:
    """Channels, height and width of `3x224x224`."""
    match = re.fullmatch(r"(\d+)\s*[xX×]\s*(\d+)\s*[xX×]\s*(\d+)", text.strip())
    shape = tuple(int(number) for number in match.groups()) if match else ()
    if len(shape) != 3 or not min(shape) >= 1 or max(shape) > _LARGEST_SIDE:
        raise SlimcvError(
            f"'{text}' is no input shape",
            "write channels x height x width of one picture, e.g. --input 3x224x224",
        )
    return shape


def describe(
    network: nn.Module | None,
    *,
    arch: str | None,
    input: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    known: InputSpec | None = None,
    example: tuple[int, int, int] | None = None,
) -> InputSpec:
    """The input spec: what the user says, else `known` (a sidecar), metadata, or a program's `example`.

    Raises SlimcvError where nothing tells the shape, or the normalisation does not fit the channels.
    """
    spec = known or _from_timm(network) or _from_torchvision(network, arch) or (example and _plain(*example))
    if input is not None:
        channels, height, width = parse_shape(input)
        same_channels = spec is not None and spec.channels == channels
        spec = (
            replace(spec, height=height, width=width)
            if spec and same_channels
            else _plain(channels, height, width)
        )
    if spec is None:
        channels = _first_channels(network)
        raise SlimcvError(
            "nothing tells the model's input shape",
            f"give it as --input, e.g. --input {channels}x224x224, or in slimcv.yaml",
        )
    spec = replace(spec, mean=mean or spec.mean, std=std or spec.std)
    if not len(spec.mean) == len(spec.std) == spec.channels or not all(value > 0 for value in spec.std):
        raise SlimcvError(
            f"mean {spec.mean} and std {spec.std} do not fit {spec.channels} channel(s)",
            "give one mean and one positive std for each channel, of pixels scaled to 0…1",
        )
    return spec


def _plain(channels: int, height: int, width: int) -> InputSpec:
    """Colour pictures are taken as normalised like ImageNet, others to -1…1."""
    if channels == 3:
        return InputSpec(channels, height, width, IMAGENET_MEAN, IMAGENET_STD)
    return InputSpec(channels, height, width, (_GREY,) * channels, (_GREY,) * channels)


def _from_timm(network: nn.Module | None) -> InputSpec | None:
    """Timm attaches the configuration of the pretrained weights to its networks."""
    config = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None)
    if config is None or not type(network).__module__.startswith("timm."):
        return None
    values: Mapping[str, Any] = config if isinstance(config, Mapping) else vars(config)
    shape = values.get("input_size")
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        return None
    channels = _first_channels(network)
    spec = _plain(channels, shape[1], shape[2])
    mean, std = tuple(values.get("mean") or ()), tuple(values.get("std") or ())
    return replace(spec, mean=mean, std=std) if len(mean) == len(std) == channels else spec


def _from_torchvision(network: nn.Module | None, arch: str | None) -> InputSpec | None:
    """The crop and normalisation of an architecture's published weights, or 224 for a class without that."""
    if arch is not None and arch.startswith("torchvision:"):
        name = parse(arch).name
        weights = torchvision_models(name).get_model_weights(name)
        best = getattr(weights, "DEFAULT", None)
        if best is not None:
            transforms = best.transforms()
            side = transforms.crop_size[0]
            return InputSpec(3, side, side, tuple(transforms.mean), tuple(transforms.std))
    if network is None or not type(network).__module__.startswith("torchvision.models."):
        return None
    side = _TORCHVISION_SIDES.get(type(network).__name__, 224)
    return _plain(_first_channels(network), side, side)


def _first_channels(network: nn.Module | None) -> int:
    for module in network.modules() if network is not None else ():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3
