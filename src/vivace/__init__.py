"""Vivace makes deep-learning models faster and proves it. `import vivace as vv`; names load when first used."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivace.api import metrics
    from vivace.api.accelerate import accelerate
    from vivace.api.measure import measure
    from vivace.api.optimize import optimize
    from vivace.api.parity import parity
    from vivace.api.prediction.predict import predict
    from vivace.api.quantum.verb import quantum
    from vivace.api.silicon.synthesize import synthesize
    from vivace.api.together.cluster import optimize_on_cluster
    from vivace.api.train import train
    from vivace.artifact.load import load
    from vivace.core import errors
    from vivace.core.prediction.work import Transformer
    from vivace.core.quality import Budget
    from vivace.core.training.job import Training
    from vivace.core.workload import Workload
    from vivace.training.keras_job import keras_training

    __version__: str

__all__ = [
    "Budget", "Training", "Transformer", "Workload", "__version__", "accelerate", "errors", "keras_training", "load",
    "measure", "metrics", "optimize", "optimize_on_cluster", "parity", "predict", "quantum", "synthesize", "train",
]  # fmt: skip

_HOMES = {
    "Budget": "vivace.core.quality",
    "Training": "vivace.core.training.job",
    "Transformer": "vivace.core.prediction.work",
    "Workload": "vivace.core.workload",
    "accelerate": "vivace.api",
    "errors": "vivace.core",
    "keras_training": "vivace.training.keras_job",
    "load": "vivace.artifact.load",
    "metrics": "vivace.api",
    "optimize": "vivace.api",
    "optimize_on_cluster": "vivace.api.together.cluster",
    "parity": "vivace.api",
    "quantum": "vivace.api",
    "synthesize": "vivace.api",
    "predict": "vivace.api",
    "train": "vivace.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562), so that `import vivace` stays light."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("vivace")
    if name not in _HOMES:
        raise AttributeError(f"module 'vivace' has no attribute {name!r}; it has {', '.join(__all__)}")
    home = importlib.import_module(_HOMES[name])
    return getattr(home, name, None) or importlib.import_module(f"{_HOMES[name]}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package, in which `measure` and `quantum` are always the verbs although rooms have the same names.

    Python binds a submodule to its package when it is imported; the setter lets that go by. The room is reached with
    `from vivace.measure import ...`, which does not look here.
    """

    def _measure(self) -> Any:
        return importlib.import_module("vivace.api").measure

    def _quantum(self) -> Any:
        return importlib.import_module("vivace.api").quantum

    def _let_go_by(self, room: ModuleType) -> None:
        pass

    measure = property(_measure, _let_go_by)
    quantum = property(_quantum, _let_go_by)


sys.modules[__name__].__class__ = _Package
