"""What sort of layer a node of the graph is, in the words of the field."""

from __future__ import annotations

from torch import fx, nn

DENSE_CONVOLUTION = "convolution"
TRANSPOSED = f"transposed {DENSE_CONVOLUTION}"
POINTWISE = "pointwise convolution"
DEPTHWISE = "depthwise convolution"
LINEAR = "linear"
BATCH_NORM = "batch norm"
NORMALISATION = "normalisation"
ACTIVATION = "activation"
ELEMENTWISE = "element-wise"
POOLING = "pooling"
ATTENTION = "attention"
QUANTISATION = "quantisation"
DROPOUT = "dropout"
RESHAPE = "reshape"
COPY = "copy"
"""A reshape that is no view: of joined or padded maps, or of values in another order."""

PASSES_OVER_MEMORY = frozenset({ACTIVATION, ELEMENTWISE, POOLING})
"""Kinds that read a whole tensor for a few operations an element: runtimes merge them or do them faster."""

_FUNCTIONS = {
    ACTIVATION: (
        "relu relu6 leaky_relu gelu silu hardswish hardsigmoid hardtanh sigmoid tanh elu selu celu mish "
        "prelu softplus clamp clamp_min clamp_max threshold"
    ),
    POOLING: (
        "max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_pool2d_with_indices mean amax"
    ),
    ELEMENTWISE: "add sub mul div neg pow rsub square sqrt exp abs minimum maximum where",
    ATTENTION: (
        "scaled_dot_product_attention scaled_dot_product_flash_attention_for_cpu softmax _softmax bmm matmul "
        "baddbmm einsum"
    ),
    NORMALISATION: "layer_norm group_norm instance_norm rms_norm native_layer_norm",
    BATCH_NORM: "batch_norm native_batch_norm _native_batch_norm_legit_no_training",
    LINEAR: "linear addmm mm",
    QUANTISATION: (
        "quantize_per_tensor dequantize_per_tensor quantize_per_channel dequantize_per_channel "
        "choose_qparams quantize_affine dequantize_affine"
    ),
    DROPOUT: "dropout feature_dropout alpha_dropout",
    RESHAPE: (
        "flatten view reshape permute transpose unsqueeze squeeze expand contiguous slice select split chunk "
        "split_with_sizes unbind cat stack pad constant_pad_nd roll getitem sym_size clone to _to_copy size "
        "channel_shuffle pixel_shuffle t unflatten _unsafe_view"
    ),
}
_KIND_OF_FUNCTION = {name: kind for kind, names in _FUNCTIONS.items() for name in names.split()}

_MODULES: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.Linear,), LINEAR),
    ((nn.modules.conv._ConvTransposeNd,), TRANSPOSED),
    ((nn.modules.batchnorm._BatchNorm,), BATCH_NORM),
    ((nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm), NORMALISATION),
    ((nn.modules.dropout._DropoutNd,), DROPOUT),
)


def kind_of(node: fx.Node, shapes: dict[str, tuple[int, ...]]) -> str:
    """The kind of a call; a function nobody knows is its own kind, by its name.

    `shapes` are the graph's tensors by node name, for convolutions that are not modules.
    """
    if node.op == "call_module":
        module = (
            node.graph.owning_module.get_submodule(str(node.target)) if node.graph.owning_module else None
        )
        return _kind_of_module(module)
    name = function_name(node)
    if name == "conv_transpose2d" or (name == "convolution" and node.args[6] is True):
        return TRANSPOSED
    if name in ("conv2d", "convolution"):
        weight = shapes.get(getattr(node.args[1], "name", ""), ())
        groups = node.args[6 if name != "convolution" else 8 :]
        return kind_of_convolution(weight[2:], groups=_first_int(groups), channels=weight[0] if weight else 0)
    return kind_of_function(name)


def kind_of_function(name: str) -> str:
    """The kind of a function by its bare name, with or without the `_` of one that works in place."""
    return _KIND_OF_FUNCTION.get(name.removesuffix("_"), name)


def function_name(node: fx.Node) -> str:
    """The bare name of a called function: `aten.max_pool2d.default` is `max_pool2d`."""
    schema = getattr(node.target, "_schema", None)
    full = schema.name if schema is not None else getattr(node.target, "__name__", str(node.target))
    return str(full).rpartition("::")[2]


def is_dense_convolution(kind: str) -> bool:
    """A k×k convolution over all channels, k above 1: the kind that `depthwise_separable` splits."""
    return kind.endswith(" " + DENSE_CONVOLUTION) and kind[0].isdigit()


def is_matrix_work(kind: str) -> bool:
    """Convolutions and linear layers: what INT8 speeds up."""
    return kind == LINEAR or kind.endswith(DENSE_CONVOLUTION)


def _kind_of_module(module: nn.Module | None) -> str:
    if isinstance(module, nn.Conv2d):
        return kind_of_convolution(module.kernel_size, groups=module.groups, channels=module.out_channels)
    for types, kind in _MODULES:
        if isinstance(module, types):
            return kind
    name = type(module).__name__
    return DROPOUT if name == "StochasticDepth" else name


def kind_of_convolution(kernel: tuple[int, ...], *, groups: int, channels: int) -> str:
    """The kind of a convolution with that kernel (height, width), and `channels` that it writes."""
    if groups > 1:
        return DEPTHWISE if groups == channels else f"grouped {DENSE_CONVOLUTION}"
    if all(extent == 1 for extent in kernel):
        return POINTWISE
    return "×".join(str(extent) for extent in kernel) + f" {DENSE_CONVOLUTION}"


def _first_int(arguments: tuple[object, ...]) -> int:
    return arguments[0] if arguments and isinstance(arguments[0], int) else 1
