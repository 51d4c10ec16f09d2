"""The array's Verilog compiled by CXXRTL and run on matrix products: every sum, and the cycles, compared."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vivace.core.documents import strict_json
from vivace.core.errors import EnvironmentFault, ProofFailed, UsageError
from vivace.hardware.array.chip import Chip, Dataflow
from vivace.hardware.array.cycles import Gemm, compute_cycles, walk_of
from vivace.hardware.array.sparse import compress, padded, rows_of
from vivace.hardware.array.verilog import ACTIVATION_BITS, TOP, lane_bits, verilog_of
from vivace.hardware.chip import tools

Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclasses.dataclass(frozen=True, eq=False)
class Operands:
    """One product: `activations` [M, K] of 8 bits, signed or not, and `weights` [K, N] of 8 signed bits."""

    name: str
    activations: Integers
    weights: Integers
    signed: bool

    def gemm(self, sparse: bool) -> Gemm:
        """Its sizes; `sparse` says that the weights are 2:4 and may be walked as such."""
        return Gemm(len(self.activations), self.weights.shape[1], self.weights.shape[0], sparse=sparse)


@dataclasses.dataclass(frozen=True)
class Checked:
    """A product that the simulated array computed without one wrong bit, in as many cycles as the closed form says."""

    name: str
    rows: int
    columns: int
    depth: int
    sparse: bool
    cycles: int
    sums: int


@dataclasses.dataclass(frozen=True)
class Simulator:
    """A compiled array, in its folder."""

    chip: Chip
    program: Path

    def prove(self, products: Sequence[Operands], seconds: float = 300.0) -> tuple[Checked, ...]:
        """Run products and compare each sum with NumPy's, and the cycles with the closed form's.

        Products with 2:4 weights run as such on a chip that skips zeros. Raises ProofFailed for the first difference,
        with the product, the place, and both numbers.
        """
        jobs = [_job(product, self.chip) for product in products]
        folder = self.program.parent
        with (folder / "job.bin").open("wb") as file:
            for job in jobs:
                file.write(job.image)
        found = strict_json.loads(tools.execute(self.program, [], seconds))
        if not isinstance(found, dict) or len(found["cycles"]) != len(jobs):
            raise EnvironmentFault("the simulator gave no result")
        results = np.fromfile(folder / "result.bin", np.int32)
        checked, place = [], 0
        for product, job, cycles in zip(products, jobs, found["cycles"], strict=True):
            blocks = results[place : place + job.results].reshape(*job.blocks, job.out_rows, self.chip.columns)
            place += job.results
            checked.append(self._compare(product, job, blocks, int(cycles)))
        return tuple(checked)

    def _compare(self, product: Operands, job: _Job, blocks: np.ndarray[Any, Any], cycles: int) -> Checked:
        gemm = job.gemm
        sums = product.activations.astype(np.float64) @ product.weights.astype(np.float64)
        expected = sums.astype(np.int64)
        flat = blocks.transpose(0, 2, 1, 3).reshape(blocks.shape[0] * job.out_rows, -1)
        received = flat.T if self.chip.dataflow is Dataflow.INPUT else flat
        received = received[: gemm.rows, : gemm.columns]
        wrong = np.argwhere(received != expected)
        if len(wrong):
            row, column = wrong[0]
            raise ProofFailed(
                f"the array does not compute what NumPy does: {product.name}, row {row}, column {column}: expected "
                f"{expected[row, column]}, received {received[row, column]}; no report is written"
            )
        told = compute_cycles(gemm, self.chip)
        if cycles != told:
            raise ProofFailed(
                f"{product.name} took {cycles} cycles in the simulated array, and the closed form says {told}; no "
                "report is written"
            )
        return Checked(product.name, gemm.rows, gemm.columns, gemm.depth, gemm.sparse, cycles, expected.size)


def build(chip: Chip, folder: Path, seconds: float = 300.0) -> Simulator:
    """Compile the array of a chip into a simulator in a folder of its own.

    Raises MissingExtra where Yosys is not installed, EnvironmentFault where there is no C++ compiler or either fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    headers = tools.cxxrtl_headers()
    (folder / f"{TOP}.v").write_text(verilog_of(chip))
    script = f"read_verilog {TOP}.v; prep -top {TOP} -flatten; write_cxxrtl -g0 design.cc"
    tools.run(tools.YOSYS, ["-q", "-p", script], folder, seconds)
    harness = importlib.resources.files("vivace.hardware.array") / "harness.cc"
    (folder / "harness.cc").write_text(harness.read_text(encoding="utf-8"))
    moving, resting = lane_bits(chip)
    rests = "false" if chip.dataflow is Dataflow.OUTPUT else "true"
    (folder / "bench.h").write_text(
        f"constexpr int ROWS = {chip.rows}, COLUMNS = {chip.columns};\n"
        f"constexpr int MOVING_BITS = {moving * chip.rows}, RESTING_BITS = {resting * chip.columns};\n"
        f"constexpr bool RESTS = {rests};\n"
    )
    tools.compile_cpp(folder / "harness.cc", folder / "simulate", headers, seconds)
    return Simulator(chip, folder / "simulate")


