"""Models: whatever `.pt` a user has becomes the lifted graph, checked against the original."""

from __future__ import annotations

import copy
import logging
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from slimcv.errors import SlimcvError, first_line
from slimcv.models import (
    architecture,
    capture,
    checkpoint,
    exported,
    metadata,
    pickled,
    state_dict,
    torchscript,
)
from slimcv.step import InputSpec, Variant

__all__ = ["capture", "checkpoint", "from_module", "load"]

logger = logging.getLogger("slimcv")

_STATE_DICT = "state dict"
_FORMS = "slimcv reads what torch.save, torch.export.save, torch.jit.save and safetensors write"


def load(
    source: str,
    *,
    arch: str | None = None,
    code: tuple[str, ...] = (),
    input: str | None = None,
    classes: tuple[str, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Variant:
    """The model in a file, or an architecture with its initial weights, as a variant in eval mode.

    `source` is a path or an architecture (`timm:NAME`, `torchvision:NAME`, `path/net.py:factory`,
    `package.module:factory`). `arch` names the architecture of a state dict, `code` the files or modules that
    define the user's own classes, `input` the shape (`3x224x224`). `mean` and `std` are of pixels scaled to
    0…1, one for each channel.
    Nothing in a file is executed, nothing is downloaded.

    Raises SlimcvError for whatever cannot be read, does not fit, or is no image classifier.
    """
    path = Path(source)
    if not path.exists() and architecture.is_architecture(source):
        network = architecture.build(source)
        spec = metadata.describe(network, arch=source, input=input, mean=mean, std=std)
        lifted = capture.capture(network, spec)
        return _variant(lifted, spec, classes=classes, source=source, form="architecture")
    form = _form(path)
    if form == "exported":
        return _from_program(path, input=input, classes=classes, mean=mean, std=std)
    if form == "torchscript":
        script = torchscript.read(path)
        spec = metadata.describe(script, arch=arch, input=input, mean=mean, std=std)
        lifted = torchscript.convert(script, spec, path=path)
        return _variant(lifted, spec, classes=classes, source=source, form=form)
    network, form = _network(path, form, arch=arch, code=code)
    used = arch if form == _STATE_DICT else None
    spec = metadata.describe(network, arch=used, input=input, mean=mean, std=std)
    lifted = capture.capture(network, spec)
    return _variant(lifted, spec, classes=classes, source=source, form=form)


def from_module(
    module: nn.Module,
    *,
    input: str | None = None,
    classes: tuple[str, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Variant:
    """A network in memory as a variant in eval mode; `module` is left as it was. Raises as `load` does."""
    try:
        network = copy.deepcopy(module).float()
    except RuntimeError as error:
        raise SlimcvError(
            f"the network cannot be copied: {first_line(error)}",
            "undo torch.nn.utils.weight_norm by torch.nn.utils.remove_weight_norm, or use "
            "torch.nn.utils.parametrizations.weight_norm; keep nothing that forward computed as an attribute",
        ) from error
    spec = metadata.describe(network, arch=None, input=input, mean=mean, std=std)
    lifted = capture.capture(network, spec)
    return _variant(lifted, spec, classes=classes, source=type(module).__name__, form="module")


def _form(path: Path) -> str:
    """What kind of file this is, by its content: exported, torchscript, safetensors or pickle."""
    if path.is_dir():
        raise SlimcvError(f"{path} is a folder", "give the model's file, e.g. model.pt")
    if not path.exists():
        raise SlimcvError(
            f"there is no file {path}", f"give a model's file or an architecture: {architecture.FORMS}"
        )
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise SlimcvError(f"cannot read {path}: {error.strerror}", "check the file's permissions") from error
    if not head:
        raise SlimcvError(f"{path} is empty", "copy or save the model again")
    if head.startswith(b"PK"):
        return _archive_form(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if path.suffix == ".safetensors":
        raise SlimcvError(f"{path} is not a whole .safetensors file", "copy or save the file again")
    if head[:1] != b"\x80":
        raise SlimcvError(f"{path} is not a model's file", _FORMS)
    return "pickle"


def _archive_form(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise SlimcvError(
            f"{path} is damaged or cut short: {error}", "copy or save the model again"
        ) from error
    if "serialized_exported_program.json" in names:
        raise SlimcvError(
            f"{path} was exported by an old version of torch", "export it again with torch.export.save"
        )
    if "models/model.json" in names or "archive_format" in names:
        return "exported"
    if "constants.pkl" in names:
        return "torchscript"
    if "data.pkl" in names:
        return "pickle"
    raise SlimcvError(f"{path} is an archive, but not of a model", _FORMS)


def _network(path: Path, form: str, *, arch: str | None, code: tuple[str, ...]) -> tuple[nn.Module, str]:
    """The network in a file of torch.save or safetensors, and whether it was pickled or a state dict."""
    content: Any = (
        state_dict.read_safetensors(path) if form == "safetensors" else pickled.read(path, code=code)
    )
    found = state_dict.find(content)
    if found is None:
        raise SlimcvError(
            f"{path} holds a {type(content).__name__} without a network or its weights",
            "save the model itself or model.state_dict()",
        )
    if isinstance(found, nn.Module):
        if arch is not None:
            logger.info("%s holds the whole network: --arch %s is not needed and not used", path, arch)
        try:
            return found.float(), "pickled module"
        except (*capture.FAULTS, RecursionError) as error:
            raise SlimcvError(
                f"{path} holds a network that is not whole: {capture.first_line(error)[:160]}",
                "save the model itself or model.state_dict()",
            ) from error
    if arch is None:
        raise SlimcvError(
            f"{path} holds weights without their network (a state dict)",
            f"name the network as --arch: {architecture.FORMS}",
        )
    state_dict.check_tensors(found, source=str(path))
    return state_dict.load_into(architecture.build(arch), found, source=str(path)), _STATE_DICT


def _variant(
    lifted: fx.GraphModule, spec: InputSpec, *, classes: tuple[str, ...] | None, source: str, form: str
) -> Variant:
    return Variant(
        lifted, spec, classes=_checked(classes, lifted, spec), details={"source": source, "form": form}
    )


def _from_program(
    path: Path,
    *,
    input: str | None,
    classes: tuple[str, ...] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> Variant:
    """A `.pt2`; what slimcv wrote beside the graph holds unless the caller says otherwise."""
    program, extra = exported.read(path)
    sidecar = checkpoint.sidecar_of(extra)
    known = None if sidecar is None else sidecar.spec
    shape = exported.shape(program)
    spec = metadata.describe(None, arch=None, input=input, mean=mean, std=std, known=known, example=shape)
    own = spec if shape is None else replace(spec, channels=shape[0], height=shape[1], width=shape[2])
    lifted = capture.checked(program, own=own, input=spec)
    if sidecar is None:
        return _variant(lifted, spec, classes=classes, source=str(path), form="exported program")
    return Variant(
        lifted,
        spec,
        classes=_checked(classes or sidecar.classes, lifted, spec),
        precision=sidecar.precision,
        runtime=sidecar.runtime,
        int8_mac_share=sidecar.int8_mac_share,
        details={"source": str(path), "form": "checkpoint"},
    )


def _checked(
    classes: tuple[str, ...] | None, lifted: fx.GraphModule, spec: InputSpec
) -> tuple[str, ...] | None:
    """The class names, if there are as many as outputs."""
    if classes is None:
        return None
    with torch.no_grad():
        outputs = lifted(capture.example(spec)).shape[1]
    if len(classes) != outputs:
        raise SlimcvError(
            f"{len(classes)} class names for a model with {outputs} outputs", "give one name for each output"
        )
    return classes
