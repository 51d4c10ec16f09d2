"""What the original answers in float64, by which plans that only round are judged."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vivace.core.structure import flatten
from vivace.data import samples
from vivace.data.samples import read_outputs
from vivace.search.inspection import Inspection


class FarIsFaint(nn.Module):
    """Attention with a mask that stays in float32 whatever the model is in."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).unflatten(-1, (3, 1, -1)).permute(2, 0, 3, 1, 4)
        place = torch.arange(x.shape[1])
        mask = -0.1 * (place - place[:, None]).abs().float()
        return functional.scaled_dot_product_attention(query, key, value, mask)


def test_attention_beside_a_mask_in_float32_is_exact_in_float64(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model, x = FarIsFaint().eval(), torch.randn(4, 12, 8)
    _, call = flatten({"x": x}, torch.is_tensor)
    calls = samples.write(tmp_path / "calls", [[x]], call, 1)

    told = Inspection(model, None).reference(str(calls), str(tmp_path / "exact.safetensors"))

    assert told == {"reason": ""}
    ((found,),) = list(read_outputs(tmp_path / "exact.safetensors"))
    with torch.no_grad():
        wide = model.double()
        query, key, value = wide.project(x.double()).unflatten(-1, (3, 1, -1)).permute(2, 0, 3, 1, 4)
        place = torch.arange(12)
        scores = query @ key.transpose(-1, -2) / 8**0.5 - 0.1 * (place - place[:, None]).abs()
    assert torch.allclose(found.double(), scores.softmax(-1) @ value, rtol=1e-6, atol=1e-8)
