"""From a network to the lifted graph: capture with torch.export, lift, and prove that nothing changed."""

from __future__ import annotations

import copy as copying
import linecache
import logging
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from slimcv.errors import FAULTS, SlimcvError, first_line
from slimcv.models.lifting import lift
from slimcv.models.randomness import DROPOUTS, StochasticDepth, random_operators
from slimcv.models.rewriting import CLASSIFIERS_ONLY
from slimcv.step import InputSpec

__all__ = [
    "FAULTS",
    "capture",
    "check_equal",
    "checked",
    "copy",
    "deterministic",
    "example",
    "export",
    "exported",
    "first_line",
    "lift",
    "only_tensor",
    "quiet",
    "set_training",
    "shapes",
]

TOLERANCE = 1e-5
"""Largest difference that counts as equal, times the largest output where that is above one."""

COMPARED = 3
"""Pictures that graph and network are compared on: not as many as `export` traces with, or a batch size that
tracing wrote into the graph would never show."""

_Norm = nn.modules.batchnorm._NormBase

_ANY_NUMBER = (
    "its code must take any number of pictures: x.flatten(1) instead of x.view(8, -1), and no loop over them"
)

_EVAL_MODE = "its outputs must be finite and depend on nothing but its input in eval mode"

_CHATTER = (
    "torch.export", "torch._export", "torch._export.serde.serialize", "torch.fx", "torch._dynamo",
    "torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes",
)  # fmt: skip
"""Loggers that repeat what an exception says."""


def capture(module: nn.Module, input: InputSpec) -> fx.GraphModule:
    """The lifted graph of `module`, in eval mode, sharing its parameters and checked against it.

    Captured in training mode, so that dropout and stochastic depth are kept; in eval mode where the network
    has other outputs (auxiliary heads) or other randomness while training. Its own mode is left as it was.

    Raises SlimcvError where the network does not run on such an input, is no image classifier, cannot be
    captured (naming the line of its code), or where the captured graph computes something else.
    """
    training = {part: part.training for part in module.modules()}
    averaging = [norm for norm in training if isinstance(norm, _Norm) and norm.momentum is None]
    try:
        for norm in averaging:
            # As an export in eval mode has it: in training mode the counter is read, which cannot be traced.
            norm.momentum = 0.0
        expected = _answer(module, input)
        try:
            lifted = _captured(module.train(), input)
            check_equal(lifted, expected, input=input)
        except SlimcvError:
            lifted = _captured(module.eval(), input)
            check_equal(lifted, expected, input=input)
    finally:
        for part, mode in training.items():
            part.training = mode
        for norm in averaging:
            norm.momentum = None
    return lifted


def checked(program: ExportedProgram, *, own: InputSpec, input: InputSpec) -> fx.GraphModule:
    """The lifted graph of somebody's exported program, in eval mode, checked on pictures like `own`.

    `own` has the size it was exported for. A program for one batch size becomes one for any. Raises
    SlimcvError where it does not, where it cannot take pictures like `input`, or where the graph differs.
    """
    lifted = lift(program)
    _require_steady(lifted)
    original = program.module(check_guards=False)
    batch = _batch(program)
    _idle(original)
    count = 2 * batch + 1
    try:
        more = example(input, batch=count)
        with torch.no_grad():
            expected = torch.utils._pytree.tree_leaves(original(example(own, batch=batch)))[0]
            alone, together = lifted(more[:batch]), lifted(more)
    except FAULTS as error:
        raise SlimcvError(
            f"the exported program does not run on {count} pictures of {input}: {first_line(error)}",
            "leave --input away, or export for any batch: dynamic_shapes=({0: torch.export.Dim.AUTO},)",
        ) from error
    if not random_operators(original.graph):
        check_equal(lifted, expected, input=own)
    _require_each(together, count=len(more))
    _require_equal(together[:batch], alone)
    return lifted


def _idle(original: fx.GraphModule) -> None:
    """Puts the batch norms and dropouts of an exported graph into eval mode."""
    places = {"batch_norm": 5, **{name + end: 2 for name in DROPOUTS for end in ("", "_")}}
    for node in original.graph.nodes:
        name = str(node.target).removeprefix("aten.").partition(".")[0]
        if (
            node.op == "call_function"
            and name in places
            and (name != "batch_norm" or node.args[3] is not None)
        ):
            node.update_arg(places[name], False)
    original.recompile()


def _batch(program: ExportedProgram) -> int:
    """The batch size in the example a program was exported with."""
    name = program.graph_signature.user_inputs[0]
    size = next(node for node in program.graph.nodes if node.name == name).meta["val"].shape[0]
    return size if isinstance(size, int) else 2


def exported(model: fx.GraphModule, input: InputSpec) -> ExportedProgram:
    """The exported program of a lifted (or INT8) graph in eval mode, batch dimension dynamic."""
    set_training(model, False)
    return export(model, input)


def set_training(model: fx.GraphModule, training: bool) -> None:
    """Puts every module, and the batch norms left as operators, into training or eval mode."""
    for part in model.modules():
        part.training = training
    changed = False
    for node in model.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default):
        if node.args[3] is not None and node.args[5] is not training:
            node.update_arg(5, training)
            changed = True
    if changed:
        model.recompile()


def copy(model: fx.GraphModule) -> fx.GraphModule:
    """A private copy that shares no tensor with `model`."""
    return copying.deepcopy(model)


