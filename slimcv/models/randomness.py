"""What is random while training and idle in eval: dropout and stochastic depth as modules."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimcv.models.aten import arguments_of, name_of, same_size, shape_of

DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
_RANDOM = (
    "rand",
    "multinomial",
    "bernoulli",
    "normal",
    "uniform",
    "exponential",
    "rrelu",
    "poisson",
    "cauchy",
)


class StochasticDepth(nn.Module):
    """Drops whole samples of a residual branch while training: Huang et al. 2016, "Stochastic Depth".

    Dropping channels of an input with one more axis in front drops samples, which keeps it a dropout operator
    that is the identity in eval and survives being exported. Input and output `(n, ...)`.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """`x` with samples set to zero and the others scaled by `1 / (1 - p)`; `x` itself in eval."""
        return torch.feature_dropout(x.unsqueeze(0), self.p, self.training).squeeze(0)

    def extra_repr(self) -> str:
        """The probability of dropping a sample."""
        return f"p={self.p}"


def random_operators(graph: fx.Graph) -> list[str]:
    """Operators left in a lifted graph that draw random numbers, training or not."""
    return sorted({name_of(node) for node in graph.nodes if _draws(node)})


def _draws(node: fx.Node) -> bool:
    return name_of(node).strip("_").startswith(_RANDOM) and arguments_of(node).get("training") is not False


def mark_stochastic_depth(graph: fx.Graph) -> None:
    """Turns `x * (empty.bernoulli_(keep) / keep)`, as timm and torchvision write it, into StochasticDepth.

    Noise that is drawn for more than whole samples, or scaled otherwise, is none, and stays as it is.
    """
    for node in list(graph.nodes):
        if name_of(node) not in ("bernoulli_", "bernoulli") or "p" not in (arguments := arguments_of(node)):
            continue
        noise = _only_user(node, "div")
        product = None if noise is None else _only_user(noise, "mul")
        if noise is None or product is None or noise.args != (node, arguments["p"]):
            continue
        branches = [arg for arg in product.args if isinstance(arg, fx.Node) and arg is not noise]
        if len(branches) != 1 or not _sample_wise(noise, branches[0]):
            continue
        with graph.inserting_before(product):
            call = graph.call_module(_path(product, "drop_path"), (branches[0],))
        call.meta.update(product.meta, module=StochasticDepth(1.0 - arguments["p"]))
        product.replace_all_uses_with(call)
        graph.erase_node(product)


def _only_user(node: fx.Node, name: str) -> fx.Node | None:
    """The one node that reads this one, if it is this operator, in place or not."""
    user = next(iter(node.users), None)
    return user if user and len(node.users) == 1 and name_of(user) in (name, f"{name}_") else None


def _sample_wise(noise: fx.Node, branch: fx.Node) -> bool:
    """Whether noise has one number for all that a sample has in the branch."""
    beyond = shape_of(noise)[1:]
    return len(beyond) == len(shape_of(branch)) - 1 and all(same_size(size, 1) for size in beyond)


def _path(node: fx.Node, fallback: str) -> str:
    """The qualified name of the module that made this call, or one ending in `fallback` for a function."""
    entries = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = entries[-1] if entries else ("", "")
    path = _plain_path(path)
    kind = (kind if isinstance(kind, str) else kind.__name__).rsplit(".", 1)[-1]
    if path and ("Drop" in kind or kind == "StochasticDepth"):
        return path
    return f"{path}.{fallback}" if path else fallback


def _plain_path(path: str) -> str:
    """`a.0` for `a.0@1`, a second call, and for `getattr(L['self'].a, '0')`, as a strict export has it."""
    path = re.sub(r"@\d+", "", path)
    while match := re.fullmatch(r"getattr\((.+), '(\w+)'\)(.*)", path):
        path = f"{match[1]}.{match[2]}{match[3]}"
    path = re.sub(r"^L\['self'\]\.?", "", path)
    return path if re.fullmatch(r"\w+(\.\w+)*", path) else ""


def lift_dropout(node: fx.Node, made: dict[str, Any], *, source: nn.Module) -> None:
    """Puts a dropout module in place of a dropout operator; one that drops nothing goes."""
    graph = node.graph
    data: Any = node.args[0]
    p: Any = node.args[1]
    if not p:
        node.replace_all_uses_with(data)
        graph.erase_node(node)
        return
    rank, kind = len(shape_of(data)), name_of(node)
    squeezed = next(iter(node.users), node)
    sample_wise = name_of(data) == "unsqueeze" and data.args[1] == 0 and len(node.users) == 1
    sample_wise = sample_wise and name_of(squeezed) == "squeeze" and tuple(squeezed.args[1:]) == (0,)
    if kind == "feature_dropout" and sample_wise:
        module: nn.Module = StochasticDepth(p)
        data, last = data.args[0], squeezed
    else:
        kinds = {
            "dropout": nn.Dropout,
            "alpha_dropout": nn.AlphaDropout,
            "feature_alpha_dropout": nn.FeatureAlphaDropout,
        }
        by_rank = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}
        module, last = kinds.get(kind, by_rank.get(rank, nn.Dropout2d))(p), node
    target = free_name(_path(node, "dropout"), made, module=module, source=source)
    made.setdefault(target, module)
    with graph.inserting_before(last):
        call = graph.call_module(target, (data,))
    call.meta.update(last.meta)
    last.replace_all_uses_with(call)
    graph.erase_node(last)
    if last is not node:
        graph.erase_node(node)


def free_name(path: str, made: dict[str, Any], *, module: nn.Module, source: nn.Module) -> str:
    """`path`, or `path` with a number where a different module or a parameter already has that name."""
    number, target = 1, path
    while True:
        taken = made.get(target)
        if (
            taken is not None
            and type(taken) is type(module)
            and taken.p == module.p
            and _bare(source, target)
        ):
            return target
        if taken is None and _bare(source, target) and not any(key.startswith(target + ".") for key in made):
            return target
        target, number = f"{path}_{number}", number + 1


def _bare(source: nn.Module, path: str) -> bool:
    """Whether nothing but parameterless modules stands at this name."""
    found: Any = source
    for part in path.split("."):
        found = getattr(found, part, None)
    return found is None or (isinstance(found, nn.Module) and not list(found.state_dict()))
