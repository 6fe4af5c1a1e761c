"""What `torch.save` wrote, read without running it: an allow-list is made from the globals it asks for."""

from __future__ import annotations

import argparse
import collections
import functools
import importlib
import inspect
import io
import pickle
import re
import sys
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath, PurePosixPath
from types import ModuleType
from typing import IO, Any

import numpy as np
import torch
from torch import fx, nn

from slimcv import user_code
from slimcv.errors import SlimcvError
from slimcv.models import opcodes
from slimcv.models.architecture import import_library
from slimcv.models.capture import FAULTS, first_line
from slimcv.models.code import find

_NETWORKS = re.compile(r"(torch\.nn|torchvision\.models|torchvision\.ops|timm\.models|timm\.layers)(\.\w+)*")
_RUNS_CODE = (
    fx.GraphModule,
    torch.jit.ScriptModule,
    nn.parallel.DistributedDataParallel,
    nn.modules.lazy.LazyModuleMixin,
)
_ACTIVATIONS = {
    "relu", "relu6", "gelu", "silu", "mish", "elu", "selu", "celu", "hardswish", "hardsigmoid",
    "hardtanh", "leaky_relu", "sigmoid", "tanh", "logsigmoid", "softplus", "softsign", "softmax",
    "log_softmax",
}  # fmt: skip
_HARMLESS: dict[str, object] = {
    "functools.partial": functools.partial,
    "collections.defaultdict": collections.defaultdict,
    "collections.deque": collections.deque,
    "builtins.frozenset": frozenset,
    "builtins.slice": slice,
    "builtins.range": range,
    "builtins.int": int,
    "builtins.float": float,
    "builtins.list": list,
    "builtins.dict": dict,
    "argparse.Namespace": argparse.Namespace,
    "pathlib.PosixPath": PosixPath,
    "pathlib.PurePosixPath": PurePosixPath,
    "numpy.dtype": np.dtype,
}
_NUMBER_TYPES = [(type(np.dtype(code)), f"numpy.dtypes.{code}") for code in "?bBhHiIlLqQefd"]
"""Kinds of numpy numbers; a pickle makes them through `numpy.dtype`, without naming them."""
_LEGACY_PICKLES = 5
"""A file of the format before torch 1.6 holds this many pickles before the tensors' bytes."""


def read(path: Path, *, code: tuple[str, ...] = ()) -> Any:
    """The object in a file of `torch.save`, on the CPU.

    Classes come from torch.nn, torchvision, timm and the user's `code` only. Raises SlimcvError where the
    file asks for anything else (naming it; nothing of the file has run then), calls what no saved network
    needs to, or is damaged.
    """
    names = _globals(path)
    modules = tuple(user_code.load(name) for name in code)
    allowed: list[Any] = []
    refused: list[str] = []
    for name in sorted(names):
        found = _resolve(name, modules)
        if found is None:
            refused.append(name)
        else:
            allowed.append((found, name))
    if refused:
        raise SlimcvError(*_refusal(path, refused, code=code))
    functions = {name for found, name in allowed if inspect.isfunction(found) and _own(name, modules)}
    if reason := _objection(path, functions=functions):
        raise SlimcvError(
            f"{path} {reason} as it is loaded; nothing of it was loaded or run",
            "a saved network does not: do not use the file unless you know where it is from",
        )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed + _NUMBER_TYPES):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (*FAULTS, pickle.UnpicklingError, EOFError, OSError, tarfile.TarError) as error:
        raise _unreadable(path, error) from error


def _globals(path: Path) -> set[str]:
    """The globals a file's pickles ask for beyond tensors and containers, found without running them."""
    from torch._weights_only_unpickler import _get_allowed_globals, get_globals_in_pkl

    names: set[str] = set()
    with _pickles(path) as (data, count):
        for _ in range(count):
            names |= get_globals_in_pkl(data)
    return names - set(_get_allowed_globals())


