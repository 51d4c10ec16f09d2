"""What is said of a layer that has no place in hardware here: which one, why, and what to do."""

from __future__ import annotations

import re
from typing import Any

from torch import fx

from vivace.core.errors import UnsupportedModel

SUPPORTED = (
    "linear, conv2d (also depthwise and grouped), batch normalization, max and average pooling, add of two maps, ReLU, "
    "ReLU6, hardtanh, clamp, flatten and dropout"
)
ADVICE = {
    "softmax": "leave it to the host: export the model without it, since the largest score stays the largest",
    "log_softmax": "leave it to the host: export the model without it, since the largest score stays the largest",
    "sigmoid": "leave it to the host if it is the last layer, or train with ReLU or hardtanh in its place",
    "tanh": "train with hardtanh in its place",
    "gelu": "train with ReLU or ReLU6 in its place",
    "silu": "train with ReLU or ReLU6 in its place",
    "hardswish": "train with ReLU6 in its place",
    "leaky_relu": "train with ReLU in its place",
    "elu": "train with ReLU in its place",
    "cat": "add the branches instead of joining them",
    "layer_norm": "train with batch normalization, which is folded into the weights",
    "group_norm": "train with batch normalization, which is folded into the weights",
    "conv1d": "write it as a conv2d with a height of 1",
    **dict.fromkeys(
        ("lstm", "gru", "rnn_tanh", "rnn_relu"), "take a convolutional network in place of recurrent layers"
    ),
    "scaled_dot_product_attention": "take a convolutional network in place of attention",
    "pad": "give the zeros to the convolution or the pool that follows (padding=); other padding has no engine",
    "embedding": "look the rows up on the host and give them as the input",
}
"""By the operator's name."""
_CONVOLUTION = "dilation 1, and an odd kernel with padding='same'"
_POOL = "ceil_mode=False where it changes the size, and no"
FORMS = {
    **dict.fromkeys(("conv2d", "convolution"), _CONVOLUTION),
    "avg_pool2d": f"{_POOL} divisor_override; with padding, count_include_pad=True",
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices"), f"{_POOL} dilation"),
    **dict.fromkeys(
        ("adaptive_avg_pool2d", "adaptive_max_pool2d"), "an output size that divides the map's height and width"
    ),
    **dict.fromkeys(
        ("linear", "addmm", "matmul", "mm"), "a product of one vector a sample, [samples, features], with fixed weights"
    ),
    "batch_norm": "evaluation with running statistics",
    "mean": "a mean over height and width",
    "add": "a sum of two maps of the same shape, unscaled, or of a map and one constant a channel",
    **dict.fromkeys(("flatten", "view", "reshape", "unsafe_view", "squeeze"), "flattening to [samples, features]"),
    **dict.fromkeys(("clamp", "hardtanh", "clamp_min", "clamp_max"), "bounds that are constants"),
}
"""What an engine takes, for operators that have one."""
_ROOT = re.compile(r"^L\['?self'?\]\.?|^L__self___?")


def refusal(node: fx.Node, operator: str, in_another_form: bool = False) -> UnsupportedModel:
    """That an operator has no engine, with its layer and what to do; or none in the form in which it is used."""
    plain = operator.strip("_")
    advice = ADVICE.get(plain, "take it out of the model or replace it by one of these")
    what = "has no engine here"
    if in_another_form:
        what = "in the form in which the model uses it has no engine here"
        advice = f"its engine takes {FORMS[plain]}" if plain in FORMS else advice
    return UnsupportedModel(
        f"layer {name_of(node)}: the operation {plain} {what}; {advice}. Hardware here computes {SUPPORTED}"
    )


def name_of(node: fx.Node) -> str:
    """The path of the module that a node came from; its own name where the model does it itself."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] if isinstance(entry, tuple) else str(entry) for entry in stack.values()]
    path = _ROOT.sub("", paths[-1]).removeprefix("module.") if paths else ""
    return path if path not in ("", "module") and not path.startswith("_empty") else node.name
