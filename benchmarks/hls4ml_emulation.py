"""What hls4ml's C++ emulation of a network answers: python benchmarks/hls4ml_emulation.py WEIGHTS INPUTS ANSWERS

Runs in an environment of its own (pip install hls4ml==1.3.0 torch). WEIGHTS is a safetensors file of a 64-32-10 network
(1.weight, 1.bias, 3.weight, 3.bias), INPUTS one with `images`. Writes ANSWERS, a safetensors file with the answers by
precision, and prints one JSON object: what they were made with. `benchmarks/hardware.py --peer PYTHON` starts it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import nn

PRECISIONS = ("ap_fixed<16,6>", "ap_fixed<8,3>")
"""hls4ml's default, and eight bits."""
SETTINGS = {"backend": "Vitis", "io_type": "io_parallel"}


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
        made = hls4ml.converters.convert_from_pytorch_model(model, output_dir=folder, hls_config=config, **SETTINGS)
        made.compile()
        return made.predict(np.ascontiguousarray(images))


def main() -> None:
    """Emulate, write the answers, and say what with."""
    weights, inputs, answers = sys.argv[1:]
    model, images = network(load_file(weights)), load_file(inputs)["images"].reshape(-1, 64).numpy()
    with contextlib.redirect_stdout(sys.stderr):
        found = {precision: emulated(model, images, precision) for precision in PRECISIONS}
    save_file(found, answers)
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    versions = {name: version(name) for name in ("hls4ml", "torch", "numpy")}
    print(json.dumps({**versions, "compiler": compiler, "python": sys.version.split()[0], **SETTINGS}))


if __name__ == "__main__":
    main()
