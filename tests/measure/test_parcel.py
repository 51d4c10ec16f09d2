"""The user's own objects on their way to a worker: what PyTorch would not pickle arrives all the same."""

from __future__ import annotations

import pytest
import rich.text  # noqa: F401  an installed package that is imported here
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from vivace.core.errors import UnsupportedModel
from vivace.measure import parcel
from vivace.measure.live import installed_modules


def network() -> nn.Sequential:
    """Two normed layers of the same class and a plain one."""
    torch.manual_seed(0)
    normed = parametrizations.weight_norm(nn.Conv1d(4, 8, 3))
    spectral = parametrizations.spectral_norm(nn.Linear(8, 8), n_power_iterations=3)
    return nn.Sequential(normed, nn.AdaptiveAvgPool1d(1), nn.Flatten(), spectral, nn.Linear(8, 2)).eval()


def test_a_parametrized_layer_arrives_parametrized() -> None:
    model, x = network(), torch.randn(2, 4, 16)
    arrived = parcel.unpacked(parcel.packed(model))

    assert isinstance(arrived, nn.Sequential)
    assert torch.equal(arrived(x), model(x))
    assert parametrize.is_parametrized(arrived[0], "weight")
    assert isinstance(arrived[0], nn.Conv1d)
    assert sorted(arrived.state_dict()) == sorted(model.state_dict())
    with torch.no_grad():
        arrived[0].parametrizations.weight.original0.mul_(2)
    assert not torch.equal(arrived(x), model(x))  # the weight is computed, not stored


def test_one_parametrization_of_two_tensors_and_two_of_one_arrive() -> None:
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "bias", Doubled())
    x = torch.randn(2, 3)

    arrived = parcel.unpacked(parcel.packed(layer))

    assert isinstance(arrived, nn.Linear)
    assert torch.equal(arrived(x), layer(x))


def test_where_the_layers_of_a_parametrized_network_are_defined_is_known() -> None:
    layer = type("Layer", (nn.Linear,), {"__module__": "rich.text"})(2, 2)
    assert installed_modules(parametrizations.weight_norm(layer)) == ("rich.text",)


def test_what_refuses_to_be_pickled_is_told_with_what_to_do() -> None:
    class Stubborn(nn.Module):
        def __getstate__(self) -> dict[str, object]:
            raise RuntimeError("not me")

    with pytest.raises(UnsupportedModel, match=r"cannot be sent to a worker process: RuntimeError: not me; .*\.pt2"):
        parcel.packed(Stubborn())
