"""Reading a `.pt2` file of torch.export without letting it run anything.

`torch.export.load` unpickles custom objects, falls back to unsafe unpickling of example inputs, loads
compiled libraries and hands expression strings to sympy, which evaluates them; a graph may name any function
of torch, and its names become Python source that torch executes. So the archive is inspected first, with the
reader torch itself uses, and refused unless it holds nothing but JSON and flat tensors, operators of ATen or
quantisation, names that can be nothing else, and expressions of sizes.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import keyword
import math
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch.export import ExportedProgram

from slimcv.errors import SlimcvError
from slimcv.models import opcodes
from slimcv.models.capture import FAULTS, first_line, quiet

_RECORDS = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|data/sample_inputs/model\.pt|extra/[^/]+"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
_OPERATOR = re.compile(r"torch\.ops\.(aten|quantized_decomposed)\.(\w+)\.(\w+)")
_ARITHMETIC = {
    "_operator.add", "_operator.sub", "_operator.mul", "_operator.floordiv", "_operator.truediv",
    "_operator.mod", "_operator.neg", "_operator.eq", "_operator.ne", "_operator.lt", "_operator.le",
    "_operator.gt", "_operator.ge", "_operator.and_", "_operator.or_", "_operator.getitem",
    "torch.sym_max", "torch.sym_min", "torch.sym_not", "torch.sym_float", "torch.sym_int",
    "torch.sym_ite", "torch.sym_sum", "torch.sym_sqrt", "math.ceil", "math.floor", "math.trunc",
}  # fmt: skip
_TOUCH_FILES = {"from_file"}
_EXPRESSIONS = {
    "Integer", "Rational", "Add", "Mul", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv",
    "CeilDiv", "ModularIndexing", "Where", "CeilToInt", "FloorToInt", "TruncToInt", "TruncToFloat",
    "RoundToInt", "ToFloat", "IntTrueDiv", "FloatTrueDiv", "Identity", "Eq", "Equality", "Ne", "Unequality",
    "Lt", "StrictLessThan", "Le", "LessThan", "Gt", "StrictGreaterThan", "Ge", "GreaterThan", "And", "Or",
    "Not", "floor", "ceiling",
}  # fmt: skip
_SYMBOL = re.compile(r"[suz]u?f?\d{1,6}")
_NAMES = re.compile(rf"{_SYMBOL.pattern}|oo|int_oo|true|false")
_DECIMAL = re.compile(r"-?[\d.]{1,40}(e[+-]?\d{1,3})?")
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
_VARIABLES = {"name", "as_name", "user_input_name", "forward_arg_names"}
"""Entries that become names of variables and arguments in the source torch makes of a graph."""
_ATTRIBUTES = {"parameter_name", "buffer_name", "tensor_constant_name", "fqn"}
"""Entries that become attributes in it, or strings in double quotes where they are no identifiers."""
_TABLES = {"tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values"}
"""What is known of variables, by their names."""
_LARGEST_EXPONENT = 8
_LARGEST_PRECISION = 1000


def read(path: Path) -> tuple[ExportedProgram, dict[str, str]]:
    """The exported program in `path` and the extra files beside it, by name.

    Raises SlimcvError where the file is damaged, of an unknown version, or holds what could run code.
    """
    from torch.export.pt2_archive import _package

    try:
        file = path.open("rb")
    except OSError as error:
        raise SlimcvError(
            f"cannot read {path}: {error.strerror}", "check the path and its permissions"
        ) from error
    try:
        with file, warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            reason = next(_objections(_package.PT2ArchiveReader(file)), None)
            if reason is None:
                file.seek(0)
                contents = _package.load_pt2(file)
                program = contents.exported_programs["model"]
                program._guards_code = []
                program.module(check_guards=False)
    except (*FAULTS, OSError, pickle.UnpicklingError, EOFError, RecursionError, SyntaxError) as error:
        raise SlimcvError(
            f"{path} is damaged or written by another version of torch: {first_line(error)[:160]}",
            f"write it again with torch.export.save of torch {torch.__version__.split('+')[0]}",
        ) from error
    if reason is not None:
        raise SlimcvError(
            f"{path} holds {reason}, which could run code; it was not loaded",
            "export the plain network with torch.export.export and torch.export.save",
        )
    return program, contents.extra_files


def _objections(archive: Any) -> Iterator[str]:
    """What in the archive a plain exported program does not need."""
    names = archive.get_file_names()
    for name in names:
        if not _RECORDS.fullmatch(name):
            yield f"the record '{name}'"
    for config in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
        for name, payload in json.loads(archive.read_string(config))["config"].items():
            if payload["use_pickle"] is not False or not re.fullmatch(
                r"(weight|tensor)_\d+", payload["path_name"]
            ):
                yield f"the pickled object '{name}'"
            sizes = [size["as_int"] for size in payload["tensor_meta"]["sizes"]]
            stored = archive.archive_file.get_record_size(
                str(PurePosixPath(config).with_name(payload["path_name"]))
            )
            if math.prod(sizes) > max(stored, opcodes.LARGEST_SHARED):
                raise ValueError(f"the tensor '{name}' is larger than what is stored of it")
            if not _harmless_attribute(name):
                yield f"the name {name!r}"
    if samples := archive.read_bytes("data/sample_inputs/model.pt"):
        calls = opcodes.objections(
            io.BytesIO(torch._C.PyTorchFileReader(io.BytesIO(samples)).get_record("data.pkl")),
            functions=set(),
            size_bytes=None,
        )
        if next(calls, None) is not None:
            yield "example inputs that are not tensors"
        try:
            torch.load(io.BytesIO(samples), weights_only=True)
        except pickle.UnpicklingError:
            yield "example inputs that are not tensors"
    program = archive.read_string("models/model.json")
    if "quantized_decomposed" in program:
        register_quantized_operators()
    yield from _objections_to_program(json.loads(program))


def register_quantized_operators() -> None:
    """Make the operators of INT8 graphs known to torch: importing this module defines them."""
    importlib.import_module("torch.ao.quantization.fx._decomposed")


def _objections_to_program(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _objections_to_program(item)
        return
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in _TABLES:
            yield from (f"the name {name!r}" for name in item if not _harmless_variable(name))
            yield from _objections_to_program(list(item.values()))
            continue
        if key in _VARIABLES and item is not None:
            names = item if isinstance(item, list) else [item]
            of_operator = "arg" in value
            yield from (
                f"the name {name!r}"
                for name in names
                if not _harmless_variable(name, of_operator=of_operator)
            )
        elif key in _ATTRIBUTES and not _harmless_attribute(item):
            yield f"the name {item!r}"
        elif key == "range_constraints":
            yield from (f"the expression '{size}'" for size in item if not harmless_expression(size))
        elif key in ("target", "as_operator") and isinstance(item, str) and not _harmless_operator(item):
            yield f"the operator '{item}'"
        elif key == "expr_str" and not harmless_expression(item):
            yield f"the expression '{item}'"
        elif key in ("in_spec", "out_spec") and item and not _harmless_tree(item, named=key == "in_spec"):
            yield f"the container '{item[:80]}'"
        elif (key in ("as_custom_obj", "custom_obj") and item is not None) or (
            key == "treespec_namedtuple_fields" and item
        ):
            yield f"custom objects ({key})"
        elif key == "custom_obj_values" and item:
            yield f"the custom objects {', '.join(item)}"
        yield from _objections_to_program(item)


def _harmless_variable(name: object, *, of_operator: bool = False) -> bool:
    """Whether a name is one identifier; an argument of an operator may be called `from`."""
    return isinstance(name, str) and name.isidentifier() and (of_operator or not keyword.iskeyword(name))


def _harmless_attribute(name: object) -> bool:
    """Whether a dotted name stays inside a string: keys of `nn.ModuleDict` may have blanks and hyphens."""
    return isinstance(name, str) and name.isprintable() and not {'"', "\\"} & set(name)


def _harmless_operator(target: str) -> bool:
    """Whether a graph's call target computes on tensors and sizes and does nothing else."""
    if target in _ARITHMETIC:
        return True
    if not (match := _OPERATOR.fullmatch(target)):
        return False
    namespace, name, overload = match.groups()
    qualified = f"{namespace}::{name}" + ("" if overload == "default" else f".{overload}")
    return name not in _TOUCH_FILES and qualified in torch._C._dispatch_get_all_op_names()


