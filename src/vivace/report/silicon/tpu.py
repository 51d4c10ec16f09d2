"""A compilation for a TPU, for people and for programs: the block of a terminal, and the document of results.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vivace.hardware.chip.tpus import Mesh
from vivace.hardware.compiled import (
    Bfloat16Check,
    Collective,
    MeshCheck,
    SplitWeight,
    TpuCompilation,
    TpuEstimate,
    TpuStatus,
)
from vivace.report.document import document_from
from vivace.report.layout import line, plain_table
from vivace.report.silicon.document import SiliconDocument, took
from vivace.report.silicon.hardware import show_time


class TpuDocument(SiliconDocument):
    """results.json of a compilation for a TPU, and what `vivace synthesize --json` prints.

    `kind` is of `estimates`: the compiler's own words. `error_kind` is of `relative_error`, `bfloat16` and
    `mesh_check`, on XLA's CPU back end.
    """

    status: TpuStatus
    kind: Literal["PREDICTED"] = "PREDICTED"
    batch: int
    relative_error: float
    error_kind: Literal["MEASURED"] = "MEASURED"
    compared: int
    memory_bytes: float | None
    devices: int | None
    estimates: list[TpuEstimate]
    bfloat16: Bfloat16Check | None
    mesh: Mesh | None
    topology: str
    splits: list[SplitWeight]
    mesh_check: MeshCheck | None


def document_of(result: TpuCompilation) -> TpuDocument:
    """The document of a result."""
    return document_from(TpuDocument, result)


def synthesis_block(result: TpuCompilation) -> RenderableType:
    """What a reader needs of a compilation, verdict first."""
    parts: list[RenderableType] = [Text(_headline(result), f"bold {'yellow' if result.status.exit_code else 'green'}")]
    parts.append(
        line(
            f"on XLA's CPU back end it differs from the original by {result.relative_error:.1e} of the largest answer "
            f"at most (MEASURED, {result.compared} calls)"
        )
    )
    if result.bfloat16 is not None:
        parts.append(line(_bfloat16_sentence(result.bfloat16)))
    if result.mesh is not None:
        parts += [line(sentence) for sentence in _mesh_sentences(result, result.mesh)]
    if result.estimates:
        each = "" if result.mesh is None else ", on each chip"
        parts.append(line(f"a call of {result.batch} samples{each}, as the compiler sees it (PREDICTED):"))
        parts += [_table(result), line(_memory_sentence(result))]
        if any(one.unpriced for one in result.estimates):
            counts = " and ".join(str(one.unpriced) for one in result.estimates)
            parts.append(
                line(
                    f"the compiler has no time for {counts} custom calls (joins of what was fetched in parts): left out"
                )
            )
        if loops := max(one.loops for one in result.estimates):
            told = (
                f"{loops} loop{'s' if loops > 1 else ''} (recurrent layers): operations, bytes and time are of ONE turn"
            )
            parts.append(line(f"{told} of each, and a call takes as many as it has steps"))
        parts += [line(_collectives_sentence(one.products, one.collectives)) for one in result.estimates if result.mesh]
    parts += [line(f"note: {note}") for note in result.notes]
    parts.append(line(took(result.seconds)))
    over = "" if result.mesh is None else f", sharded where it finds {result.mesh.chips} devices"
    parts.append(
        line(f'next: vivace.load("{result.out}") runs it on whatever JAX finds, a TPU where there is one{over}')
    )
    return Group(*parts)


def _bfloat16_sentence(found: Bfloat16Check) -> str:
    told = (
        f"in bfloat16 it is off float64 by {found.error:.1e}, and PyTorch by {found.own_error:.1e} (root mean square, "
        "MEASURED on XLA's CPU back end)"
    )
    return f"{told}: it holds" if found.holds else f"{told}: it does not hold, {found.reason}"


def _mesh_sentences(result: TpuCompilation, mesh: Mesh) -> Iterator[str]:
    yield (f"mesh: {mesh.chips} chips ({result.topology}), the batch in {mesh.data} and weights in {mesh.tensor} parts")
    split = [one for one in result.splits if one.dimension is not None]
    numbers, held = (sum(math.prod(one.shape) for one in some) for some in (result.splits, split))
    yield f"{len(split)} of {len(result.splits)} weights are split, with {held / max(numbers, 1):.1%} of all numbers"
    if result.mesh_check is not None:
        found = result.mesh_check
        yield (
            f"sharded over {found.devices} devices of XLA's CPU back end it differs from the original by "
            f"{found.relative_error:.1e} of the largest answer at most (MEASURED, {found.compared} calls)"
        )


def _collectives_sentence(products: str, found: Sequence[Collective]) -> str:
    told = ", ".join(f"{one.count} {one.kind} of {one.bytes / 1e6:,.3g} MB in all" for one in found)
    return f"between chips, {products} products: {told or 'nothing'} (PREDICTED)"


def _headline(result: TpuCompilation) -> str:
    place = result.chip if result.mesh is None else f"{result.mesh.chips} x {result.chip}"
    head = f"{result.name} on {place}: {result.status.value}"
    if not result.estimates or result.status is not TpuStatus.COMPILED:
        return head
    quickest = min(one.seconds for one in result.estimates)
    if any(one.loops for one in result.estimates):
        return f"{head}; what a call takes is not told: it loops, and the compiler's time is of one turn"
    return f"{head}; {show_time(quickest)} a call of {result.batch} samples at best, PREDICTED by the compiler"


def _table(result: TpuCompilation) -> Table:
    table = plain_table("products", "time", "operations", "bytes moved", "temporary", "code")
    for one in result.estimates:
        at_least = f"{show_time(one.seconds)} or more" if one.unpriced or one.loops else show_time(one.seconds)
        table.add_row(
            one.products, at_least, f"{one.flops:.3g}", f"{one.accessed_bytes:.3g}",
            *(f"{size / 1e6:.2f} MB" for size in (one.temporary_bytes, one.code_bytes)),
        )  # fmt: skip
    return table


def _memory_sentence(result: TpuCompilation) -> str:
    largest = max(result.estimates, key=lambda one: one.held_bytes)
    told = (
        f"memory: {largest.held_bytes / 1e6:,.2f} MB, of them {largest.argument_bytes / 1e6:,.2f} for weights and "
        f"inputs and {largest.output_bytes / 1e6:,.2f} for answers"
    )
    has = (
        "what the device has is in no source" if result.memory_bytes is None else f"{result.memory_bytes / 1e9:.3g} GB"
    )
    return f"{told}; the device has {has}"
