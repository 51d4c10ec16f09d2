"""Which modules take statistics of their batch, and would take others of a part of it, or of the same batch twice."""

from __future__ import annotations

from torch import nn


def taking_statistics(model: nn.Module) -> list[str]:
    """The names of the batch normalizations that take statistics of the batch in a training as the model is now.

    One that stays in evaluation mode, because the model's own `train` puts it there, normalizes by what it holds: no
    row is changed by another. So does a class that says in its name that it is frozen.

    >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2).eval(), nn.LayerNorm(2))
    >>> taking_statistics(model)
    ['0']
    """
    return [name for name, module in model.named_modules() if _takes(module)]


def _takes(module: nn.Module) -> bool:
    kind = type(module).__name__
    if "BatchNorm" not in kind or "Frozen" in kind:
        return False
    return module.training or getattr(module, "running_mean", None) is None