def harmless_expression(text: object) -> bool:
    """Whether a string is arithmetic on sizes: `s77`, `Mul(Integer(4), Symbol('s77'))`, `s0//2 >= 1`.

    Sympy takes line ends out before it parses, so that a comment may end elsewhere for it than for `ast`.
    """
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or "#" in text:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return _harmless_part(tree.body)


def _harmless_part(part: ast.AST) -> bool:
    match part:
        case ast.Constant(value=bool() | int() | float()):
            return True
        case ast.Name(id=name):
            return _NAMES.fullmatch(name) is not None
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            return _harmless_part(operand)
        case ast.BinOp(
            left=left,
            op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Mod(),
            right=right,
        ):
            return _harmless_part(left) and _harmless_part(right)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _symbol(left) and _small(right)
        case ast.Compare(left=left, ops=signs, comparators=others):
            return all(isinstance(sign, _COMPARISONS) for sign in signs) and all(
                map(_harmless_part, [left, *others])
            )
        case ast.Call(func=ast.Name(id="Symbol")):
            return _symbol(part)
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str() as digits)], keywords=words):
            return _DECIMAL.fullmatch(digits) is not None and all(map(_precision, words))
        case ast.Call(func=ast.Name(id="Pow" | "PowByNatural"), args=[base, exponent], keywords=[]):
            return _symbol(base) and _small(exponent)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _EXPRESSIONS:
            return all(map(_harmless_part, arguments))
    return False


