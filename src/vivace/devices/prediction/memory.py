"""What a training holds on one device: weights, gradients, the optimizer's state, activations; and what fits."""

from __future__ import annotations

import math

from vivace.core.prediction.layout import Layout, Memory
from vivace.core.prediction.work import Transformer

MIXED_ADAM = (2, 2, 12)
"""Bytes a weight of weights, gradients and optimizer in mixed precision with Adam: weights and gradients in 16 bits,
and a copy, a mean and a variance in 32. Source: Rajbhandari and others, ZeRO, arXiv 1910.02054, section 3.1."""
SHARDINGS = ("none", "optimizer", "optimizer and gradients", "optimizer, gradients and weights")


def states(
    weight_bytes: float,
    gradient_bytes: float,
    optimizer_bytes: float,
    activation_bytes: float,
    data: int = 1,
    sharding: int = 0,
    capacity_bytes: float | None = None,
) -> Memory:
    """What each of `data` devices holds when `sharding` says what they split: a stage of ZeRO, 0 to 3.

    >>> [states(2, 2, 12, 0, data=4, sharding=stage).held_bytes for stage in range(4)]
    [16.0, 7.0, 5.5, 4.0]
    """
    parts = [data if sharding >= stage else 1 for stage in (3, 2, 1)]
    held = [size / part for size, part in zip((weight_bytes, gradient_bytes, optimizer_bytes), parts, strict=True)]
    return Memory(held[0], held[1], held[2], float(activation_bytes), capacity_bytes, SHARDINGS[sharding])


def least_sharding(memory_of: dict[int, Memory]) -> Memory:
    """The first stage that fits; the last one where none does."""
    return next((memory_of[stage] for stage in sorted(memory_of) if memory_of[stage].fits), memory_of[max(memory_of)])


def layer_activation_bytes(
    model: Transformer, micro_batch: int, tensor: int = 1, recompute: bool = False, scores: bool = False
) -> float:
    """Bytes of activations that one layer keeps for its gradients, in 16 bits: s b h (10 + 24/t), with 5 a s / (h t)
    more in the brackets where attention keeps its `scores`; or its input alone, 2 s b h, where it is computed again.

    Fused attention keeps no scores (Dao and others, arXiv 2205.14135). With them 175 of the 216 trainings of
    llm-foundry, all of which ran, would not fit. Source: Korthikanti and others, Reducing Activation Recomputation in
    Large Transformer Models, arXiv 2205.05198, equations 2 and 4.

    >>> model = Transformer(layers=96, width=12288, heads=96, sequence=2048)
    >>> [round(layer_activation_bytes(model, 1, scores=kept) / 2**30, 2) for kept in (True, False)]
    [2.67, 0.8]
    """
    tokens = micro_batch * model.sequence * model.width
    if recompute:
        return 2.0 * tokens
    kept = 5 * model.heads * model.sequence / model.width if scores else 0.0
    return tokens * (10 + 24 / tensor + kept / tensor)


def transformer_memory(
    model: Transformer, layout: Layout, micro_batches: int, capacity_bytes: float | None = None
) -> Memory:
    """What the fullest device of a layout holds, in mixed precision with Adam.

    The first stage of a pipeline holds the activations of as many micro-batches as there are stages (1F1B), and the
    embedding; with `recompute` one layer's are there in full beside the inputs of all.
    """
    layers = math.ceil(model.layers / layout.pipeline)
    weights = (layers * model.layer_parameters + model.vocabulary * model.width) / layout.tensor
    each = layer_activation_bytes(model, layout.micro_batch, layout.tensor, layout.recompute)
    in_flight = min(layout.pipeline, micro_batches)
    kept = layers * each * in_flight
    if layout.recompute:
        kept += layer_activation_bytes(model, layout.micro_batch, layout.tensor)
    logits = 4.0 * layout.micro_batch * model.sequence * model.vocabulary / layout.tensor
    stored, gradients, optimizer = (weights * share for share in MIXED_ADAM)
    return states(stored, gradients, optimizer, kept + logits, layout.data, layout.sharding, capacity_bytes)
