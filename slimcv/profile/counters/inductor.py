"""Inductor: the time of each line of the program that it generates, and which layers that line is made of."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from slimcv.errors import SlimcvError, first_line
from slimcv.models import capture
from slimcv.profile import kinds, named
from slimcv.profile.counters import SECONDS, Executed, Ran
from slimcv.profile.counters.calls import timed, undisturbed
from slimcv.profile.timing import threads_set
from slimcv.runtimes import inductor as runtime
from slimcv.runtimes.quiet import quiet

if TYPE_CHECKING:
    from slimcv.step import Variant

_SOURCES = re.compile(r"# Topologically Sorted Source Nodes: \[(.*?)\]")
_CALL = re.compile(r"(?:\w+ = )?(?:torch\.ops\.)?([A-Za-z_][\w.]*)\(")
_GENERATED = "cpp_"
_CALLS = ("call_module", "call_function", "call_method")
_HOUSEKEEPING = frozenset(
    {"args.clear", "assert_size_stride", "assert_alignment", "empty_strided_cpu", "reinterpret_tensor"}
)


def run(variant: Variant, *, threads: int) -> Ran:
    """See `slimcv.profile.counters.count`; compiles the network, which takes seconds to minutes."""
    runtime.require_compiler()
    batch = capture.example(variant.input, batch=1)
    model = named.marked(variant.model)
    with (
        threads_set(threads),
        torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16, enabled=variant.precision == "bf16"),
    ):
        compiled, path = _compiled(model, batch)
        call_ms, calls = timed(lambda: compiled(batch), seconds=SECONDS)
        times: dict[int, list[float]] = defaultdict(list)
        for _ in range(calls):
            for line, spent in _lines(lambda: compiled(batch), path).items():
                times[line].append(spent)
    lines = Path(path).read_text("utf-8").splitlines()
    executed = _completed(_shared_out(_executed(lines, times, variant.model), variant.model), variant.model)
    return Ran(executed, call_ms, variant.precision, calls)


def _compiled(model: fx.GraphModule, batch: Tensor) -> tuple[Callable[[Tensor], Tensor], str]:
    """The network compiled with frozen weights, and the file with the program that calls its kernels."""
    import torch._inductor.config as config
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.codecache import PyCodeCache
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.exc import InductorError

    def backend(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
        for node in graph.graph.nodes:
            marks = named.marks(*map(str, node.meta.get("nn_module_stack", {}).values()))
            if marks and node.op.startswith("call"):
                node._rename(f"at{marks[-1]}_{node.name}")
        graph.recompile()
        return compile_fx(graph, list(inputs))

    before = len(PyCodeCache.modules)
    compiled = torch.compile(model, backend=backend, dynamic=False, fullgraph=True)
    try:
        with quiet(), config.patch(freezing=True, fx_graph_cache=False):
            compiled(batch)
    except (TorchDynamoException, InductorError) as error:
        reason = first_line(error)
        raise SlimcvError(f"torch.compile failed: {reason}", "profile it in another --runtime") from error
    programs = [one.__file__ for one in PyCodeCache.modules[before:] if hasattr(one, "call")]
    if len(programs) != 1:
        raise SlimcvError(
            f"torch.compile made {len(programs)} programs of the network, not one",
            "profile it in another --runtime",
        )
    return compiled, str(programs[0])


def _lines(call: Callable[[], object], path: str) -> dict[int, float]:
    """Milliseconds by line number of the function `call` in the file, while something is called."""
    spent: dict[int, float] = defaultdict(float)
    last = [0, 0.0]

    def line(_frame: FrameType, event: str, _argument: object) -> Any:
        now = perf_counter()
        if last[0]:
            spent[int(last[0])] += 1000 * (now - last[1])
        last[:] = [0 if event == "return" else _frame.f_lineno, perf_counter()]
        return line

    def frame(entered: FrameType, _event: str, _argument: object) -> Any:
        code = entered.f_code
        return line if code.co_filename == path and code.co_name == "call" else None

    before = sys.gettrace()
    sys.settrace(frame)
    try:
        call()
    finally:
        sys.settrace(before)
    return spent


def _executed(
    lines: Sequence[str], times: Mapping[int, list[float]], model: fx.GraphModule
) -> list[Executed]:
    """Calls of kernels with the layers that the comments above them name, and the program around them."""
    marked = named.Named(b"", tuple(node.name for node in model.graph.nodes))
    found: list[Executed] = []
    waiting = 0.0
    sources: tuple[str, ...] = ()
    for number, text in enumerate(lines, start=1):
        said = _SOURCES.search(text)
        if said is not None:
            sources = marked.sources(said[1])
        if number not in times:
            continue
        waiting += undisturbed(times[number])
        kernel = _CALL.match(text.strip())
        if kernel is None or kernel[1] in _HOUSEKEEPING:
            continue
        generated = kernel[1].startswith(_GENERATED)
        found.append(Executed(f"{kernel[1]}:{number}", kernel[1], waiting, () if generated else sources))
        waiting, sources = 0.0, sources if generated else ()
    if waiting:
        found.append(Executed("the program around the kernels", "Python", waiting, ()))
    return found


def _shared_out(executed: Sequence[Executed], model: fx.GraphModule) -> list[Executed]:
    """The layers of generated kernels, which have no comment of their own but a name of their operators.

    The comment above a library's call names what it reads too: of that, all but its own last layer was made
    by the generated kernels before it. Behind the last library's call they make whatever nobody has named.
    """
    found = list(executed)
    operators = {node.name: _operator(node) for node in model.graph.nodes}
    begun = 0
    for place, one in enumerate(executed):
        if one.kind.startswith(_GENERATED) or not one.sources:
            continue
        found[place] = _dealt(found, range(begun, place), found[place], operators)
        begun = place + 1
    named_already = {name for one in found for name in one.sources}
    calls = [node.name for node in model.graph.nodes if node.op in _CALLS]
    last = max((at for at, name in enumerate(calls) if name in named_already), default=-1)
    rest = [place for place in range(begun, len(found)) if found[place].kind.startswith(_GENERATED)]
    if rest:
        found[rest[-1]] = replace(found[rest[-1]], sources=tuple(calls[last + 1 :]))
    return found


def _dealt(
    found: list[Executed], before: Iterable[int], library: Executed, operators: Mapping[str, str]
) -> Executed:
    """The library's call with the layers left to it; those of the kernels `before` it are written there."""
    left = list(library.sources)
    for place in before:
        if found[place].kind.startswith(_GENERATED):
            words = set(found[place].kind.split("_"))
            own = [name for name in left[:-1] if operators[name] in words]
            found[place] = replace(found[place], sources=tuple(own))
            left = [name for name in left if name not in own]
    return replace(library, sources=tuple(left))


