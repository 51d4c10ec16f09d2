"""`vv.synthesize`: a network in, and out a design that is proved, placed and routed for a chip."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

from vivace.api.silicon.array import synthesize_array
from vivace.api.silicon.fpga import synthesize_fpga
from vivace.api.silicon.request import checked
from vivace.api.silicon.tpu import PREFIX as TPU
from vivace.api.silicon.tpu import compile_for_tpu
from vivace.core.errors import UsageError
from vivace.core.quality import Budget
from vivace.core.workload import Workload
from vivace.hardware.array.chip import is_array
from vivace.hardware.array.memory import USUAL, Board
from vivace.hardware.array.result import ArraySynthesis
from vivace.hardware.chip.tpus import mesh_of
from vivace.hardware.compiled import TpuCompilation
from vivace.hardware.graph.quantize import Precision
from vivace.hardware.proof.vectors import FEWEST
from vivace.hardware.result import Synthesis
from vivace.report.progress import Progress

OF_INTEGERS = frozenset({"budget", "gate", "weight_bits", "activation_bits", "layer_bits"})
"""Settings of whatever computes in integers."""
OF_PARTS = frozenset({"unroll", "seeds", "vectors", "cycles", "placing", "longest_placing"})
"""Settings of an FPGA alone."""
FLAGS = {"budget": "--max-drop", "placing": "--no-place", "board": "--clock, --bandwidth, --buffer"}
"""What the command line calls settings that have another name there."""


def synthesize(
    work: Workload,
    chip: str,
    out: str | Path = "rtl",
    *,
    budget: Budget = Budget(),
    gate: str = "strict",
    weight_bits: int = 8,
    activation_bits: int = 8,
    layer_bits: Mapping[str, tuple[int, int]] | None = None,
    unroll: Sequence[str] = (),
    time: str | float = "5m",
    seeds: int = 3,
    vectors: int = FEWEST,
    cycles: int | None = None,
    placing: bool = True,
    longest_placing: str | float = "10m",
    board: Board = USUAL,
    batch: int = 1,
    mesh: str | None = None,
    progress: Progress | None = None,
) -> Synthesis | ArraySynthesis | TpuCompilation:
    """Turn a network into Verilog for a chip, prove it bit for bit, place and route it, and keep it all in a folder.

    For a TPU (`chip="tpu-v5e"`) it becomes StableHLO instead, which Google's compiler is asked about, for one chip or
    for a `mesh` of several ("data=2,tensor=4"): what follows is for FPGAs. Settings that mean nothing for the kind of
    chip are refused.

    The network is quantized with its own data, to 1 to 8 bits (`layer_bits` has other (weight, activation) bits for
    layers by name or pattern), and judged against the original within `budget`; only integers that hold go on. The
    fold, that is how many multipliers each layer gets, is the fastest that the part holds and whose placing with
    `seeds` seeds is likely to end within `time`; `cycles` asks for the smallest one that takes no more than so many for
    a sample. Linear layers that `unroll` names, by name or pattern, become adder graphs without multipliers or memory:
    for small and sparse ones. The design is compiled by CXXRTL and compared with the golden model on `vectors` real and
    corner inputs. A placing that is estimated to take more than `longest_placing` (ten minutes) for all seeds is
    refused with the estimate: the design is then proved and synthesized only.

    A chip of the name asic:ROWSxCOLUMNS[:os|ws|is][:2of4] is a systolic array, in which outputs, weights or inputs
    rest: the answer is then an ArraySynthesis, with the cycles and the energy of each layer for `batch` samples on a
    chip with the clock, the bandwidth and the buffer of `board`; nothing is folded, unrolled or placed for it,
    and every layer is simulated on the array with a few samples of the workload's own data.

    Raises UsageError for a chip that is not known (with the nearest names) and for what else cannot be used,
    UnsupportedModel for a layer that has no hardware here or a network that no fold makes fit, MissingExtra where the
    tools are not installed, ProofFailed where the simulation differs: then no result is written.

    >>> result = synthesize(work, chip="ecp5-85k", out="rtl")  # doctest: +SKIP
    >>> result.proof.vectors, result.latency_seconds < 100e-6  # doctest: +SKIP
    (10000, True)
    """
    unroll, layer_bits = tuple(unroll), layer_bits or None
    settings = {
        "budget": budget, "gate": gate, "weight_bits": weight_bits, "activation_bits": activation_bits,
        "layer_bits": layer_bits, "unroll": unroll, "seeds": seeds, "vectors": vectors, "cycles": cycles,
        "placing": placing, "longest_placing": longest_placing, "board": board, "batch": batch, "mesh": mesh,
    }  # fmt: skip
    if isinstance(chip, str) and chip.startswith(TPU):
        _refuse_others(chip, settings, frozenset({"mesh"}))
        return compile_for_tpu(work, chip, Path(out), time, progress, None if mesh is None else mesh_of(mesh))
    named = tuple((pattern, *bits) for pattern, bits in (layer_bits or {}).items())
    precision = Precision(weight_bits, activation_bits, named)
    if is_array(chip):
        _refuse_others(chip, settings, OF_INTEGERS | {"board", "batch"})
        return synthesize_array(
            work, chip, out, budget=budget, gate=gate, precision=precision, time=time, board=board, batch=batch,
            progress=progress,
        )  # fmt: skip
    _refuse_others(chip, settings, OF_INTEGERS | OF_PARTS)
    request = checked(
        work, chip, budget, gate, precision, time, seeds, vectors, cycles, placing, longest_placing, unroll
    )
    return synthesize_fpga(work, request, out, progress)


def _refuse_others(chip: str, settings: Mapping[str, object], used: frozenset[str]) -> None:
    """Raise UsageError for settings that were given and mean nothing for this kind of chip."""
    usual = inspect.signature(synthesize).parameters
    given = [name for name, value in settings.items() if name not in used and value != usual[name].default]
    if given:
        told = ", ".join(f"{name} ({FLAGS.get(name, '--' + name.replace('_', '-'))})" for name in given)
        allowed = ", ".join(sorted(used | {"time"}))
        raise UsageError(f"{told}: of no use for the chip {chip}, for which {allowed} can be set; leave it out")
