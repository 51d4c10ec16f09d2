"""What is predicted: a transformer described without code, the operators of a step, what was counted of it."""

from __future__ import annotations

import dataclasses
from enum import Enum

from vivace.core.errors import UsageError


class Purpose(Enum):
    """What a step of the work is: one call of a model, or one update of its weights."""

    INFERENCE = "inference"
    TRAINING = "training"


@dataclasses.dataclass(frozen=True)
class Transformer:
    """A decoder of the GPT kind, described by its sizes; what `predict` takes in the place of code.

    `width` is that of the residual stream, `feed_forward` that of the hidden layer between (4 widths unless it is
    given), `sequence` the tokens of one sample. Raises UsageError for sizes below 1, and heads that do not divide the
    width.

    >>> gpt3 = Transformer(layers=96, width=12288, heads=96, sequence=2048, vocabulary=51200)
    >>> round(gpt3.parameters / 1e9, 1)
    174.6
    """

    layers: int
    width: int
    heads: int
    sequence: int
    vocabulary: int = 50257
    feed_forward: int | None = None
    name: str = "transformer"

    def __post_init__(self) -> None:
        sizes = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}
        for name, size in sizes.items():
            if name == "feed_forward" and size is None:
                continue
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise UsageError(f"{name} is {size!r}; allowed is a whole number of 1 or more")
        if self.width % self.heads:
            raise UsageError(f"heads={self.heads} does not divide width={self.width}; give a divisor")

    @property
    def hidden(self) -> int:
        """The width between the two products of a feed-forward layer."""
        return self.feed_forward or 4 * self.width

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer's products: 4 w^2 of attention, 2 w f of the feed-forward."""
        return 4 * self.width**2 + 2 * self.width * self.hidden

    @property
    def parameters(self) -> int:
        """Weights of all layers and of the embedding, which the last product shares."""
        return self.layers * self.layer_parameters + self.vocabulary * self.width

    @property
    def layer_flops(self) -> float:
        """Operations of one layer for one sample, forward only: 2 s (weights) + 4 s^2 w, the last of attention.

        Source: llm-foundry's count, 2 P s + 4 L d s^2, which does not halve attention for being causal.
        """
        return 2.0 * self.sequence * self.layer_parameters + 4.0 * self.sequence**2 * self.width

    @property
    def flops(self) -> float:
        """Operations of one sample, forward only; a step of training takes three times as many."""
        return self.layers * self.layer_flops + 2.0 * self.sequence * self.vocabulary * self.width


class OperatorKind(Enum):
    """What bounds an operator's arithmetic: a matrix product, a convolution, or neither."""

    PRODUCT = "product"
    CONVOLUTION = "convolution"
    OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator of a step: its operations of products, and the bytes that it reads and writes."""

    name: str
    kind: OperatorKind
    flops: float
    moved_bytes: float


@dataclasses.dataclass(frozen=True)
class Counted:
    """What was counted of one step: operations of products, bytes that operators read and write, how many operators,
    weights, and the samples of a step."""

    name: str
    purpose: Purpose
    batch: int
    flops: float
    moved_bytes: float
    operators: int
    parameters: int
    weight_bytes: float
