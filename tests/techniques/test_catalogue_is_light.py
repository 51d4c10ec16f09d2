"""Every command and every worker imports the catalogue: what few techniques need is loaded when one of them runs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.distributed.pipelining", "sympy",
         "onnxruntime", "openvino", "nncf", "torchao", "jax", "ray")  # fmt: skip


def test_the_catalogue_loads_no_compiler_and_no_runtime() -> None:
    code = f"import sys, vivace.techniques; print([name for name in {HEAVY} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)

    assert found.stdout.strip() == "[]"
