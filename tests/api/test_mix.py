"""Calls in several shapes by the front door: one plan that is right for all, timed on their mix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import vivace as vv
from disturbed import skip_if_disturbed
from vivace.api.request import options_of
from vivace.core.errors import ArtifactError, UnsupportedModel, UsageError
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.result import TrialStage
from vivace.core.structure import flatten
from vivace.core.workload import Mix
from vivace.data import samples
from vivace.runtimes import store
from vivace.runtimes.openvino_session import exact_shapes
from vivace.search.laboratory import Laboratory
from vivace.search.prepare import prepare
from vivace.techniques.compile.open_vino import OpenVino
from vivace.testing import planted

EXTRA = {"vivace.testing.planted:PLANTED": planted.PLANTED}


class Strips(nn.Module):
    """Convolutions over a sequence of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(4, 4, 3, padding=1) for _ in range(12))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x)) * 0.5 + x
        return self.head(x.mean(2))


class OneLength(nn.Module):
    """Answers any length, and in a graph only that of the example."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([column.sin() for column in x.unbind(2)], 2).sum(2)


def strips(length: int, samples_count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(samples_count, 4, length, generator=torch.Generator().manual_seed(seed))


def network(kind: type[nn.Module] = Strips) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def workload(**fields: Any) -> vv.Workload:
    mix = [((strips(64),), 1), ((strips(16),), 3)]
    return vv.Workload(**{"model": network(), "mix": mix, "name": "strips", **fields})


def test_openvino_compiles_the_most_frequent_shapes_apart_and_answers_in_others(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    prepared = prepare(workload(mix=[((strips(8 * n),), n) for n in (1, 2, 3, 4, 6)]), tmp_path)

    model = OpenVino().apply(store.read_model(prepared.program), prepared.work)
    store.save(model, tmp_path / "program")
    program = store.load(tmp_path / "program")

    assert exact_shapes(model.settings) == [((2, 4, 8 * n),) for n in (6, 4, 3, 2)]
    for length in (48, 32, 24, 16, 8, 40):
        torch.testing.assert_close(program.run([strips(length)])[0], network()(strips(length)), atol=1e-5, rtol=1e-4)


def test_stored_calls_hold_the_shapes_by_their_weights_and_every_part_holds_all(tmp_path: Path) -> None:
    prepared = prepare(workload(), tmp_path)

    race, confirm = samples.read(prepared.race_calls), samples.read(prepared.confirm_calls)
    assert race.mix == confirm.mix and race.mix is not None
    assert race.mix.weights == (0.25, 0.75)
    assert [leaves[0].shape[2] for leaves in race] == [64 if shape == 0 else 16 for shape in race.mix.shapes]
    assert race.mix.shapes[:12].count(0) == 3
    assert not any(torch.equal(a[0], b[0]) for a in list(race)[1:] for b in confirm if a[0].shape == b[0].shape)
    assert [group.shape for group in prepared.referee.groups] == ["x[2, 4, 64]", "x[2, 4, 16]"]
    assert {leaves[0].shape[2] for leaves in samples.read(prepared.select.calls)} == {16, 64}
    assert samples.read(tmp_path / "example")[0][0].shape == (2, 4, 16)
    flops = 2 * 2 * (0.25 * 64 + 0.75 * 16) * 12 * 4 * 4 * 3 + 2 * 2 * 4 * 3
    assert prepared.work.cost.flops == pytest.approx(flops)


def test_labelled_data_of_one_length_leave_the_other_shapes_to_examples(tmp_path: Path) -> None:
    x = strips(16, 200, seed=5)
    y = network()(x).argmax(1).detach()
    pairs = list(zip(x.split(20), y.split(20), strict=True))

    prepared = prepare(workload(data=pairs, metric=vv.metrics.accuracy), tmp_path)

    race = samples.read(prepared.race_calls)
    assert {leaves[0].shape[2] for leaves in race} == {16, 64}
    assert {leaves[0].shape[2] for leaves in samples.read(prepared.select.calls)} == {16}
    assert sum(group.calls for group in prepared.referee.groups) == len(samples.read(prepared.referee.calls))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (strips(64)[:, :, :, None], r"entry 1 of mix has x of shape \[2, 4, 64, 1\]; entry 0 has \[2, 4, 16\]"),
        (strips(64).double(), "entry 1 of mix has x of dtype float64"),
        (strips(64)[:, :3], r"the model fails on the example inputs: .* called with float32\[2, 3, 64\]"),
    ],
)
def test_examples_that_do_not_belong_together_are_refused(second: Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(workload(mix=[((strips(16),), 1), ((second,), 1)]), tmp_path)


def test_a_graph_without_a_free_length_is_refused_with_the_shape(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"does not repeat the model for x\[2, 4, 64\], which is in the mix"):
        prepare(workload(model=network(OneLength)), tmp_path)


def onnx_file(path: Path, shape: list[Any]) -> Path:
    """An ONNX file that answers tanh(x)."""
    value = onnx.helper.make_tensor_value_info
    ports = [value(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Tanh", ["x"], ["y"])], "tanh", ports[:1], ports[1:])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))
    return path


def test_a_model_file_takes_a_mix_where_its_shapes_are_free(tmp_path: Path) -> None:
    prepared = prepare(workload(model=onnx_file(tmp_path / "free.onnx", ["n", 4, "length"])), tmp_path / "free")
    assert {leaves[0].shape[2] for leaves in samples.read(prepared.race_calls)} == {16, 64}

    with pytest.raises(UsageError, match=r"x has shape \[2, 4, 64\]; allowed is \[any, 4, 16\]"):
        prepare(workload(model=onnx_file(tmp_path / "fixed.onnx", ["n", 4, 16])), tmp_path / "fixed")


def test_fixed_shapes_and_a_throughput_contradict_a_mix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fixed_shapes .* exactly one shape, and mix has 2"):
        vv.optimize(workload(), fixed_shapes=True, time="20s", out=tmp_path / "fast")
    with pytest.raises(UsageError, match="throughput measures one batch"):
        vv.optimize(workload(), objective="throughput", time="20s", out=tmp_path / "fast")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("size", "shape"), [(64, "x[2, 4, 64]"), (16, "x[2, 4, 16]")])
def test_a_plan_that_is_wrong_in_one_of_the_shapes_is_refused_with_it(size: int, shape: str, tmp_path: Path) -> None:
    options, prepared = options_of(workload(), extra=EXTRA), prepare(workload(), tmp_path)
    with Laboratory(prepared, options, tmp_path) as laboratory:
        laboratory.learn_original()

        trial = laboratory.attempt(Plan((planted.WrongInOneShape(size),)), TrialStage.SEARCH, 120)

    assert trial.outcome is Outcome.WRONG_OUTPUT
    assert trial.reason.startswith(f"for {shape}: ")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_artifact_takes_every_shape_and_the_proof_tells_each(tmp_path: Path) -> None:
    work = workload()

    result = vv.optimize(work, time="60s", out=tmp_path / "fast", only=["inference-mode", "onnx-runtime"])

    document = json.loads((tmp_path / "fast" / "results.json").read_text())
    assert document["conditions"]["mix"] == [
        {"shape": "x[2, 4, 64]", "weight": 0.25},
        {"shape": "x[2, 4, 16]", "weight": 0.75},
    ]
    for times in (document["comparison"]["baseline"], document["comparison"]["candidate"]):
        long, short = times["shape_seconds"]
        assert times["median_seconds"] == pytest.approx(0.25 * long + 0.75 * short)
    manifest = json.loads((tmp_path / "fast" / "manifest.json").read_text())
    assert sorted(manifest["proved_on_shapes"]) == [[[2, 4, 16]], [[2, 4, 64]]]
    golden = samples.read(tmp_path / "fast" / "golden")
    assert golden.mix is not None and set(golden.mix.shapes) == {0, 1}
    for length in (16, 64, 23):
        torch.testing.assert_close(result.model(strips(length, 3)), work.model(strips(length, 3)), rtol=1e-3, atol=1e-4)  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_measure_walks_the_mix_of_a_workload(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + self.inner(x * 2)

    found = vv.measure(Twice().eval(), workload(), time="15s", restarts=3)

    assert len(found.baseline.shape_seconds) == 2
    skip_if_disturbed(found.noise_floor)
    assert found.speedup.value == pytest.approx(2.0, rel=0.25)


@pytest.mark.parametrize("damaged", [{"shapes": [7, 0], "weights": [1.0]}, {"shapes": [0], "weights": [1.0]}])
def test_a_mix_comes_back_from_the_disk_and_a_damaged_one_is_refused(damaged: dict[str, Any], tmp_path: Path) -> None:
    _, call = flatten({"x": strips(16)}, torch.is_tensor)
    folder = samples.write(tmp_path / "calls", [[strips(16)], [strips(64)]], call, 1, Mix((0, 1), (0.5, 0.5)))
    assert samples.read(folder).mix == Mix((0, 1), (0.5, 0.5))

    note = json.loads((folder / "calls.json").read_text())
    (folder / "calls.json").write_text(json.dumps({**note, "mix": damaged}))
    with pytest.raises(ArtifactError, match=r"calls.json is damaged: .*(shapes \(7, 0\)|its mix is of 1 calls)"):
        samples.read(folder)
