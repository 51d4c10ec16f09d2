"""The same answer alone and in a batch: a candidate whose answers depend on their neighbours is refused."""

from __future__ import annotations

from pathlib import Path

from vivace.core.errors import WorkerFailure
from vivace.core.technique import Effect
from vivace.data import samples
from vivace.measure.fidelity import compare_outputs
from vivace.measure.live import LiveArm
from vivace.measure.process import Phase
from vivace.search.calls.inputs import shapes_of
from vivace.search.prepare import Prepared

ALONE_SAMPLES = 4
LEAST_SQNR_DB = {Effect.EXACT: 60.0, Effect.ROUNDED: 60.0, Effect.CHANGED: 20.0}
"""How close an answer alone must be to the same sample's in a batch, for a plan that only rounds or that changes."""


class Invariance:
    """Compares the first samples of a call with the same samples called one by one.

    Nothing is asked where the program has no batch axis, or where the original itself depends on the batch.
    """

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        self._folder = folder / "alone"
        self._signature = prepared.work.signature
        self._joining = prepared.joining
        self._axes = [spec.batch_axis for spec in self._signature.outputs]
        self._active = self._signature.has_batch and all(axis is not None for axis in self._axes)
        if self._active:
            self._write(samples.read(prepared.race_calls))

    @property
    def is_asked(self) -> bool:
        """Whether every candidate that was not refused gave the same answers alone as in a batch."""
        return self._active

    def learn(self, original: LiveArm) -> None:
        """See whether the original's own answers are independent of the batch."""
        if not self._active:
            return
        try:
            self._active = self._sqnr_db(original) >= LEAST_SQNR_DB[Effect.ROUNDED]
        except (WorkerFailure, RuntimeError, IndexError):  # its answers have other shapes alone than in a batch
            self._active = False

    def refuse(self, arm: LiveArm, effect: Effect) -> str | None:
        """Why the arm's answers depend on the batch; None when they do not."""
        if not self._active:
            return None
        found = self._sqnr_db(arm)
        if found >= LEAST_SQNR_DB[effect]:
            return None
        return (
            f"an answer alone differs from the same sample's in a batch ({found:.1f} dB SQNR; allowed is "
            f"{LEAST_SQNR_DB[effect]:g} dB or more), so answers depend on their neighbours"
        )

    def _write(self, calls: samples.StoredCalls) -> None:
        first = calls[0]
        alike = [leaves for leaves in calls if shapes_of(leaves) == shapes_of(first)]
        axes = [spec.batch_axis for spec in self._signature.inputs]
        size = next(leaf.shape[axis] for leaf, axis in zip(first, axes, strict=True) if axis is not None)
        self._count = min(ALONE_SAMPLES, size)
        if size < 2:
            first = self._joining.as_one(alike[:ALONE_SAMPLES])
            self._count = min(ALONE_SAMPLES, len(alike))
        singles = [
            [leaf if axis is None else leaf.narrow(axis, row, 1) for leaf, axis in zip(first, axes, strict=True)]
            for row in range(self._count)
        ]
        samples.write(self._folder / "together", [first], calls.call, calls.positional)
        samples.write(self._folder / "alone", singles, calls.call, calls.positional)

    def _sqnr_db(self, arm: LiveArm) -> float:
        answers = {}
        for name in ("together", "alone"):
            to = arm.worker.folder / f"{name}.safetensors"
            arm.ask("outputs", {"calls": str(self._folder / name), "to": str(to)}, Phase.VERIFY)
            answers[name] = samples.read_outputs(to)
        together = answers["together"][0]
        rows = [
            [leaf.narrow(axis, row, 1) for leaf, axis in zip(together, self._axes, strict=True) if axis is not None]
            for row in range(self._count)
        ]
        return compare_outputs(rows, answers["alone"], self._axes).sqnr_db
