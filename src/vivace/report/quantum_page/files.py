"""What a quantum run leaves in a folder: quantum.json, and the page that is drawn from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vivace.devices.disk import write_whole
from vivace.quantum.result import QuantumResult
from vivace.report.quantum_page.document import quantum_document
from vivace.report.quantum_page.page import render
from vivace.report.results import PAGE, QUANTUM


def write_run(result: QuantumResult, out: Path) -> QuantumResult:
    """Write both files, replacing those that are there, and answer the result with its folder."""
    kept = dataclasses.replace(result, out=out)
    document = quantum_document(kept)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in ((QUANTUM, document.to_text()), (PAGE, render(document))):
        write_whole(out / name, text)
    return kept
