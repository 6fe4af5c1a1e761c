"""What a pickle would do as it is loaded, read off its opcodes without doing any of it.

Saved networks are made of classes without arguments (NEWOBJ) that are given their state (BUILD), and of a few
calls (REDUCE) of torch and Python that rebuild tensors and containers. Nothing else is called for a pickle.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from torch._utils import IMPORT_MAPPING, NAME_MAPPING

_CALLED = {
    "_codecs.encode", "builtins.bytearray", "builtins.complex", "builtins.frozenset", "builtins.range",
    "builtins.set", "builtins.slice", "collections.Counter", "collections.OrderedDict",
    "collections.defaultdict", "collections.deque", "functools.partial", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar", "numpy.dtype", "pathlib.PosixPath", "pathlib.PurePosixPath",
    "torch.Size", "torch._tensor._rebuild_from_type_v2", "torch.device", "torch.serialization._get_layout",
}  # fmt: skip
_REBUILT = re.compile(r"torch\._utils\._rebuild_\w+")
_OF_A_LENGTH = {"builtins.bytearray", "builtins.range"}
_WITH_LONG_STATES = {"functools.partial", "numpy.dtype"}
_METHODS = re.compile("__(class|copy|deepcopy|getstate|reduce|reduce_ex|setstate)__")
"""What Python asks an object for before its class: as an attribute, it would be called."""
_PARAMETER = "torch.nn.parameter.Parameter"
_LARGEST_LENGTH = 1 << 16
LARGEST_SHARED = 1 << 22
"""So many elements may a tensor have beyond those that are stored, all of them shared."""
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1"}
_OTHER_VALUES = {
    "BINFLOAT", "BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "NEWFALSE", "NEWTRUE", "NONE",
    "SHORT_BINSTRING",
}  # fmt: skip
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_POPPED = {"APPEND": 1, "SETITEM": 2}


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Made:
    """What a call gave."""

    caller: str


@dataclass(frozen=True)
class _Stored:
    """A tensor's bytes in the file."""

    elements: int


def objections(file: IO[bytes], *, functions: set[str], size_bytes: int | None) -> Iterator[str]:
    """What the pickle that begins where `file` stands would do that no saved network needs.

    `functions` are the user's own, which may be attributes and nothing else: what is an argument can be
    called. `size_bytes` is that of the file where torch does not compare tensors with it. Raises
    UnpicklingError for what torch does not read either, and what a list or dict raises where the pickle takes
    what is not there.
    """
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "GLOBAL":
                stack.append(_Global(_full_name(argument)))
            case "MARK":
                marks.append(stack)
                stack = []
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE" | "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                if name == "TUPLE":
                    items, stack = stack, marks.pop()
                else:
                    items = [stack.pop() for _ in range(_TUPLES[name])][::-1]
                yield from (
                    f"passes {item.name} on"
                    for item in items
                    if isinstance(item, _Global) and item.name in functions
                )
                stack.append(tuple(items))
            case "APPENDS" | "SETITEMS":
                stack = marks.pop()
            case "APPEND" | "SETITEM" as name:
                del stack[-_POPPED[name] :]
            case "REDUCE":
                arguments = stack.pop()
                yield from _objections_to_call(stack[-1], arguments)
                stack[-1] = _Made(stack[-1].name)
            case "NEWOBJ":
                arguments = stack.pop()
                if arguments != () and stack[-1] != _Global(_PARAMETER):
                    yield f"calls {_told(stack[-1])}"
                stack[-1] = None
            case "BUILD":
                state = stack.pop()
                made = stack[-1].caller if isinstance(stack[-1], _Made) else None
                if isinstance(state, tuple) and len(state) > 2 and made not in _WITH_LONG_STATES:
                    yield "sets what a tensor refers to"
            case "BINPERSID":
                elements = stack.pop()[4]
                if size_bytes is not None and elements > size_bytes:
                    yield f"takes {elements:,} numbers from a file of {size_bytes:,} bytes"
                stack.append(_Stored(elements))
            case name if name in _VALUES:
                stack.append(argument)
            case name if name in _OTHER_VALUES:
                if isinstance(argument, str) and _METHODS.fullmatch(argument):
                    yield f"gives an object a {argument} of its own"
                stack.append(None)
            case "PROTO" | "STOP":
                pass
            case name:
                raise pickle.UnpicklingError(f"unsupported operand {name}")


def _objections_to_call(called: object, arguments: object) -> Iterator[str]:
    name = called.name if isinstance(called, _Global) else None
    rebuilt = name is not None and _REBUILT.fullmatch(name) is not None
    if (name not in _CALLED and not rebuilt) or not isinstance(arguments, tuple):
        yield f"calls {_told(called)}"
        return
    if name in _OF_A_LENGTH and any(
        isinstance(item, int) and abs(item) > _LARGEST_LENGTH for item in arguments
    ):
        yield f"makes a {name} of more than {_LARGEST_LENGTH:,}"
    if rebuilt and arguments and isinstance(arguments[0], _Stored):
        size = arguments[2]
        if not isinstance(size, tuple) or math.prod(size) > max(arguments[0].elements, LARGEST_SHARED):
            yield "makes a tensor larger than what is stored of it"
    if name == "torch._tensor._rebuild_from_type_v2":
        yield from _objections_to_call(arguments[0], arguments[2])


def _full_name(argument: str) -> str:
    """The name of a global as torch reads it, in today's spelling."""
    module, _, name = argument.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _told(value: object) -> str:
    return value.name if isinstance(value, _Global) else "what it made itself"
