"""Linear layers with two non-zeros of each four inputs (2:4) beside the same layers dense, on this machine.

python benchmarks/semi_structured.py             # a minute or two; writes results/semi-structured.json

Ratios of paired, interleaved blocks in one process, with one thread and with as many as there are: how many times as
fast as PyTorch's dense product the kernel of `sparse-kernels` is, with 95% intervals.
"""

from __future__ import annotations

import dataclasses

import torch

from inference import keep
from training_table import RESULTS
from vivace.measure import environment, kernels
from vivace.runtimes.settings.around import threads
from vivace.runtimes.sparse import semi_structured
from vivace.techniques.sparsity.magnitude_pruning import mask

SIZES = ((512, 512), (2048, 2048), (4096, 4096))
ROWS = (1, 4, 16, 64)


def main() -> None:
    layers = [
        measured(outputs, inputs, rows, count)
        for count in sorted({1, torch.get_num_threads()})
        for outputs, inputs in SIZES
        for rows in ROWS
    ]
    keep(RESULTS / "semi-structured.json", {"layers": layers, "conditions": {"after": environment.snapshot()}})


def measured(outputs: int, inputs: int, rows: int, count: int) -> dict[str, object]:
    """One layer with so many threads."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator)
    weight = torch.where(mask(weight, 0.5, "2:4"), weight, 0.0)
    x, parts = torch.randn(rows, inputs, generator=generator), semi_structured.packed(weight)
    assert parts is not None
    multiply = semi_structured.operator()
    with threads(count), torch.no_grad():
        found = kernels.speedup(
            lambda: torch.nn.functional.linear(x, weight),
            lambda: multiply(x, *parts, None, outputs, inputs),
        )
    print(f"{count} threads, {outputs} x {inputs}, {rows} rows: {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
    return {
        "outputs": outputs, "inputs": inputs, "rows": rows, "threads": count, "speedup": dataclasses.asdict(found),
        "dense_bytes": 4 * weight.numel(), "stored_bytes": sum(4 * part.numel() for part in parts),
    }  # fmt: skip


if __name__ == "__main__":
    main()