def _completed(executed: Sequence[Executed], model: fx.GraphModule) -> tuple[Executed, ...]:
    """Layers that no kernel speaks of, such as those folded into its weights, go to who reads them.

    A kernel without any layer changes the layout of what the next one reads.
    """
    kernel_of: dict[str, int] = {}
    for place, one in enumerate(executed):
        for name in one.sources:
            kernel_of.setdefault(name, place)
    added: dict[int, list[str]] = defaultdict(list)
    last = max((place for place, one in enumerate(executed) if one.sources), default=None)
    for node in reversed(model.graph.nodes):
        if node.op not in _CALLS or node.name in kernel_of:
            continue
        readers = [kernel_of[user.name] for user in node.users if user.name in kernel_of]
        reader = min(readers, default=last)
        if reader is not None:
            kernel_of[node.name] = reader
            added[reader].append(node.name)
    done: list[Executed] = []
    following: tuple[str, ...] = ()
    for place, one in reversed(list(enumerate(executed))):
        own = (*one.sources, *added[place])
        following = own or following
        done.append(replace(one, sources=following if one.kind.startswith(_GENERATED) else own))
    return tuple(reversed(done))


def _operator(node: fx.Node) -> str:
    return kinds.function_name(node).removesuffix("_") if node.op == "call_function" else ""