def _symbol(part: ast.AST) -> bool:
    """Whether a part of an expression is one symbol: powers of anything else are a way to fill the memory."""
    match part:
        case ast.Name(id=name):
            return _NAMES.fullmatch(name) is not None
        case ast.Call(
            func=ast.Name(id="Symbol"), args=[ast.Constant(value=str() as name)], keywords=assumptions
        ):
            return _SYMBOL.fullmatch(name) is not None and all(
                isinstance(word.value, ast.Constant) and isinstance(word.value.value, bool)
                for word in assumptions
            )
    return False


def _precision(word: ast.keyword) -> bool:
    match word:
        case ast.keyword(arg="precision", value=ast.Constant(value=int() as bits)):
            return bits <= _LARGEST_PRECISION
    return False


def _small(exponent: ast.AST) -> bool:
    """Whether an exponent is a small number."""
    match exponent:
        case ast.Constant(value=int() as value):
            return value <= _LARGEST_EXPONENT
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
            return value <= _LARGEST_EXPONENT
        case ast.Call(func=ast.Name(id="Integer"), args=[value], keywords=[]):
            return _small(value)
    return False


def _harmless_tree(text: str, *, named: bool) -> bool:
    """Whether a serialised pytree is made of tuples, lists and dicts; other types import code.

    `named` says that its keys become arguments in the source torch makes of a graph.
    """
    return _harmless_spec(json.loads(text)[1], named=named)


def _harmless_spec(spec: dict[str, Any], *, named: bool) -> bool:
    context = json.loads(spec["context"]) if isinstance(spec["context"], str) else spec["context"]
    plain = context is None or (
        isinstance(context, list)
        and all(_harmless_variable(key) if named else isinstance(key, str | int) for key in context)
    )
    return (
        plain
        and spec["type"] in _CONTAINERS
        and all(_harmless_spec(child, named=named) for child in spec["children_spec"])
    )


def shape(program: ExportedProgram) -> tuple[int, int, int] | None:
    """Channels, height and width a program was exported for; None where its input is no batch of pictures."""
    placeholders = program.graph.find_nodes(op="placeholder")
    values = [
        node.meta.get("val") for node in placeholders if node.name in program.graph_signature.user_inputs
    ]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or values[0].ndim != 4:
        return None
    sizes = [
        getattr(getattr(size, "node", None), "hint", None) if isinstance(size, torch.SymInt) else size
        for size in values[0].shape
    ]
    return None if any(size is None for size in sizes[1:]) else (int(sizes[1]), int(sizes[2]), int(sizes[3]))
