"""The fixture that puts the false front door in place."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from false_api import FalseApi


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FalseApi:
    """Stands in for vivace.api; a target resolves to its own text."""
    false = FalseApi()
    door, target, metrics = ModuleType("vivace.api"), ModuleType("vivace.api.target"), ModuleType("vivace.api.metrics")
    vars(door).update(optimize=false.take("optimize"), measure=false.take("measure"), metrics=metrics)
    vars(target).update(resolve_workload=lambda text: text, resolve=lambda text: text)
    vars(metrics).update(accuracy=lambda output, labels: (output.argmax(1) == labels).float())
    vars(door).update(preview=false.take("preview"))
    for module in (door, target, metrics):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return false
