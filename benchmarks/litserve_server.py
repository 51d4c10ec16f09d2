"""LitServe serving an artifact of ours: the same model, batched, bytes in base64, in the settings its guide advises.

python benchmarks/litserve_server.py ARTIFACT PORT BATCH
"""

from __future__ import annotations

import base64
import sys

import litserve
import torch
from torch import Tensor

import vivace as vv
from vivace.runtimes.calls import torch_dtype


class Served(litserve.LitAPI):
    """Loads the artifact in LitServe's worker and answers samples of its first input."""

    def __init__(self, artifact: str, batch: int) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=0.0)
        self.artifact = artifact

    def setup(self, device: str) -> None:
        self.model = vv.load(self.artifact, trust=True)
        (spec,) = self.model.signature.inputs
        self.shape, self.dtype = [1, *spec.shape[1:]], torch_dtype(spec.dtype)

    def decode_request(self, request) -> Tensor:  # type: ignore[no-untyped-def]  # a type would have FastAPI check it
        data = bytearray(base64.b64decode(request["data"]))
        return torch.frombuffer(data, dtype=self.dtype).reshape(self.shape)

    def batch(self, inputs: list[Tensor]) -> Tensor:
        return torch.cat(inputs)

    def predict(self, x: Tensor) -> Tensor:
        return self.model.run([x])[0]

    def unbatch(self, output: Tensor) -> list[Tensor]:
        return list(output.split(1))

    def encode_response(self, output: Tensor) -> dict[str, str]:
        return {"data": base64.b64encode(output.detach().numpy().tobytes()).decode()}


if __name__ == "__main__":
    api = Served(sys.argv[1], int(sys.argv[3]))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="error", generate_client_file=False)
