"""TorchScript files, converted to an exported program where torch can."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import fx

from slimcv.errors import SlimcvError
from slimcv.models.capture import FAULTS, check_equal, example, export, first_line, lift, quiet
from slimcv.step import InputSpec

_FORMS = "save the original model, its state dict (with --arch), or a torch.export .pt2"
_TOUCH_FILES = re.compile(r"\btorch\.(save|load|from_file)\b|\bops\.(?!prim\b)\w+")


def read(path: Path) -> torch.jit.ScriptModule:
    """The script module in `path`, in eval mode and on the CPU.

    Its code is looked at first: a script may call operators that write files, and may run while it is loaded.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")]
        suspicious = next(
            (match.group() for source in sources if (match := _TOUCH_FILES.search(source))), None
        )
        if suspicious is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                script: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
                return script.eval()
    except (*FAULTS, OSError, zipfile.BadZipFile) as error:
        raise SlimcvError(
            f"{path} is a TorchScript file that cannot be read: {first_line(error)[:160]}", _FORMS
        ) from error
    raise SlimcvError(
        f"{path} is a TorchScript file whose code calls {suspicious}; it was not loaded", _FORMS
    )


def convert(script: torch.jit.ScriptModule, input: InputSpec, *, path: Path) -> fx.GraphModule:
    """The lifted graph of a script, parameters named as they were, checked against it.

    Raises SlimcvError where torch cannot convert it.
    """
    from torch._export.converter import TS2EPConverter

    try:
        with warnings.catch_warnings(), quiet(), torch.no_grad():
            warnings.simplefilter("ignore")
            expected = script(example(input))
            program = TS2EPConverter(script, (example(input),), {}).convert()
        lifted = lift(export(program.module(check_guards=False), input))
    except FAULTS as error:
        raise SlimcvError(
            f"{path} is TorchScript torch cannot convert for {input} pictures: {first_line(error)[:160]}",
            _FORMS,
        ) from error
    check_equal(lifted, expected, input=input)
    return lifted