@dataclasses.dataclass(frozen=True)
class _Job:
    """One product as the harness reads it; its results are `blocks` of [`out_rows`, columns of the array]."""

    gemm: Gemm
    image: bytes
    blocks: tuple[int, int]
    out_rows: int
    results: int


def _job(product: Operands, chip: Chip) -> _Job:
    weights, activations, sparse = _lanes(product, chip)
    gemm = product.gemm(sparse)
    walk = walk_of(gemm, chip)
    downs, rights = -(-walk.down // chip.rows), -(-walk.right // chip.columns)
    moving_bits, resting_bits = lane_bits(chip)
    output = chip.dataflow is Dataflow.OUTPUT
    if output:  # both pass, along the depth
        left = rows_of(activations.transpose(1, 0, 2), chip.rows)
        top = rows_of(weights, chip.columns)
    else:
        passing, resting = (weights, activations) if chip.dataflow is Dataflow.INPUT else (activations, weights)
        along = passing.transpose(1, 0, 2) if chip.dataflow is Dataflow.INPUT else passing
        rest = resting.transpose(1, 0, 2) if chip.dataflow is Dataflow.INPUT else resting
        left = rows_of(along, chip.rows)  # [downs, passing steps, rows]
        top = _resting_blocks(rest, chip, downs)
    out_rows = chip.rows if output else walk.steps
    table = [
        (down, right, down * rights + right, 1) if output else (down, down * rights + right, right, int(down == 0))
        for right in range(rights)
        for down in range(downs)
    ]
    blocks = (downs, rights) if output else (1, rights)
    outs = blocks[0] * blocks[1]
    head = [int(product.signed), walk.steps, len(table), len(left), len(top), top.shape[1], outs, out_rows]
    image = b"".join([
        np.array(head, np.int32).tobytes(), np.array(table, np.int32).tobytes(),
        _packed(left, moving_bits), _packed(top, resting_bits),
    ])  # fmt: skip
    return _Job(gemm, image, blocks, out_rows, outs * out_rows * chip.columns)


def _lanes(product: Operands, chip: Chip) -> tuple[Integers, Integers, bool]:
    """Weights [steps, N, fields] and activations [M, steps, fields] as they enter the array, each field of 8 bits."""
    activations_fit = _within(product.activations, *((-128, 127) if product.signed else (0, 255)))
    if not activations_fit or not _within(product.weights, -128, 127):
        raise UsageError(f"{product.name} has integers of more than {ACTIVATION_BITS} bits; the array takes no wider")
    if not chip.sparse:
        return product.weights[:, :, None], product.activations[:, :, None], False
    kept, index, sparse = compress(product.weights)
    groups = padded(product.activations.T, 4).T.reshape(len(product.activations), -1, 4)
    each = 2 if sparse else 4
    activations = np.repeat(groups, each, axis=1)[:, : len(kept)]
    return np.stack([kept, index], -1), activations, sparse


def _within(values: Integers, low: int, high: int) -> bool:
    return bool(values.min() >= low and values.max() <= high)


def _resting_blocks(rest: Integers, chip: Chip, downs: int) -> Integers:
    """[tiles, rows, columns, fields] in the order in which they are loaded: the last row first."""
    columns = rows_of(rest, chip.columns)  # [rights, depth, columns, fields]
    deep = np.zeros((len(columns), downs * chip.rows, *columns.shape[2:]), np.int64)
    deep[:, : columns.shape[1]] = columns
    cut = deep.reshape(len(columns), downs, chip.rows, *columns.shape[2:]).transpose(1, 0, 2, 3, 4)
    return cut.reshape(-1, chip.rows, *columns.shape[2:])[:, ::-1]


def _packed(lanes: Integers, bits: int) -> bytes:
    """[blocks, steps, lanes, fields] as words of 32 bits for each step, the first lane lowest."""
    widths = {8: [8], 10: [8, 2], 32: [8, 8, 8, 8]}[bits]
    parts = [
        np.unpackbits((lanes[..., place] & 0xFF).astype(np.uint8)[..., None], axis=-1, count=width, bitorder="little")
        for place, width in enumerate(widths)
    ]
    flat = np.concatenate(parts, -1).reshape(*lanes.shape[:2], -1)
    whole = np.zeros((*flat.shape[:2], -(-flat.shape[2] // 32) * 32), np.uint8)
    whole[..., : flat.shape[2]] = flat
    return np.packbits(whole, axis=-1, bitorder="little").tobytes()
