"""Architectures by name: `timm:NAME`, `torchvision:NAME`, `path/net.py:factory`, `package.module:factory`."""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from slimcv import user_code
from slimcv.errors import SlimcvError, first_line, nearest
from slimcv.models.capture import FAULTS

FORMS = (
    "timm:NAME, torchvision:NAME, path/net.py:factory or package.module:factory, "
    "each with ?key=value&key=value"
)


@dataclass(frozen=True)
class Architecture:
    """An architecture's name taken apart: where it comes from, which one, and what it is built with."""

    origin: str
    name: str
    arguments: dict[str, Any]


def is_architecture(source: str) -> bool:
    """Whether a model's source is written like an architecture rather than like a path."""
    origin, colon, name = source.partition("?")[0].rpartition(":")
    return (
        bool(colon)
        and name.replace(".", "_").isidentifier()
        and (origin in _LIBRARIES or "." in origin or origin.isidentifier())
    )


def parse(text: str) -> Architecture:
    """`origin:name?key=value&key=value`, the values Python literals or else strings."""
    address, _, query = text.partition("?")
    origin, colon, name = address.partition(":") if address.startswith(_PREFIXES) else address.rpartition(":")
    if not colon or not origin or not name:
        raise SlimcvError(f"'{text}' is not an architecture", f"known forms: {FORMS}")
    arguments: dict[str, Any] = {}
    for item in filter(None, query.split("&")):
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier():
            raise SlimcvError(f"'{item}' in '{text}' is not key=value", f"known forms: {FORMS}")
        arguments[key] = _literal(value)
    return Architecture(origin, name, arguments)


def build(text: str) -> nn.Module:
    """The network an architecture's name stands for, with its initial weights; nothing is downloaded.

    Raises SlimcvError for an unknown name (with the nearest ones), refused arguments, or what is no network.
    """
    architecture = parse(text)
    factory = _LIBRARIES.get(architecture.origin, _from_code)
    network = factory(architecture)
    if not isinstance(network, nn.Module):
        raise SlimcvError(
            f"{text} gave a {type(network).__name__}, not a network", "name a factory or class of nn.Module"
        )
    return network


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def import_library(name: str) -> Any:
    """Torchvision or timm, imported because the user named it; SlimcvError where it is missing or broken."""
    import importlib

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except (ImportError, RuntimeError, AttributeError) as error:
        reason = first_line(error)
        raise SlimcvError(
            f"{name} cannot be imported: {reason}",
            f"install a build of {name} that fits torch (CPU wheels of both), or give the network's code as "
            "--arch path/net.py:factory",
        ) from error


def _call(factory: Callable[..., Any], architecture: Architecture, arguments: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return factory(**arguments)
    except FAULTS as error:
        try:
            signature = f"{architecture.name}{inspect.signature(factory)}"
        except (ValueError, TypeError):
            signature = architecture.name
        raise SlimcvError(
            f"{architecture.origin}:{architecture.name} cannot be built: {error}",
            f"arguments follow the name as ?key=value&key=value; it is called as {signature}",
        ) from error


def _refuse(architecture: Architecture, *keys: str) -> None:
    for key in keys:
        if architecture.arguments.get(key):
            raise SlimcvError(
                f"{architecture.origin}:{architecture.name}?{key}=… would download or read weights",
                "slimcv never downloads: give the weights as a file and the architecture as --arch",
            )


def _from_timm(architecture: Architecture) -> Any:
    timm = import_library("timm")
    _refuse(architecture, "pretrained", "checkpoint_path", "pretrained_cfg_overlay")
    name = architecture.name.partition(".")[0]
    if not timm.is_model(name):
        raise SlimcvError(f"timm has no model '{architecture.name}'", nearest(name, timm.list_models()))
    arguments = _without(architecture, "pretrained", "checkpoint_path", "pretrained_cfg_overlay")
    return _call(partial(timm.create_model, architecture.name, pretrained=False), architecture, arguments)


def torchvision_models(name: str) -> Any:
    """`torchvision.models`, which has a classifier of this name; SlimcvError with the nearest where not."""
    models = import_library("torchvision").models
    known = models.list_models(module=models)
    if name not in known:
        raise SlimcvError(f"torchvision has no classifier '{name}'", nearest(name, known))
    return models


def _from_torchvision(architecture: Architecture) -> Any:
    models = torchvision_models(architecture.name)
    _refuse(architecture, "pretrained", "weights", "weights_backbone")
    factory = models.get_model_builder(architecture.name)
    arguments = _without(architecture, "pretrained", "weights", "weights_backbone")
    return _call(partial(factory, weights=None), architecture, arguments)


def _without(architecture: Architecture, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in architecture.arguments.items() if key not in keys}


def _from_code(architecture: Architecture) -> Any:
    module = user_code.load(architecture.origin)
    factory = getattr(module, architecture.name, None)
    if not callable(factory):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise SlimcvError(
            f"{architecture.origin} has no '{architecture.name}'", nearest(architecture.name, known)
        )
    return _call(factory, architecture, architecture.arguments)


_LIBRARIES: dict[str, Callable[[Architecture], Any]] = {"timm": _from_timm, "torchvision": _from_torchvision}
_PREFIXES = tuple(f"{library}:" for library in _LIBRARIES)
