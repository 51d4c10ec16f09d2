"""Ready-made metrics: (output, target) -> one score per sample, higher is better. Users reach them as vv.metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vivace.core.errors import UsageError
from vivace.core.structure import flatten


def accuracy(output: Any, target: Any) -> torch.Tensor:
    """1 where the highest score is the target's class, else 0.

    `output` is [samples, classes], or an answer that holds one such tensor or has `logits`; `target` is [samples] of
    class numbers. With scores of shape [samples, positions, classes] and targets [samples, positions] a sample's score
    is the share of its positions that are right.

    Raises UsageError when the shapes do not fit.

    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    tensor([1., 0.])
    """
    return top_k(1)(output, target)


@dataclasses.dataclass(frozen=True)
class _TopK:
    """What `top_k` returns; a class, so that it has a name and can be sent to a worker."""

    k: int

    @property
    def __name__(self) -> str:
        return "accuracy" if self.k == 1 else f"top_k({self.k})"

    def __call__(self, output: Any, target: Any) -> torch.Tensor:
        scores, classes = scores_of(output), _numbers(target)
        _check_classes(scores, classes, self.__name__)
        if self.k == 1:
            right = scores.argmax(-1) == classes
        else:
            best = scores.topk(min(self.k, scores.shape[-1]), dim=-1).indices
            right = (best == classes.unsqueeze(-1)).any(-1)
        return right.float().reshape(right.shape[0], -1).mean(1)


def top_k(k: int) -> _TopK:
    """A metric: 1 where the target's class is among the k highest scores, else 0. Shapes as for `accuracy`.

    >>> top_k(2)(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([2]))
    tensor([1.])
    """
    if k < 1:
        raise UsageError(f"top_k received k={k}; allowed is 1 or more")
    return _TopK(k)


def negative_mean_squared_error(output: Any, target: Any) -> torch.Tensor:
    """Minus the mean squared difference of each sample; output and target have one shape, samples first.

    >>> negative_mean_squared_error(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([-2.])
    """
    found, wanted = scores_of(output), _numbers(target).to(torch.float32)
    if found.numel() == wanted.numel() and found.shape[:1] == wanted.shape[:1]:
        wanted = wanted.reshape(found.shape)
    if found.shape != wanted.shape:
        raise UsageError(f"negative_mean_squared_error received an output of shape {list(found.shape)} and a target of "
                         f"shape {list(wanted.shape)}; allowed are equal shapes, samples first")  # fmt: skip
    return -((found.float() - wanted) ** 2).reshape(found.shape[0], -1).mean(1)


def negative_cross_entropy(output: Any, target: Any) -> torch.Tensor:
    """The log-probability of the target's class by the softmax of the scores (nats). Shapes as for `accuracy`.

    >>> negative_cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    scores, classes = scores_of(output), _numbers(target)
    _check_classes(scores, classes, "negative_cross_entropy")
    logs = torch.log_softmax(scores.float(), -1).gather(-1, classes.long().unsqueeze(-1)).squeeze(-1)
    return logs.reshape(logs.shape[0], -1).mean(1)


def scores_of(output: Any) -> torch.Tensor:
    """The tensor that a metric judges: the output itself, its `logits`, or the only tensor in it.

    Raises UsageError when there is more than one and none is called logits.
    """
    if isinstance(output, torch.Tensor):
        return output.detach()
    if isinstance(output, np.ndarray):
        return torch.as_tensor(output)
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, torch.Tensor):
        return named.detach()
    leaves, _ = flatten(output, torch.is_tensor)
    if len(leaves) == 1:
        return torch.as_tensor(leaves[0]).detach()
    raise UsageError(
        f"the model's answer holds {len(leaves)} tensors and none is called logits; allowed is one, so give a metric "
        "of your own: metric=lambda output, target: vv.metrics.accuracy(output[0], target)"
    )


def _numbers(target: Any) -> torch.Tensor:
    return torch.as_tensor(target).detach()


def _check_classes(scores: torch.Tensor, classes: torch.Tensor, name: str) -> None:
    if scores.ndim < 2 or scores.shape[:-1] != classes.shape:
        raise UsageError(
            f"{name} received scores of shape {list(scores.shape)} and targets of shape {list(classes.shape)}; allowed "
            "are scores [samples, classes] with targets [samples] of class numbers"
        )
    wrong = classes[(classes < 0) | (classes >= scores.shape[-1])]
    if wrong.numel():
        raise UsageError(
            f"{name} received the target {wrong[0].item()}; allowed are class numbers from 0 to "
            f"{scores.shape[-1] - 1}, one for each score of the model's answer"
        )
