"""What Google's TPU compiler says of five networks on four chips, and of one of them on a mesh; no TPU is needed.

    pip install 'jax[tpu]'          # the compiler, under its own terms
    python benchmarks/tpu.py        # some ten minutes

Each network is the workload of the inference benchmark with its trained weights. What is MEASURED is how far its
StableHLO is from PyTorch on XLA's CPU back end; memory, operations and time are the compiler's own words, PREDICTED.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vivace as vv
from vivace.devices.machine import cores_here, detect
from vivace.report.silicon.tpu import document_of

NETWORKS = ("digits_cnn", "vision_transformer", "text_encoder", "lstm", "mnist_mlp")
"""A convolutional network, a ViT, an encoder, an LSTM and a perceptron."""
CHIPS = ("tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e")
MESHED, MESH = "text_encoder_16", "data=2,tensor=4"
RESULT = Path(__file__).parent / "results" / "tpu.json"


def compiled(name: str, chip: str, mesh: str | None = None) -> dict[str, Any]:
    """The document of one network on one chip, or on a mesh of such chips."""
    work = importlib.import_module(f"workloads.{name}").workload()
    with tempfile.TemporaryDirectory() as folder:
        result = vv.synthesize(work, chip=chip, out=Path(folder) / "tpu", time="5m", mesh=mesh)
    document = document_of(result).model_dump(mode="json")
    document["out"] = None
    document["splits"] = len(document["splits"])  # each weight's choice is long
    print(told(name, document), flush=True)
    return {"network": name, **document}


def told(name: str, document: dict[str, Any]) -> str:
    """One line about a network on a chip."""
    estimates = "; ".join(
        f"{one['products']} products {one['seconds'] * 1e6:,.1f} us{' a turn' if one['loops'] else ''}"
        for one in document["estimates"]
    )
    place = document["chip"] if document["mesh"] is None else f"8 x {document['chip']}"
    return (
        f"{name} on {place}: {document['status']}; off PyTorch by {document['relative_error']:.1e} (MEASURED); "
        f"PREDICTED by the compiler: {estimates or 'nothing'}"
    )


def keep(key: str, document: dict[str, Any]) -> None:
    """Write one result down beside those of earlier runs."""
    kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {"results": {}}
    conditions = {
        "command": "python benchmarks/tpu.py",
        "processor": detect().processor,
        "cores": cores_here(),
        "versions": {name: version(name) for name in ("torch", "jax", "jaxlib", "libtpu")},
    }
    found = {**kept["results"], key: document}
    RESULT.write_text(json.dumps({"conditions": conditions, "results": dict(sorted(found.items()))}, indent=1) + "\n")


def main() -> None:
    """Compile all that were asked for, and keep those of earlier runs that were not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[*NETWORKS, MESHED], choices=[*NETWORKS, MESHED])
    arguments = parser.parse_args()
    for name in arguments.only:
        if name == MESHED:
            keep(f"{name} on a mesh", compiled(name, "tpu-v5e", MESH))
            continue
        for chip in CHIPS:
            keep(f"{name} on {chip}", compiled(name, chip))


if __name__ == "__main__":
    main()
