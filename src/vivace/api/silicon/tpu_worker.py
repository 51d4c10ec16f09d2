"""What a worker does for `synthesize` on a TPU: translates, compares with the original, and compiles ahead of time."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vivace.core.errors import NotApplicable
from vivace.core.program import Model
from vivace.data import samples
from vivace.measure import fidelity
from vivace.runtimes import batches, eager, store
from vivace.runtimes.graphs.float64 import in_float64
from vivace.runtimes.xla import ahead, graph, mesh, sharding, stablehlo
from vivace.runtimes.xla.layout import ALONE, OPTION, Layout
from vivace.techniques.precision.narrow import narrowed

MOST_CALLS = 32
"""On which the translation is compared with the original."""
MOST_MESH_CALLS = 4
MOST_HOST_DEVICES = 16
"""Devices that XLA's CPU back end pretends to have: more of them than cores wait for one another."""
FLOAT32_ERROR = 1e-4
"""Of the largest answer that a float32 program may differ by from PyTorch."""
_PRODUCTS = {"float32": "highest", "bfloat16": "default"}

Answers = Sequence[Sequence[Tensor]]


class Translator:
    """A captured program of form TORCH, on its way to a TPU; files go to `folder`."""

    def __init__(self, original: Path, folder: Path) -> None:
        self._original = store.read_model(original)
        self._folder = folder
        self._made: dict[str, Model] = {}

    def translate(self, size: int, data: int = 1, tensor: int = 1) -> dict[str, Any]:
        """Write the program folder "program" for calls of one and of `size` samples, to be run over so many parts where
        there are devices for them. Raises NotApplicable."""
        made = self._loadable(self._as(products="float32"), size)
        layout = self._layout(data, tensor)
        if layout.devices > 1:
            made = made.replace(settings=made.settings.with_options(**{OPTION: layout.as_option()}))
        store.save(made.replace(lineage=("xla",)), self._folder / "program")
        return {}

    def compare(self, calls: str, referee: str, exact: str | None) -> dict[str, Any]:
        """The stored program beside the original on stored calls: the largest relative error, and whether it is right.

        float32 is right within FLOAT32_ERROR of the largest answer. A network that computes in 16 bits is judged by
        `exact`, which has what it answers to the calls of `referee` in float64: its error may be twice the original's.
        """
        program = store.load(self._folder / "program")
        chosen = list(samples.read(Path(calls)))[:MOST_CALLS]
        wanted, found = self._eager(self._original, chosen), [list(program.run(leaves)) for leaves in chosen]
        coarse = eager.is_coarse(self._original.program)
        reason = _wrong(wanted, found, coarse)
        asked, truth = self._truth(referee, exact) if coarse else ([], None)
        if truth is not None:
            own, given = self._eager(self._original, asked), [list(program.run(leaves)) for leaves in asked]
            agrees, told = fidelity.referee(truth, own, given, self._axes)
            reason = "" if agrees else told
        program.close()
        return {"calls": len(chosen), "relative_error": _largest(wanted, found), "agrees": not reason, "reason": reason}

    def compare_bfloat16(self, size: int, referee: str, exact: str | None) -> dict[str, Any]:
        """The network in bfloat16 in XLA and in PyTorch, both against float64. Raises NotApplicable."""
        asked, truth = self._truth(referee, exact)
        if truth is None:
            raise NotApplicable("the network has no float64 form to judge it by")
        narrow = narrowed(self._original, torch.bfloat16, "bfloat16")
        made = self._loadable(stablehlo.to_xla(narrow, self._folder / "narrow"), size)
        store.save(made, self._folder / "narrow-program")
        program = store.load(self._folder / "narrow-program")
        own, given = self._eager(narrow, asked), [list(program.run(leaves)) for leaves in asked]
        holds, reason = fidelity.referee(truth, own, given, self._axes)
        program.close()
        return {"error": _share(truth, given), "own_error": _share(truth, own), "holds": holds, "reason": reason}

    def split(self, tensor: int) -> list[dict[str, Any]]:
        """How each weight is split into so many parts."""
        program = graph.translatable(self._original.program)
        return [dataclasses.asdict(one) for one in sharding.splits_of(program, tensor)]

    def compare_mesh(self, calls: str, size: int, data: int, tensor: int) -> dict[str, Any]:
        """The stored program over devices of XLA's CPU back end, sharded as over chips, beside the original.

        Of a mesh of more than MOST_HOST_DEVICES there are fewer parts, each then a whole number of them. Raises
        NotApplicable where no stored call has `size` samples.
        """
        model = self._as("float32")
        shapes = [list(shape) for shape in _shapes(model, size)]
        chosen = [one for one in samples.read(Path(calls)) if [list(leaf.shape) for leaf in one] == shapes]
        chosen = chosen[:MOST_MESH_CALLS]
        if not chosen:
            raise NotApplicable(f"no call of {size} samples to check the sharded program with")
        layout = self._layout(data, tensor).within(MOST_HOST_DEVICES)
        wanted, found = self._eager(self._original, chosen), mesh.answers(model, size, layout, chosen)
        reason = _wrong(wanted, found, eager.is_coarse(self._original.program))
        error = _largest(wanted, found)
        return {"devices": layout.devices, "compared": len(chosen), "relative_error": error, "reason": reason}

    def analyse(
        self,
        topology: str,
        chips: int,
        size: int,
        products: str,
        data: int = 1,
        tensor: int = 1,
        config: str | None = None,
    ) -> dict[str, Any]:
        """What the compiler says; {"lacking": reason} where it finds no room. Raises NotApplicable."""
        try:
            found = ahead.analyse(self._as(products), size, topology, chips, self._layout(data, tensor), config)
        except ahead.TooLarge as error:
            return {"lacking": error.reason}
        return dataclasses.asdict(found)

    def _truth(self, referee: str, exact: str | None) -> tuple[list[list[Tensor]], list[list[Tensor]] | None]:
        """The referee's calls and what float64 answers: the original's, else the graph's, else nothing."""
        asked = list(samples.read(Path(referee)))
        if exact is not None:
            return asked, list(samples.read_outputs(Path(exact)))
        try:
            return asked, in_float64(self._original.program, asked)
        except NotApplicable:
            return asked, None

    @property
    def _axes(self) -> list[int | None]:
        return [spec.batch_axis for spec in self._original.signature.outputs]

    def _layout(self, data: int, tensor: int) -> Layout:
        if data * tensor == 1:
            return ALONE
        program = graph.translatable(self._original.program)
        return Layout(data, tensor, tuple(one.dimension for one in sharding.splits_of(program, tensor)))

    def _eager(self, model: Model, calls: Answers) -> list[list[Tensor]]:
        with torch.no_grad():
            return [eager.run_flat(model.program, leaves) for leaves in calls]

    def _loadable(self, made: Model, size: int) -> Model:
        if not made.signature.has_batch:
            return made
        return made.replace(settings=made.settings.with_options(batches=json.dumps(sorted({1, size}))))

    def _as(self, products: str) -> Model:
        if products not in self._made:
            self._made[products] = stablehlo.to_xla(self._original, self._folder / products, _PRODUCTS[products])
        return self._made[products]


