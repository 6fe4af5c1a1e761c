"""Inductor: the time of each line of the program that it generates, which says what layers it is made of."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.profile import named
from slimcv.profile.counters import SECONDS, Executed, Ran
from slimcv.profile.counters.calls import timed, undisturbed
from slimcv.profile.timing import threads_set
from slimcv.runtimes import inductor as runtime
from slimcv.runtimes.quiet import quiet

if TYPE_CHECKING:
    from slimcv.step import Variant

_SOURCES = re.compile(r"# Topologically Sorted Source Nodes: \[(.*?)\]")
_DEFINITION = re.compile(r"(\w+) = async_compile\.")
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
    executed = _completed(tuple(_executed(lines, times, variant.model)), variant.model)
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
        reason = str(error).strip().splitlines()[0]
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
) -> Iterator[Executed]:
    """Calls of kernels with the layers that comments name, and what the program does beside.

    A comment stands above each call of a library, and above the definition of each generated kernel, which
    may be called for several layers that are alike.
    """
    defined: dict[str, tuple[str, ...]] = {}
    marked = named.Named(b"", tuple(node.name for node in model.graph.nodes))
    waiting = 0.0
    sources: tuple[str, ...] = ()
    for number, text in enumerate(lines, start=1):
        said, definition = _SOURCES.search(text), _DEFINITION.match(text)
        if said is not None:
            sources = marked.sources(said[1])
        if definition is not None:
            defined[definition[1]], sources = sources, ()
        if number not in times:
            continue
        waiting += undisturbed(times[number])
        kernel = _CALL.match(text.strip())
        if kernel is None or kernel[1] in _HOUSEKEEPING:
            continue
        name = kernel[1]
        if name in defined:
            found, defined[name] = defined[name], _next_alike(defined[name], model)
        else:
            found, sources = sources, ()
        yield Executed(f"{name}:{number}", name, waiting, found)
        waiting = 0.0
    if waiting:
        yield Executed("the program around the kernels", "Python", waiting, ())


def _next_alike(sources: Sequence[str], model: fx.GraphModule) -> tuple[str, ...]:
    """For each of these nodes the next one in the graph that does the same."""
    nodes = {node.name: node for node in model.graph.nodes}
    ahead = list(nodes.values())
    found = []
    for name in sources:
        first = nodes[name]
        later = ahead[ahead.index(first) + 1 :]
        found += [node.name for node in later if (node.op, node.target) == (first.op, first.target)][:1]
    return tuple(found)


def _completed(executed: Sequence[Executed], model: fx.GraphModule) -> tuple[Executed, ...]:
    """Layers that no kernel speaks of, such as those folded into its weights, go to who reads them."""
    kernel_of: dict[str, int] = {}
    # Where several kernels name a layer, a library's computes it: others change its layout, or read it.
    for place, one in sorted(enumerate(executed), key=lambda pair: pair[1].kind.startswith(_GENERATED)):
        for name in one.sources:
            kernel_of.setdefault(name, place)
    added: dict[int, list[str]] = defaultdict(list)
    last = max((place for place, one in enumerate(executed) if one.sources), default=None)
    for node in reversed(model.graph.nodes):
        if node.op not in _CALLS or node.name in kernel_of:
            continue
        readers = [kernel_of[user.name] for user in node.users if user.name in kernel_of]
        place = readers[0] if readers else last
        if place is not None:
            kernel_of[node.name] = place
            added[place].append(node.name)
    return tuple(replace(one, sources=(*one.sources, *added[place])) for place, one in enumerate(executed))
