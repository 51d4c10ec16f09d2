"""What a worker does for `synthesize` on a TPU: translates, compares with the original, and compiles ahead of time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vivace.core.program import Model
from vivace.data import samples
from vivace.runtimes import batches, eager, store
from vivace.runtimes.xla import ahead, stablehlo

MOST_CALLS = 32
"""On which the translation is compared with the original."""
_PRODUCTS = {"float32": "highest", "bfloat16": "default"}


class Translator:
    """A captured program of form TORCH, on its way to a TPU; files go to `folder`."""

    def __init__(self, original: Path, folder: Path) -> None:
        self._original = store.read_model(original)
        self._folder = folder
        self._made: dict[str, Model] = {}

    def translate(self, size: int) -> dict[str, Any]:
        """Write the program folder "program" for calls of one and of `size` samples. Raises NotApplicable."""
        made = self._as(products="float32").replace(lineage=("xla",))
        if made.signature.has_batch:
            sizes = json.dumps(sorted({1, size}))
            made = made.replace(settings=made.settings.with_options(batches=sizes))
        store.save(made, self._folder / "program")
        return {}

    def compare(self, calls: str) -> dict[str, Any]:
        """The stored program beside the original on stored calls: the largest relative error, and whether it is within
        rounding."""
        program = store.load(self._folder / "program")
        coarse = eager.is_coarse(self._original.program)
        worst, agrees, chosen = 0.0, True, list(samples.read(Path(calls)))[:MOST_CALLS]
        for leaves in chosen:
            with torch.no_grad():
                expected = eager.run_flat(self._original.program, leaves)
            for want, got in zip(expected, program.run(leaves), strict=True):
                agrees = agrees and want.dtype is got.dtype and batches.close(want, got, coarse)
                worst = max(worst, _error(want, got))
        program.close()
        return {"calls": len(chosen), "relative_error": worst, "agrees": agrees}

    def analyse(self, topology: str, chips: int, size: int, products: str) -> dict[str, Any]:
        """What the compiler says; {"lacking": reason} where it finds no room. Raises NotApplicable."""
        try:
            found = ahead.analyse(self._as(products), size, topology, chips)
        except ahead.TooLarge as error:
            return {"lacking": error.reason}
        return dataclasses.asdict(found)

    def _as(self, products: str) -> Model:
        if products not in self._made:
            self._made[products] = stablehlo.to_xla(self._original, self._folder / products, _PRODUCTS[products])
        return self._made[products]


def _error(want: torch.Tensor, got: torch.Tensor) -> float:
    if want.numel() == 0:
        return 0.0
    largest = want.double().abs().max().item()
    return (want.double() - got.double()).abs().max().item() / (largest or 1.0)


def open_translator(arguments: Mapping[str, Any], payload: object | None = None) -> Translator:
    """The worker's entry: {"original": program folder, "folder": where files go}."""
    return Translator(Path(arguments["original"]), Path(arguments["folder"]))
