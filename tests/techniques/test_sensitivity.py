"""Layers are ranked by how much the output suffers when each alone is quantized, and the worst can stay in float."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.layer import Layer, chosen
from vivace.core.program import Model
from vivace.core.structure import Structure
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes import onnx_graph, openvino_graph
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs import layers
from vivace.runtimes.graphs.same_layers import matched
from vivace.techniques import sensitivity
from vivace.techniques.compile.native_int8 import NativeInt8
from vivace.techniques.precision.nncf_static_int8 import NncfStaticInt8
from vivace.techniques.precision.onnx_static_int8 import OnnxStaticInt8


class Uneven(nn.Module):
    """Four layers of the same size; the third one's weights and inputs span a range that 8 bits cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.easy = nn.Linear(16, 16)
        self.hard = nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.easy(self.norm(self.stem(x)).relu().mean((2, 3))).tanh()
        spread = torch.cat([y[:, :1] * 3000, y[:, 1:]], dim=1)
        return self.head(self.hard(spread).tanh())


@pytest.fixture(scope="module")
def captured() -> Model:
    torch.manual_seed(0)
    module = Uneven().eval()
    with torch.no_grad():
        module.hard.weight[:, 0] *= 1e-3
        module.norm.running_var.uniform_(0.5, 2.0)
    return capture(module, (torch.randn(8, 3, 8, 8),), varying=[frozenset({0})]).model


@pytest.fixture
def work(captured: Model, tmp_path: Path) -> Work:
    generator = torch.Generator().manual_seed(1)
    calls = [[torch.randn(8, 3, 8, 8, generator=generator)] for _ in range(4)]
    call = Structure("dict", (Structure("tensor"),), ("x",))
    folder = samples.write(tmp_path / "calibration", calls, call, 1)
    found = layers.layers_of(captured)
    return Work("uneven", captured.signature, frozenset(), Cost(0, 0, 0, 0), tmp_path, calibration=folder, layers=found)


def test_layers_are_named_by_the_module_they_came_from(captured: Model) -> None:
    found = layers.layers_of(captured)

    assert [layer.path for layer in found] == ["stem", "easy", "hard", "head"]
    assert [layer.operator for layer in found] == ["conv2d", "linear", "linear", "linear"]


def test_the_layer_that_suffers_most_is_kept_first(captured: Model, work: Work) -> None:
    found = sensitivity.ranked(captured, work)

    assert found[0].layer.path == "hard"
    assert found[0].sqnr_db < min(entry.sqnr_db for entry in found[1:]) - 10
    assert sum(entry.seconds_share for entry in found) == pytest.approx(1.0)


def test_a_ranking_is_found_once_in_a_run(captured: Model, work: Work) -> None:
    first = sensitivity.ranked(captured, work)

    assert sensitivity.ranked(captured, work) == first


def test_noise_is_zero_where_nothing_is_lost() -> None:
    module = nn.Linear(4, 4, bias=False).eval()
    with torch.no_grad():
        module.weight.copy_(torch.eye(4))
    model = capture(module, (torch.zeros(1, 4),), varying=[frozenset({0})]).model
    whole = torch.tensor([[0.0, 85.0, 170.0, 255.0]])

    (entry,) = sensitivity.measure(model, [[whole]])

    assert entry.noise == 0.0


@pytest.mark.parametrize("technique", [NncfStaticInt8, OnnxStaticInt8])
def test_kept_layers_stay_in_float(
    technique: type[NncfStaticInt8] | type[OnnxStaticInt8], captured: Model, work: Work
) -> None:
    pytest.importorskip("nncf" if technique is NncfStaticInt8 else "onnxruntime")
    worst = sensitivity.worst_layers(captured, work, 1)

    with torch.no_grad():
        exact = captured.program.module()(*samples.read(work.calibration)[0])[0]  # type: ignore[arg-type]
    errors = []
    for keep in (0, 1):
        model = technique(keep=keep).apply(captured, work)
        errors.append(_error(model, samples.read(work.calibration)[0], exact))  # type: ignore[arg-type]

    assert worst == ("linear_1",)
    assert errors[1] < errors[0] / 3