def deterministic(model: fx.GraphModule) -> fx.GraphModule:
    """A copy without dropout and stochastic depth: the graph for a runtime, equal in eval mode."""
    bare = copy(model)
    idle = (nn.modules.dropout._DropoutNd, StochasticDepth)
    for node in list(bare.graph.nodes):
        if node.op == "call_module" and isinstance(bare.get_submodule(node.target), idle):
            node.replace_all_uses_with(node.args[0])
            bare.graph.erase_node(node)
    bare.delete_all_unused_submodules()
    bare.recompile()
    return bare


def shapes(model: fx.GraphModule, input: InputSpec, *, batch: int = 2) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in the graph by node name, for a batch of pictures; nothing is computed."""
    modes = {part: part.training for part in model.modules()}
    set_training(model, False)
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            return followed(model, torch.empty(batch, *input.shape))
    finally:
        for part, mode in modes.items():
            part.training = mode


def followed(model: fx.GraphModule, pictures: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by node name when the graph is run on `(n, channels, height, width)`."""
    found: dict[str, tuple[int, ...]] = {}

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                found[n.name] = tuple(value.shape)
            return value

    Shapes(model).run(pictures)
    return found


def example(input: InputSpec, *, batch: int = 2) -> Tensor:
    """Random pictures `(batch, channels, height, width)`, standard normal, the same at every call."""
    return torch.randn(batch, *input.shape, generator=torch.Generator().manual_seed(0))


def check_equal(lifted: fx.GraphModule, expected: Tensor, *, input: InputSpec) -> None:
    """Raises SlimcvError unless the graph answers the example, of as many pictures, with `expected`."""
    _require_steady(lifted)
    pictures = example(input, batch=len(expected))
    try:
        with torch.no_grad():
            answer = lifted(pictures)
    except FAULTS as error:
        raise SlimcvError(
            f"the captured graph does not run on {len(pictures)} pictures: {first_line(error)}", _ANY_NUMBER
        ) from error
    _require_each(answer, count=len(pictures))
    _require_equal(answer, expected)


def _require_steady(lifted: fx.GraphModule) -> None:
    """Raises SlimcvError where the graph draws random numbers, which may go unseen in a few pictures."""
    if random := random_operators(lifted.graph):
        raise SlimcvError(
            f"the captured graph draws random numbers in eval mode ({', '.join(random)})", _EVAL_MODE
        )


def _require_each(answer: Tensor, *, count: int) -> None:
    if len(answer) != count:
        raise SlimcvError(
            f"the model only works with one batch size: captured, it gives {len(answer)} answers to {count} "
            "pictures",
            _ANY_NUMBER,
        )


def _require_equal(answer: Tensor, expected: Tensor) -> None:
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    difference = float((answer - expected).abs().max()) if answer.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE * scale:
        raise SlimcvError(
            f"the captured graph differs from the model by {difference:.2g} on random input", _EVAL_MODE
        )


def _answer(module: nn.Module, input: InputSpec) -> Tensor:
    """What the network answers to the example of `COMPARED` pictures, in eval mode."""
    try:
        with torch.no_grad():
            output = module.eval()(example(input, batch=COMPARED))
    except FAULTS as error:
        raise SlimcvError(
            f"the model does not run on {input} pictures: {first_line(error)}{_where(error)}",
            f"give the input the model was trained for, e.g. --input 3x224x224; {_ANY_NUMBER}",
        ) from error
    return only_tensor(output, input)


def only_tensor(output: object, input: InputSpec) -> Tensor:
    """The class scores `(batch, classes)` in what a network answered, alone or in a container.

    Raises SlimcvError where that is anything else.
    """
    leaves = torch.utils._pytree.tree_leaves(output)
    if len(leaves) != 1 or not isinstance(leaves[0], Tensor) or leaves[0].ndim != 2:
        seen = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in leaves)
        raise SlimcvError(
            f"on {input} pictures the model puts out {seen or 'nothing'}",
            CLASSIFIERS_ONLY,
        )
    return leaves[0]


def _captured(module: nn.Module, input: InputSpec) -> fx.GraphModule:
    try:
        program = export(module, input)
    except FAULTS as error:
        raise SlimcvError(
            f"torch.export cannot capture the model: {first_line(error)}{_where(error)}",
            "rewrite that line: what is computed may depend on shapes, not on the values in a tensor",
        ) from error
    return lift(program)


def export(module: nn.Module, input: InputSpec) -> ExportedProgram:
    """The exported program of a module in the mode it is in, batch dimension dynamic."""
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (example(input),), dynamic_shapes=({0: Dim.AUTO},), strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's log lines, which repeat the exception they precede, off stderr."""
    loggers = [logging.getLogger(name) for name in _CHATTER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _where(error: BaseException) -> str:
    """` (file:line: source)` of the innermost line of the model's own code in the traceback, or nothing."""
    packages = sysconfig.get_path("purelib")
    foreign = tuple(f"{packages}/{name}/" for name in ("torch", "sympy", "numpy"))
    foreign += (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    library = sysconfig.get_path("stdlib")
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        for frame, line in reversed(list(traceback.walk_tb(link.__traceback__))):
            file = frame.f_code.co_filename
            installed = file.startswith(library) and not file.startswith(packages)
            if not installed and not file.startswith(foreign):
                source = linecache.getline(file, line).strip()
                return f" ({file}:{line}: {source})"
    return ""
