"""TorchScript files, converted to an exported program where torch can.

Operators of TorchScript write files, and a script may run while it is loaded. So its code, which has Python's
syntax, is looked at first, with the reader torch itself uses: it may compute with ATen, ask for what tensors
are, and call itself.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import fx

from slimcv.errors import SlimcvError
from slimcv.models.capture import (
    COMPARED,
    FAULTS,
    check_equal,
    example,
    export,
    first_line,
    lift,
    only_tensor,
    quiet,
)
from slimcv.step import InputSpec

_FORMS = "save the original model, its state dict (with --arch), or a torch.export .pt2"
_CODE = re.compile(r"code/.+\.py(\.debug_pkl)?")
_LARGEST_CODE_BYTES = 64 << 20
_TOUCH_FILES = {"save", "from_file"}
_OF_NUMBERS_AND_LISTS = {
    "Bool", "Complex", "ComplexImplicit", "Float", "FloatImplicit", "Int", "IntImplicit",
    "ScalarImplicit", "Size", "__contains__", "__derive_index", "__getitem__", "__interpolate", "__is__",
    "__isnot__", "__not__", "__range_length", "__round_to_zero_floordiv", "__upsample",
    "__upsample_bilinear", "__upsample_nearest", "_infer_size", "_list_to_tensor", "_set_item",
    "_size_if_not_equal", "_tensor_to_list", "_unwrap_optional", "append", "as_tensor", "clear", "count",
    "degrees", "device", "dict", "divmod", "element_size", "endswith", "extend", "fabs", "find",
    "floordiv", "format", "get", "hash", "insert", "is_autocast_cpu_enabled", "is_autocast_enabled",
    "is_grad_enabled", "is_scripting", "items", "join", "keys", "len", "list", "lower", "mathremainder",
    "modf", "percentFormat", "pop", "radians", "remove", "replace", "reverse", "setdefault", "sorted",
    "startswith", "str", "strip", "tensor", "update", "upper", "warn",
}  # fmt: skip
"""Operators of TorchScript that torch's dispatcher does not have, because they are not of tensors."""
_OF_TENSORS = {
    "NumToTensor", "RaiseException", "TupleIndex", "Uninitialized", "abs", "data", "device", "dtype",
    "grad", "is_cpu", "is_cuda", "is_meta", "is_mkldnn", "is_nested", "is_quantized", "is_sparse",
    "is_xla", "itemsize", "layout", "max", "min", "name", "nbytes", "rangelist", "requires_grad",
    "tolist", "type", "unchecked_cast", "unchecked_unwrap_optional",
}  # fmt: skip
_READ_OTHERWISE = re.compile(r"#|\\\n|[\r\f\0]|\"{3}|'{3}")
"""What Python and TorchScript may not take apart alike; torch's printer writes none of it."""


def read(path: Path) -> torch.jit.ScriptModule:
    """The script module in `path`, in eval mode and on the CPU.

    Raises SlimcvError where the file is damaged, or where its code does more than compute.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            suspicious = next(_objections(torch._C.PyTorchFileReader(file)), None)
            if suspicious is None:
                script: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
                return script.eval()
    except (*FAULTS, OSError, SyntaxError, RecursionError, MemoryError) as error:
        raise SlimcvError(
            f"{path} is a TorchScript file that cannot be read: {first_line(error)[:160]}", _FORMS
        ) from error
    raise SlimcvError(f"{path} is a TorchScript file whose code {suspicious}; it was not loaded", _FORMS)


def _objections(archive: torch._C.PyTorchFileReader) -> Iterator[str]:
    """What in a script's code is more than a network needs; torch finds records whatever their case."""
    names = archive.get_all_records()
    times = Counter(name.lower() for name in names)
    codes = [name for name in names if name.lower().startswith("code/")]
    for name in codes:
        if not _CODE.fullmatch(name) or times[name.lower()] > 1:
            yield f"is hidden in the record {name!r}"
    sources = [name for name in codes if name.endswith(".py")]
    if sum(archive.get_record_size(name) for name in sources) > _LARGEST_CODE_BYTES:
        yield f"is longer than {_LARGEST_CODE_BYTES >> 20} MB"
    operators = {
        name.partition(".")[0].removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names()
    }
    operators = (operators | _OF_NUMBERS_AND_LISTS) - _TOUCH_FILES
    for name in sources:
        yield from _objections_to_code(archive.get_record(name).decode(), operators=operators)


def _objections_to_code(source: str, *, operators: set[str]) -> Iterator[str]:
    if found := _READ_OTHERWISE.search(source):
        yield f"holds {found.group()!r}"
    nodes = list(ast.walk(ast.parse(source)))
    plain = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    plain |= {id(node.func) for node in nodes if isinstance(node, ast.Call) and _gets_module(node)}
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id="torch"), attr=name) if name not in operators:
                yield f"calls torch.{name}"
            case ast.Attribute(value=ast.Name(id="ops"), attr=name) if name != "prim":
                yield f"calls ops.{name}"
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="ops"), attr="prim"), attr=name) if (
                name not in _OF_TENSORS
            ):
                yield f"calls ops.prim.{name}"
            case ast.Attribute(attr=name) if name in _TOUCH_FILES:
                yield f"calls {name}"
            case ast.Name(id="torch" | "ops" | "getattr" as name) if id(node) not in plain:
                yield f"makes something else of {name}"


def _gets_module(call: ast.Call) -> bool:
    """Whether this is how torch writes a submodule whose name is no identifier: `getattr(self, "0")`."""
    match call:
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str() as name)]):
            return not name.isidentifier() and "\\" not in name
    return False


def convert(script: torch.jit.ScriptModule, input: InputSpec, *, path: Path) -> fx.GraphModule:
    """The lifted graph of a script, parameters named as they were, checked against it.

    Raises SlimcvError where torch cannot convert it.
    """
    from torch._export.converter import TS2EPConverter

    try:
        with warnings.catch_warnings(), quiet(), torch.no_grad():
            warnings.simplefilter("ignore")
            expected = only_tensor(script(example(input, batch=COMPARED)), input)
            program = TS2EPConverter(script, (example(input),), {}).convert()
        lifted = lift(export(program.module(check_guards=False), input))
    except FAULTS as error:
        raise SlimcvError(
            f"{path} is TorchScript torch cannot convert for {input} pictures: {first_line(error)[:160]}",
            _FORMS,
        ) from error
    check_equal(lifted, expected, input=input)
    return lifted