def _shapes(model: Model, size: int) -> list[tuple[int, ...]]:
    return [tuple(size if n is None else n for n in spec.shape) for spec in model.signature.inputs]


def _wrong(wanted: Answers, found: Answers, coarse: bool) -> str:
    """Why answers differ by more than rounding; empty where they do not."""
    for call, (original, program) in enumerate(zip(wanted, found, strict=True)):
        for place, (want, got) in enumerate(zip(original, program, strict=True)):
            if want.dtype is not got.dtype or want.shape != got.shape:
                return f"answer {place} of call {call} is {got.dtype} {list(got.shape)}"
            is_right = batches.close(want, got, coarse) if coarse else _error(want, got) <= FLOAT32_ERROR
            if not is_right:
                return f"answer {place} of call {call} differs by {_error(want, got):.2g} of the largest"
    return ""


def _largest(wanted: Answers, found: Answers) -> float:
    pairs = zip(wanted, found, strict=True)
    return max(_error(want, got) for one, other in pairs for want, got in zip(one, other, strict=True))


def _error(want: Tensor, got: Tensor) -> float:
    """The largest difference as a share of the largest answer; infinite where only one of two is a number."""
    if want.numel() == 0:
        return 0.0
    reference, answer = want.double(), got.double()
    same = (reference == answer) | (reference.isnan() & answer.isnan())
    difference = (reference - answer).abs().masked_fill(same, 0.0).max().item()
    largest = reference.masked_fill(~reference.isfinite(), 0.0).abs().max().item()
    return math.inf if math.isnan(difference) else difference / (largest or 1.0)


def _share(exact: Answers, found: Answers) -> float:
    """The root mean square of the error of all floating-point answers over that of the exact ones."""
    noise = signal = 0.0
    for one, other in zip(exact, found, strict=True):
        for want, got in zip(one, other, strict=True):
            if want.is_floating_point():
                noise += (want.double() - got.double()).square().sum().item()
                signal += want.double().square().sum().item()
    return math.sqrt(noise / signal) if signal else 0.0


def open_translator(arguments: Mapping[str, Any], payload: object | None = None) -> Translator:
    """The worker's entry: {"original": program folder, "folder": where files go}."""
    return Translator(Path(arguments["original"]), Path(arguments["folder"]))
