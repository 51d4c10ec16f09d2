"""The benchmark of single calls on a CUDA card: plans beside torch.compile, each waited for, in one process in turns.

python benchmarks/card_calls.py                        # about ten minutes on one card
python benchmarks/card_calls.py --only mnist_mlp resnet18x64

Networks and data are those of `inference.py`, the weights trained here. Every arm's calls walk distinct inputs; eager
PyTorch in float32 comes between the blocks of each other arm (ABBA), and the fastest plan and the fastest tool of each
precision are then set against each other in the same way.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import turns
from inference import keep, say
from prepare import WORK
from training_table import RESULTS
from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.devices.ceilings import measure_device_ceiling
from vivace.measure.clock import quiet_collector, time_device_calls
from vivace.measure.services.probe import fastest_device_seconds
from vivace.runtimes import capture, store
from vivace.techniques.compile.inductor import Inductor
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.techniques.precision.tf32 import Tf32
from vivace.techniques.target.cuda_graphs import CudaGraphs

Run = Callable[[Tensor], Any]
CALLS = (
    "mnist_mlp", "digits_cnn", "resnet18", "transformer", "vision_transformer", "decoder_prefill", "resnet18x64",
    "vision_transformerx64", "decoder_prefillx16",
)  # fmt: skip
"""Workloads of `inference.py`, some with so many times the samples in a call."""
DISTINCT, BLOCKS, BLOCK_SECONDS, WARM_CALLS = 8, 10, 0.03, 20
PRECISIONS: dict[str, tuple[Technique, ...]] = {"f32": (), "tf32": (Tf32(),), "bf16": (Bfloat16(),)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CALLS, default=CALLS, metavar="NAME", help="some networks only")
    parser.add_argument("--modes", nargs="+", default=("default", "reduce-overhead"), help="modes of torch.compile")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results (default benchmarks/results)")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.only:
        rows.append(compared(name, options.modes))
        document = {
            "card": torch.cuda.get_device_name(), "ceiling": vars(measure_device_ceiling(fastest_device_seconds)),
            "networks": rows, "conditions": {"blocks": BLOCKS, "block_seconds": BLOCK_SECONDS, "inputs": DISTINCT},
        }  # fmt: skip
        keep(options.results / "card-calls.json", document)


def compared(name: str, modes: Sequence[str]) -> dict[str, Any]:
    """One network: every arm against eager float32, and ours against the tools."""
    workload, _, times = name.partition("x") if name not in WORKLOAD_NAMES else (name, "", "")
    work = importlib.import_module(f"workloads.{workload}").workload()
    inputs = [torch.cat([one[0]] * int(times or 1)).cuda() for one in work.data[:DISTINCT]]
    original = work.model.cuda().eval()
    eager = under(torch.inference_mode(), original)
    reference = eager(inputs[0])
    arms: dict[str, Run] = {}
    rows: dict[str, dict[str, Any]] = {}
    for label, kind, make in (*ours(original, inputs[0]), *tools(original, modes)):
        torch._dynamo.reset()
        began = time.perf_counter()
        try:
            arms[label] = make()
            answer = arms[label](inputs[0])
        except (NotApplicable, RuntimeError) as error:
            rows[label] = {"kind": kind, "failed": str(error)[:300]}
            say(f"{name}: {label}: {str(error)[:160]}")
            continue
        rows[label] = {
            "kind": kind, "prepare_seconds": time.perf_counter() - began, "error": distance(answer, reference),
            **gain(eager, arms[label], inputs),
        }  # fmt: skip
        say(f"{name}: {label}: {rows[label]['value']:.2f} times eager, {rows[label]['call_seconds'] * 1e6:.0f} us")
    finals = {precision: against(precision, rows, arms, inputs) for precision in PRECISIONS}
    say(f"{name}: { ({p: f and (f['ours'], f['tool'], round(f['value'], 2)) for p, f in finals.items()}) }")
    return {"network": name, "shape": list(inputs[0].shape), "arms": rows, "ours_over_tools": finals}


def ours(original: nn.Module, example: Tensor) -> list[tuple[str, str, Callable[[], Run]]]:
    """Our plans of each precision, as they are stored and loaded again."""
    captured = capture.capture(copy.deepcopy(original).cpu(), (example.cpu(),)).model
    on_card = captured.replace(settings=captured.settings.replace(device="cuda:0"))

    def opened(plan: Plan) -> Run:
        model = on_card
        for technique in plan:
            model = technique.apply(model, None)  # type: ignore[arg-type]
        folder = Path(tempfile.mkdtemp(dir=WORK))
        store.save(model, folder / "program")
        return store.load(folder / "program")

    graphs = ((CudaGraphs(),), (Inductor(freeze=True), CudaGraphs()), (Inductor(freeze=False), CudaGraphs()))
    plans = [(precision, Plan.of([*first, *then])) for precision, first in PRECISIONS.items() for then in graphs]
    return [(str(plan), precision, lambda plan=plan: opened(plan)) for precision, plan in plans]  # type: ignore[misc]


def tools(original: nn.Module, modes: Sequence[str]) -> list[tuple[str, str, Callable[[], Run]]]:
    """torch.compile in its modes and precisions, and eager PyTorch in the coarser ones."""
    found: list[tuple[str, str, Callable[[], Run]]] = []
    for precision in PRECISIONS:
        for mode in (None, *modes):
            label = f"PyTorch {precision}" if mode is None else f"torch.compile {mode} {precision}"
            if label != "PyTorch f32":
                found.append((label, f"tool {precision}", lambda p=precision, m=mode: tool(original, p, m)))  # type: ignore[misc]
    return found


def tool(original: nn.Module, precision: str, mode: str | None) -> Run:
    """As its documentation says: answers of graphs are copied out of their memory."""
    model = copy.deepcopy(original)
    model = model.bfloat16() if precision == "bf16" else model
    run: Any = model if mode is None else torch.compile(model, mode=None if mode == "default" else mode)
    is_graph = mode in ("reduce-overhead", "max-autotune")

    def call(x: Tensor) -> Any:
        if is_graph:
            torch.compiler.cudagraph_mark_step_begin()
        found = run(x.bfloat16() if precision == "bf16" and x.is_floating_point() else x)
        found = found.clone() if is_graph else found
        return found.float() if precision == "bf16" else found

    return under(torch.inference_mode(), under(Tf32Allowed(), call) if precision == "tf32" else call)


class Tf32Allowed:
    """TF32 products inside."""

    def __enter__(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def under(context: Any, run: Run) -> Run:
    def inner(x: Tensor) -> Any:
        with context:
            return run(x)

    return inner


def against(precision: str, rows: dict[str, Any], arms: dict[str, Run], inputs: list[Tensor]) -> dict[str, Any] | None:
    """The fastest plan of a precision over the fastest tool of it."""

    def fastest(kind: str) -> str | None:
        timed = [label for label, row in rows.items() if row["kind"] == kind and "value" in row]
        return max(timed, key=lambda label: rows[label]["value"], default=None)

    mine, theirs = fastest(precision), fastest(f"tool {precision}")
    if mine is None or theirs is None:
        return None
    return {"ours": mine, "tool": theirs, **gain(arms[theirs], arms[mine], inputs)}


def gain(one: Run, other: Run, inputs: list[Tensor]) -> dict[str, float]:
    """How many times faster the second one's calls are, in blocks that take turns (ABBA)."""
    counts = []
    for run in (one, other):
        block(run, inputs, WARM_CALLS)
        counts.append(max(DISTINCT, int(BLOCK_SECONDS / block(run, inputs, DISTINCT))))
    seconds = []

    def timed() -> float:
        seconds.append(block(other, inputs, counts[1]))
        return seconds[-1]

    with quiet_collector():
        found = turns.ratio(lambda: block(one, inputs, counts[0]), timed, BLOCKS)
    return {**found, "call_seconds": float(np.median(seconds))}


def block(run: Run, inputs: list[Tensor], count: int) -> float:
    """The median seconds of so many calls, each waited for."""
    return float(np.median(time_device_calls(lambda i: run(inputs[i % len(inputs)]), range(count))))


def distance(answer: Tensor, reference: Tensor) -> float:
    return float((answer.float() - reference).norm() / reference.norm())


WORKLOAD_NAMES = tuple(name for name in CALLS if importlib.util.find_spec(f"workloads.{name}"))

if __name__ == "__main__":
    main()