def _objection(path: Path, *, functions: set[str]) -> str | None:
    """The first thing that loading a file would do and should not; None where there is none."""
    with _pickles(path) as (data, count):
        size_bytes = None if count == 1 else path.stat().st_size
        for _ in range(count):
            for reason in opcodes.objections(data, functions=functions, size_bytes=size_bytes):
                return reason
    return None


@contextmanager
def _pickles(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Where the pickles that `torch.load` reads from a file begin, and how many follow each other there.

    What cannot be read of them is told in a sentence.
    """
    try:
        with path.open("rb") as file:
            if torch.serialization._is_zipfile(file):
                yield io.BytesIO(torch._C.PyTorchFileReader(file).get_record("data.pkl")), 1
            else:
                yield file, _LEGACY_PICKLES
    except (*FAULTS, pickle.UnpicklingError, EOFError, OSError) as error:
        raise _unreadable(path, error) from error


def _resolve(name: str, codes: tuple[ModuleType, ...]) -> object | None:
    """The object a global stands for, or None where it is not on the list of what may be loaded."""
    if name in _HARMLESS:
        return _HARMLESS[name]
    if re.fullmatch(r"numpy\._?core\.multiarray\.scalar", name):
        return _number
    module, _, attribute = name.rpartition(".")
    if (found := _own(name, codes)) is not None:
        return found if inspect.isfunction(found) or _is_network(found) else None
    if module in ("torch.nn.functional", "torch._C._nn") and attribute in _ACTIVATIONS:
        return getattr(importlib.import_module(module), attribute, None)
    if module == "torch._utils" and attribute.startswith("_rebuild_"):
        return getattr(torch._utils, attribute, None)
    if not _NETWORKS.fullmatch(module):
        return None
    library = module.partition(".")[0]
    if library != "torch":
        import_library(library)
    found = getattr(_imported(module), attribute, None)
    own = getattr(found, "__module__", None) == module and getattr(found, "__qualname__", None) == attribute
    return found if own and _is_network(found) else None


def _own(name: str, codes: tuple[ModuleType, ...]) -> object | None:
    """What a global stands for in the user's code."""
    module, _, attribute = name.rpartition(".")
    return find(codes, module=module, name=attribute)


def _imported(module: str) -> ModuleType | None:
    """A module of one of the libraries; None where this version of it has no such module."""
    if "__" in module:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sys.modules.get(module) or importlib.import_module(module)
    except ImportError:
        return None


def _is_network(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, nn.Module) and not issubclass(found, _RUNS_CODE)


def _number(dtype: np.dtype[Any], data: bytes | str = b"") -> Any:
    """Numpy's own constructor of scalars would unpickle objects; this one takes numbers."""
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"a numpy scalar of type {dtype}")
    raw = data if isinstance(data, bytes) else data.encode("latin1")
    return np.frombuffer(raw, dtype=dtype, count=1)[0]


def _refusal(path: Path, refused: list[str], *, code: tuple[str, ...]) -> tuple[str, str]:
    """Message and hint for a file that asks for what it may not have."""
    listed = ", ".join(refused[:8]) + (f" and {len(refused) - 8} more" if len(refused) > 8 else "")
    message = f"{path} asks for {listed}; nothing of it was loaded or run"
    stems = {name.partition(".")[0] for name in refused}
    if any(name.startswith(("torch.fx", "torch.jit", "torch._dynamo")) for name in refused):
        return (
            message,
            "graph modules run code when loaded: save the original model, its state dict or a .pt2",
        )
    if stems & (set(sys.stdlib_module_names) - {"__main__"}):
        return message, "a network does not need these: do not use the file unless you know where it is from"
    if code:
        return message, f"--code {' '.join(code)} does not define them as networks: name the file that does"
    return message, "if the class is your own, name its code: --code path/to/net.py (or a module's name)"


def _unreadable(path: Path, error: BaseException) -> SlimcvError:
    return SlimcvError(
        f"{path} cannot be read: damaged, or in a form that is not safe to read ({first_line(error)[:160]})",
        "write it again with torch.save of today's torch, best as model.state_dict() with --arch",
    )
