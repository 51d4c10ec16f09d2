"""Form XLA in bfloat16 and over several devices: judged by float64, split by a stated rule, still the same network."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vivace.core.program import Model
from vivace.data import samples
from vivace.measure import fidelity
from vivace.measure.process import Phase, Worker
from vivace.runtimes import eager, store
from vivace.runtimes.calls import flat_call
from vivace.runtimes.capture import capture
from vivace.techniques.precision.narrow import narrowed

pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")

from xla_networks import NETWORKS, Encoder, convolutional, perceptron

from vivace.runtimes.xla import ahead, sharding, stablehlo
from vivace.runtimes.xla.collectives import Collective, collectives_of

SLOW = ("vit", "encoder", "lstm")
PRINTED = """
  %all-reduce-start.1 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} all-reduce-start(bf16[8,128]{1,0} %a), channel_id=1
  %all-reduce-done = bf16[8,128]{1,0} all-reduce-done(%all-reduce-start.1)
  %gather = (f32[4,64]{1,0:T(4,128)}, f32[16,64]{1,0:T(8,128)}) all-gather-start(f32[4,64]{1,0} %b), dimensions={0}
  ROOT %pair = (f32[2]{0}, pred[3]{0}) all-reduce(%c, %d), to_apply=%add
"""


def marked(names: Any) -> list[Any]:
    """Networks by name; those that take JAX long to compile are marked."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in names]


@pytest.mark.parametrize("name", marked(NETWORKS))
def test_a_network_in_bfloat16_is_as_near_to_float64_as_pytorch_s_own(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, few = NETWORKS[name]
    module, x = build().eval(), many(few)
    narrow = narrowed(capture(module, (x,)).model, torch.bfloat16, "bfloat16")
    store.save(stablehlo.to_xla(narrow, tmp_path / "made"), tmp_path / "program")
    exact = flat_answers(copy.deepcopy(module).double(), x.double() if x.is_floating_point() else x)

    found = list(store.load(tmp_path / "program").run([x]))

    own = eager.run_flat(narrow.program, [x])
    assert fidelity.referee([exact], [own], [found]) == (True, "within twice the original's own rounding error")
    assert 1e-4 < error_of(exact, found) < 0.05  # it was rounded to 8 bits indeed


def many(few: torch.Tensor) -> torch.Tensor:
    """64 samples like the few."""
    generator, shape = torch.Generator().manual_seed(1), (64, *few.shape[1:])
    if few.is_floating_point():
        return torch.randn(shape, generator=generator)
    return torch.randint(0, 100, shape, generator=generator)


def flat_answers(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        answer = module(x)
    return list(answer) if isinstance(answer, tuple) else [answer]


def error_of(exact: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    noise = sum((want - got.double()).square().sum().item() for want, got in zip(exact, found, strict=True))
    return (noise / sum(want.square().sum().item() for want in exact)) ** 0.5


def splits(module: nn.Module, x: torch.Tensor, parts: int) -> dict[str, int | None]:
    program = capture(module.eval(), (x,)).model.program
    return {one.name: one.dimension for one in sharding.splits_of(program, parts)}


def test_linear_layers_are_split_by_outputs_and_then_by_inputs() -> None:
    found = splits(perceptron(), torch.randn(4, 20), 4)

    assert found == {"0.weight": 0, "0.bias": 0, "2.weight": 1, "2.bias": None, "4.weight": 0, "4.bias": 0}


def test_what_the_parts_do_not_divide_is_whole() -> None:
    found = splits(perceptron(), torch.randn(4, 20), 3)

    assert set(found.values()) == {None}


def test_an_encoder_is_split_as_megatron_splits_it() -> None:
    found = splits(Encoder(), torch.randint(0, 100, (4, 12)), 2)

    assert found["embed.weight"] == 1
    assert (found["layer.linear1.weight"], found["layer.linear2.weight"]) == (0, 1)
    assert found["layer.norm1.weight"] is None


def test_convolutions_are_split_along_channels_and_grouped_ones_are_whole() -> None:
    found = splits(convolutional(), torch.randn(4, 3, 32, 32), 2)

    assert (found["0.weight"], found["4.weight"]) == (0, None)


def test_one_part_is_no_split() -> None:
    assert set(splits(perceptron(), torch.randn(4, 20), 1).values()) == {None}


def test_collectives_are_counted_by_kind_with_the_bytes_of_their_results() -> None:
    assert collectives_of(PRINTED) == (Collective("all-gather", 1, 4096), Collective("all-reduce", 2, 2059))


def translated(name: str, folder: Path) -> tuple[Model, list[list[torch.Tensor]]]:
    """A network's program folder, and four calls of four samples beside it."""
    torch.manual_seed(0)
    build, x = NETWORKS[name]
    module = build().eval()
    model = capture(module, (x,)).model
    store.save(model, folder / "original")
    calls = [[x], [x.flip(0)]]
    samples.write(folder / "calls", calls, *flat_call(module, (x,))[1:])
    return model, calls


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_over_four_devices_answers_as_pytorch(name: str, tmp_path: Path) -> None:
    translated(name, tmp_path)
    variables = {**ahead.VARIABLES, "XLA_FLAGS": f"{ahead.HOST_DEVICES}=4"}

    with Worker(tmp_path / "log", environment=variables) as worker:
        given = {"original": str(tmp_path / "original"), "folder": str(tmp_path)}
        worker.open("vivace.api.silicon.tpu_worker:open_translator", given)
        asked = {"calls": str(tmp_path / "calls"), "size": 4, "data": 2, "tensor": 2}
        found = worker.call("compare_mesh", asked, Phase.VERIFY)

    assert found["reason"] == ""
    assert found["devices"] == 4
    assert found["compared"] == 2
    assert found["relative_error"] <= 1e-4


@pytest.mark.slow
def test_a_mesh_without_enough_devices_says_so(tmp_path: Path) -> None:
    translated("mlp", tmp_path)

    with Worker(tmp_path / "log", environment=ahead.VARIABLES) as worker:
        given = {"original": str(tmp_path / "original"), "folder": str(tmp_path)}
        worker.open("vivace.api.silicon.tpu_worker:open_translator", given)
        asked = {"calls": str(tmp_path / "calls"), "size": 4, "data": 2, "tensor": 2}
        with pytest.raises(Exception, match="1 devices here, and 4 are needed"):
            worker.call("compare_mesh", asked, Phase.VERIFY)