def test_layers_that_the_user_names_stay_in_float_too(captured: Model, work: Work) -> None:
    pytest.importorskip("nncf")
    named = Work(**{**vars(work), "keep": chosen(work.layers, ["head", "stem"]), "folder": work.folder / "named"})

    graphs = [NncfStaticInt8().apply(captured, job) for job in (work, named)]

    assert _quantizers(graphs[1]) < _quantizers(graphs[0])


def test_code_of_its_own_is_told_which_layers_stay_in_float(captured: Model, work: Work) -> None:
    named = dataclasses.replace(work, keep=chosen(work.layers, ["stem"]))

    kept = [NativeInt8(keep=count).apply(captured, named).settings.option("kept", "") for count in (0, 1)]

    assert [sorted(str(names).split(",")) for names in kept] == [[*named.keep], sorted([*named.keep, "linear_1"])]


def test_layers_are_found_again_after_a_batch_norm_was_folded(captured: Model, work: Work) -> None:
    pytest.importorskip("openvino")

    converted = openvino_graph.layers_of(openvino_graph.to_openvino(captured, work), captured)
    written = onnx_graph.layers_of(Path(onnx_graph.to_onnx(captured, work).program), captured)

    every = sorted(layer.name for layer in work.layers)
    assert sorted(converted.values()) == every
    assert sorted(written.values()) == every


def test_weights_that_are_like_no_layer_are_left_out() -> None:
    chance = np.random.default_rng(0)

    assert matched({"a": chance.normal(size=(8, 8))}, {"x": chance.normal(size=(8, 8))}) == {}


def test_more_layers_than_there_are_cannot_be_kept(captured: Model, work: Work) -> None:
    with pytest.raises(NotApplicable, match="keep 4 layers in float, and the model has 4"):
        sensitivity.worst_layers(captured, work, 4)


@pytest.mark.parametrize("keep", [-1, 1.5, True, "head"])
def test_a_count_that_is_none_is_refused(keep: object) -> None:
    with pytest.raises(UsageError, match="allowed is a whole number of layers"):
        NncfStaticInt8(keep=keep)  # type: ignore[arg-type]


def test_a_name_that_no_layer_answers_to_is_told_with_those_that_exist() -> None:
    there = [Layer("linear", "body.0", "linear"), Layer("linear_1", "head", "linear")]

    assert chosen(there, ["body.*", "linear_1"]) == ("linear", "linear_1")
    with pytest.raises(UsageError, match=r"'tail', which no layer answers to; the layers are body\.0, head"):
        chosen(there, ["tail"])


def test_gentler_settings_keep_up_to_all_layers_but_one(work: Work) -> None:
    steps = [NncfStaticInt8("mixed", keep=count) for count in (0, 1, 2, 3)]
    assert list(NncfStaticInt8().gentler(work)) == steps
    assert list(NncfStaticInt8("mixed").gentler(work)) == steps[1:]
    assert list(NncfStaticInt8().gentler(Work(**{**vars(work), "layers": ()}))) == steps[:1]


@pytest.mark.parametrize(
    ("layers", "counts"),
    [
        (1, []),
        (2, [1]),
        (3, [1, 2]),
        (8, [1, 2, 3, 4, 5, 6, 7]),
        (9, [1, 2, 4, 5, 7, 8]),
        (54, [1, 2, 4, 8, 16, 38, 46, 50, 52, 53]),
    ],
)
def test_counts_of_kept_layers_are_few_and_lead_to_all_but_one(layers: int, counts: list[int], work: Work) -> None:
    many = dataclasses.replace(work, layers=(work.layers[0],) * layers)

    assert list(sensitivity.kept_counts(many)) == counts


def _quantizers(model: Model) -> int:
    graph = openvino_graph.import_openvino().Core().read_model(str(model.program))
    return sum(op.get_type_name() == "FakeQuantize" for op in graph.get_ops())


def _error(model: Model, leaves: list[torch.Tensor], exact: torch.Tensor) -> float:
    if Path(model.program).suffix == ".xml":
        compiled = (
            openvino_graph.import_openvino()
            .Core()
            .compile_model(str(model.program), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        )
        answer = compiled([leaf.numpy() for leaf in leaves])[0]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(model.program))
        answer = session.run(None, {session.get_inputs()[0].name: leaves[0].numpy()})[0]
    return float((torch.from_numpy(np.asarray(answer)) - exact).square().mean())
