"""A compilation for a TPU, for people and for programs: the block of a terminal, and the document of results.json."""

from __future__ import annotations

from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vivace.hardware.compiled import TpuCompilation, TpuEstimate, TpuStatus
from vivace.report.document import document_from
from vivace.report.layout import line, plain_table
from vivace.report.silicon.document import SiliconDocument, took
from vivace.report.silicon.hardware import show_time


class TpuDocument(SiliconDocument):
    """results.json of a compilation for a TPU, and what `vivace synthesize --json` prints.

    `kind` is of `estimates`: the compiler's own words. `error_kind` is of `relative_error`, on XLA's CPU back end.
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
    if result.estimates:
        parts += [line(f"a call of {result.batch} samples, as the compiler sees it (PREDICTED):"), _table(result)]
        parts.append(line(_memory_sentence(result)))
    parts += [line(f"note: {note}") for note in result.notes]
    parts.append(line(took(result.seconds)))
    parts.append(line(f'next: vivace.load("{result.out}") runs it on whatever JAX finds, a TPU where there is one'))
    return Group(*parts)


def _headline(result: TpuCompilation) -> str:
    head = f"{result.name} on {result.chip}: {result.status.value}"
    if not result.estimates or result.status is not TpuStatus.COMPILED:
        return head
    quickest = min(one.seconds for one in result.estimates)
    return f"{head}; {show_time(quickest)} a call of {result.batch} samples at best, PREDICTED by the compiler"


def _table(result: TpuCompilation) -> Table:
    table = plain_table("products", "time", "operations", "bytes moved", "temporary", "code")
    for one in result.estimates:
        table.add_row(
            one.products, show_time(one.seconds), f"{one.flops:.3g}", f"{one.accessed_bytes:.3g}",
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
