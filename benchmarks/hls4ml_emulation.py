"""hls4ml's C++ emulation of a network beside PyTorch: python benchmarks/hls4ml_emulation.py WEIGHTS INPUTS

Runs in an environment of its own (pip install hls4ml==1.3.0 torch). WEIGHTS is a safetensors file of a 64-32-10 network
(1.weight, 1.bias, 3.weight, 3.bias), INPUTS one with `images` and `labels`. Prints one JSON object: how far the
emulation is from the PyTorch network that it was given. `benchmarks/hardware.py --peer PYTHON` starts it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

PRECISIONS = ("ap_fixed<16,6>", "ap_fixed<8,3>")
"""hls4ml's default, and eight bits."""


def network(weights: dict[str, torch.Tensor]) -> nn.Module:
    """The network, without the flatten."""
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    model.load_state_dict({f"{int(name[0]) - 1}{name[1:]}": value for name, value in weights.items()})
    return model.eval()


def emulated(model: nn.Module, images: np.ndarray, precision: str) -> np.ndarray:
    """What hls4ml's compiled C++ gives."""
    import hls4ml

    with tempfile.TemporaryDirectory() as folder:
        config = hls4ml.utils.config_from_pytorch_model(model, (64,), default_precision=precision)
        made = hls4ml.converters.convert_from_pytorch_model(
            model, output_dir=folder, backend="Vitis", hls_config=config, io_type="io_parallel"
        )
        made.compile()
        return made.predict(np.ascontiguousarray(images))


def main() -> None:
    """Compare, and print."""
    model, data = network(load_file(sys.argv[1])), load_file(sys.argv[2])
    images, labels = data["images"].reshape(-1, 64), data["labels"].numpy()
    with torch.no_grad():
        exact = model(images).numpy()
    found = {}
    for precision in PRECISIONS:
        with contextlib.redirect_stdout(sys.stderr):
            answers = emulated(model, images.numpy(), precision)
        difference = np.abs(answers - exact)
        found[precision] = {
            "samples": len(images),
            "largest_difference": float(difference.max()),
            "outputs_that_differ": float((difference > 1e-6).mean()),
            "top_1_agreement": float((answers.argmax(1) == exact.argmax(1)).mean()),
            "accuracy": float((answers.argmax(1) == labels).mean()),
            "accuracy_of_pytorch": float((exact.argmax(1) == labels).mean()),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
