"""What Vivace is compared with: each file opens one tool as its documentation shows, torch tensors in and out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def prepare(arguments: Mapping[str, Any], payload: tuple[Any, Any]) -> dict[str, Any]:
    """In a worker: let a peer convert and calibrate once. `payload` is the model and calls for calibration."""
    module = importlib.import_module(f"peers.{arguments['peer']}")
    prepared: dict[str, Any] = module.prepare(*payload, Path(arguments["folder"]))
    return prepared
