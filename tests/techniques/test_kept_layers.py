"""A layer that the user names stays in float in whatever any technique makes, or the technique says that it cannot."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.layer import chosen
from vivace.core.program import Model
from vivace.core.technique import Effect, Stage, Technique
from vivace.core.work import Work
from vivace.measure.fidelity import compare_outputs
from vivace.runtimes import store
from vivace.runtimes.graphs.layers import layers_of
from vivace.techniques import CATALOGUE
from vivace.techniques.compile.native_int8 import NativeInt8
from vivace.techniques.precision.nncf_static_int8 import NncfStaticInt8
from vivace.techniques.precision.onnx_dynamic_int8 import OnnxDynamicInt8
from vivace.techniques.precision.onnx_static_int8 import OnnxStaticInt8
from vivace.techniques.precision.onnx_weight_only import OnnxWeightOnly
from vivace.techniques.precision.openvino_weight_only import OpenvinoWeightOnly
from vivace.techniques.precision.torchao_dynamic_int8 import TorchaoDynamicInt8
from vivace.techniques.precision.torchao_weight_only_int8 import TorchaoWeightOnlyInt8
from vivace.testing import contract
from vivace.testing.tiny import Tiny

WIDTH = 64
HELD_DB, LOST_DB = 12.0, 9.0
"""What bfloat16, and 4 bits of a layer that suffers little, hold; and what no rounding of the hard weights reaches."""
AFTER_PRUNING = [Stage.PRECISION, Stage.MEMORY, Stage.PARALLEL, Stage.COMPILE, Stage.TARGET]
CHANGING = [one for one in CATALOGUE if one.runs() and one.effect is Effect.CHANGED and one.stage in AFTER_PRUNING]
"""All that may do another computation with weights that it did not take away: who quantizes is among them, whatever it
says of itself."""
OF_CONVOLUTIONS = (NativeInt8, NncfStaticInt8, OnnxStaticInt8, OpenvinoWeightOnly)
OF_PRODUCTS_ALONE = (OnnxDynamicInt8, OnnxWeightOnly, TorchaoDynamicInt8, TorchaoWeightOnlyInt8)
QUANTIZING = [one for one in CHANGING if Fact.UNQUANTIZED in one.breaks]


class Hard(nn.Module):
    """Two layers of weights. In every 16th input the second one's weights are 300 times as large, and meet a zero: no
    scale of a channel or of a block holds the others beside them."""

    def __init__(self, easy: nn.Module, hard: nn.Module) -> None:
        super().__init__()
        self.easy, self.hard = easy, hard
        large = torch.arange(WIDTH) % 16 == 0
        with torch.no_grad():
            easy.weight.copy_(easy.weight.sign())  # type: ignore[operator, union-attr]
            easy.weight[large] = 0.0  # type: ignore[index, operator]
            easy.bias[large] = 0.0  # type: ignore[index, operator]
            hard.weight[:, large] = 300.0  # type: ignore[index, operator]

    def forward(self, x: Tensor) -> Tensor:
        """The answer of the hard layer."""
        found: Tensor = self.hard(torch.tanh(self.easy(x) / 8))
        return found


LINEAR = Tiny(
    "linear",
    lambda: Hard(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)),
    lambda count, generator: (torch.randn(count, WIDTH, generator=generator),),
)
CONVOLUTION = Tiny(
    "convolution",
    lambda: Hard(nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)),
    lambda count, generator: (torch.randn(count, WIDTH, 6, 6, generator=generator),),
)
NETS = [LINEAR, CONVOLUTION]


def job(net: Tiny, folder: Path, *keep: str) -> tuple[Model, Work]:
    """A net as a builder finds it, with these layers named by the user."""
    original = contract.prepare(net, folder / "original")
    layers = layers_of(original)
    work = contract.describe(original, net, folder)
    return original, dataclasses.replace(work, layers=layers, keep=chosen(layers, keep))


def made(technique: Technique, model: Model, work: Work) -> tuple[Model, float] | str:
    """What a plan with a technique makes, and how near its answers are in dB; why there is none."""
    plan = contract.runnable_plan(technique, work)
    if isinstance(plan, str):
        return plan
    try:
        for one in plan:
            model = one.apply(model, work)
    except NotApplicable as error:
        return error.reason
    store.save(model, work.folder / "made")
    net = next(one for one in NETS if one.name == work.name)
    with torch.no_grad():
        wanted, found = net.model()(*net.inputs()), store.load(work.folder / "made", trust=True)(*net.inputs())
    return model, compare_outputs([[wanted]], [[found]]).sqnr_db


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
@pytest.mark.parametrize("kind", CHANGING, ids=lambda kind: kind.name())
def test_a_named_layer_stays_in_float_or_the_technique_does_not_apply(
    kind: type[Technique], net: Tiny, tmp_path: Path
) -> None:
    for place, technique in enumerate(contract.variants_of(kind)):
        model, work = job(net, tmp_path / str(place), "hard")

        found = made(technique, model, work)

        assert found if isinstance(found, str) else found[1] > HELD_DB, f"{technique}: {found}"
        assert isinstance(found, str) or not set(work.keep) & set(found[0].quantized)


@pytest.mark.parametrize("kind", QUANTIZING, ids=lambda kind: kind.name())
def test_where_nothing_is_named_the_same_layer_is_quantized(kind: type[Technique], tmp_path: Path) -> None:
    model, work = job(LINEAR, tmp_path)

    found = made(contract.variants_of(kind)[0], model, work)

    if isinstance(found, str):
        pytest.skip(found)
    assert found[1] < LOST_DB
    assert set(found[0].quantized) in (set(), {layer.name for layer in work.layers})


@pytest.mark.parametrize(
    ("net", "kind"),
    [
        *((CONVOLUTION, kind) for kind in OF_CONVOLUTIONS),
        *((LINEAR, kind) for kind in (*OF_CONVOLUTIONS, *OF_PRODUCTS_ALONE)),
    ],
    ids=lambda value: value.name if isinstance(value, Tiny) else value.name(),
)
def test_what_is_made_tells_which_layers_are_in_integers(net: Tiny, kind: type[Technique], tmp_path: Path) -> None:
    model, work = job(net, tmp_path, "hard")

    found = made(contract.variants_of(kind)[0], model, work)

    assert not isinstance(found, str)
    assert found[0].quantized == (work.layers[0].name,)


@pytest.mark.parametrize("kind", QUANTIZING, ids=lambda kind: kind.name())
def test_where_every_layer_is_named_nothing_is_quantized(kind: type[Technique], tmp_path: Path) -> None:
    model, work = job(LINEAR, tmp_path, "easy", "hard")

    found = made(contract.variants_of(kind)[0], model, work)

    assert isinstance(found, str)
