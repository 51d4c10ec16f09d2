"""Static int8 and int4 in the PyTorch graph, dynamic int8 in OpenVINO: what is stored, what it answers, when not."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import nn

from vivace.core.errors import ArtifactError, MissingExtra, NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.plan import Plan
from vivace.core.program import Settings
from vivace.core.work import Work
from vivace.data import samples
from vivace.measure.fidelity import compare_outputs
from vivace.runtimes import capture, eager, openvino_session, store
from vivace.runtimes.graphs import laid_out, quantized
from vivace.runtimes.graphs.layers import layers_of
from vivace.techniques.compile.inductor import Inductor
from vivace.techniques.compile.open_vino import OpenVino
from vivace.techniques.precision.openvino_dynamic_int8 import OpenvinoDynamicInt8
from vivace.techniques.precision.torchao_static_int8 import TorchaoStaticInt8
from vivace.techniques.precision.torchao_weight_only_int4 import TorchaoWeightOnlyInt4
from vivace.testing import contract

aten = torch.ops.aten
OTHERS = torch.randn(7, 256, generator=torch.Generator().manual_seed(4))
TO_RUN = """
import sys, torch
from pathlib import Path
from vivace.runtimes import store
print(store.load(Path(sys.argv[1]))(torch.load(sys.argv[2]))[0].double().sum().item(), "torchao" in sys.modules)
"""


def _calls(count=3):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(4, 256, generator=generator) for _ in range(count)]


def _net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(256, 192), nn.ReLU(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 16)).eval()


@pytest.fixture
def job(tmp_path):
    return _job(_net(), _calls(), tmp_path / "work")


def _job(net, calls, folder):
    model = capture.capture(net, (calls[0],)).model
    leaves = [[call] for call in calls]
    calibration, example = (samples.write(folder / n, leaves, model.signature.call, 1) for n in ("cal", "ex"))
    work = Work("net", model.signature, frozenset(Fact), contract.SAMPLE_COST, folder, calibration, example)
    return model, dataclasses.replace(work, layers=layers_of(model))


def _stored(job, folder, *plan):
    model, work = job
    for technique in plan:
        model = technique.apply(model, work)
    store.save(model, folder)
    return model


def _int8_weights(model):
    return [node for node in model.program.graph.nodes if getattr(node.target, "_opname", "") == quantized.BY_CHANNEL]


@pytest.mark.parametrize(
    ("plan", "least_db"),
    [
        ([TorchaoStaticInt8()], 25),
        ([TorchaoStaticInt8(reduce_range=True)], 20),
        ([TorchaoWeightOnlyInt4()], 15),
        ([TorchaoWeightOnlyInt4(group_size=32)], 15),
        ([OpenvinoDynamicInt8(), OpenVino()], 30),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_answers_stay_close_for_other_batches_too(job, tmp_path, plan, least_db):
    _stored(job, tmp_path / "program", *plan)
    program = store.load(tmp_path / "program")

    with torch.no_grad():
        fidelity = compare_outputs([[_net()(OTHERS)]], [[program(OTHERS)]])

    assert fidelity.sqnr_db >= least_db


@pytest.mark.slow
@pytest.mark.parametrize("technique", [TorchaoStaticInt8(), TorchaoWeightOnlyInt4()], ids=str)
def test_a_compiled_program_answers_in_a_fresh_process_without_torchao_as_the_graph_does(job, tmp_path, technique):
    _stored(job, tmp_path / "graph", technique)
    _stored(job, tmp_path / "program", technique, Inductor(freeze=True))
    torch.save(OTHERS, tmp_path / "call.pt")

    command = [sys.executable, "-c", TO_RUN, str(tmp_path / "program"), str(tmp_path / "call.pt")]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.split()

    expected = store.load(tmp_path / "graph")(OTHERS)[0].double().sum().item()
    assert float(told[0]) == pytest.approx(expected, abs=0.05)
    assert told[1] == "False"


def test_static_int8_keeps_the_worst_layers_and_those_that_the_user_named_in_float(job):
    model, work = job
    named = dataclasses.replace(work, keep=(work.layers[0].name,))

    every, one_kept, one_named = (
        TorchaoStaticInt8(keep=keep).apply(model, work) for keep, work in ((0, work), (1, work), (0, named))
    )

    assert [len(_int8_weights(one)) for one in (every, one_kept, one_named)] == [3, 2, 2]
    assert one_named.quantized == (work.layers[1].name, work.layers[2].name)
    assert len(one_kept.quantized) == 2


def test_a_named_layer_that_the_graph_lacks_is_not_guessed(job):
    model, work = job

    with pytest.raises(NotApplicable, match="the layers gone cannot be told apart in the PyTorch graph"):
        TorchaoStaticInt8().apply(model, dataclasses.replace(work, keep=("gone",)))


def test_static_int8_also_takes_products_of_attention_by_weights(tmp_path):
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True, dropout=0.0).eval()
    calls = [torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(i)) for i in range(2)]

    made = TorchaoStaticInt8().apply(*_job(layer, calls, tmp_path))

    assert len(made.quantized) == 4


@pytest.mark.slow
def test_static_int8_leaves_convolutions_of_one_channel_to_float(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()).eval()
    calls = [torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]

    job = _job(net, calls, tmp_path / "work")
    made = _stored(job, tmp_path / "program", TorchaoStaticInt8(), Inductor(freeze=True))

    assert made.quantized == (job[1].layers[1].name,)
    with torch.no_grad():
        found = store.load(tmp_path / "program")(calls[1])
        assert compare_outputs([[net(calls[1])]], [[found]]).sqnr_db > 25


def test_static_int8_says_what_it_lacks(job, tmp_path):
    model, work = job
    nothing = _job(nn.ReLU().eval(), _calls(), tmp_path / "nothing")

    with pytest.raises(NotApplicable, match="calibration data"):
        TorchaoStaticInt8().apply(model, dataclasses.replace(work, calibration=None))
    with pytest.raises(NotApplicable, match="no convolution or linear layer"):
        TorchaoStaticInt8().apply(*nothing)


@pytest.mark.parametrize(
    ("technique", "package", "extra"),
    [
        (TorchaoStaticInt8(), "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer", "ao"),
        (TorchaoWeightOnlyInt4(), "torchao.quantization", "ao"),
        (OpenvinoDynamicInt8(), "nncf", "openvino"),
    ],
    ids=lambda value: str(value),
)
def test_without_its_packages_a_technique_says_how_to_install_them(job, monkeypatch, technique, package, extra):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingExtra, match=rf"vivace\[{extra}\]"):
        technique.apply(*job)


def test_a_weight_whose_scales_are_too_few_is_refused_before_it_is_compiled(job):
    made = TorchaoStaticInt8().apply(*job)
    short = next(name for name, value in made.program.state_dict.items() if name.startswith("b__scale"))
    made.program.state_dict[short] = made.program.state_dict[short][:-1]

    with pytest.raises(ArtifactError, match="no scale and zero point for each channel"):
        quantized.lower(made.program, "a test")


def test_int4_answers_as_torchaos_own_tensor_does(job):
    quantization = pytest.importorskip("torchao.quantization")
    model, work = job
    net = _net()
    config = quantization.IntxWeightOnlyConfig(
        torch.int4,
        quantization.PerGroup(64),
        quantization.quant_primitives.MappingType.ASYMMETRIC,
    )
    quantization.quantize_(net, config)

    made = TorchaoWeightOnlyInt4().apply(model, work)

    with torch.no_grad():
        fidelity = compare_outputs([[net(OTHERS)]], [[eager.run_flat(made.program, [OTHERS])[0]]])
    assert fidelity.sqnr_db > 35  # activations and scales are in bfloat16 here


def test_int4_takes_an_eighth_of_the_bytes_and_its_scales(job):
    made = TorchaoWeightOnlyInt4().apply(*job)

    before, after = (
        sum(value.numel() * value.element_size() for name, value in program.state_dict.items() if value.dim() > 1)
        for program in (job[0].program, made.program)
    )
    assert after == before * (4 + 32 / 64) / 32


def test_int4_weights_are_laid_out_once_and_not_in_every_call(job):
    made = TorchaoWeightOnlyInt4().apply(*job)
    graph = eager.copied_graph(made.program)

    values = laid_out.laid_out(graph, eager.lifted_values(made.program))

    assert len(values) == 3
    assert not {node.target for node in graph.nodes} & {*laid_out.LAYING_OUT, aten.bitwise_and.Scalar}


def test_int4_leaves_layers_alone_that_its_kernel_cannot_take(tmp_path):
    model, work = _job(nn.Sequential(nn.Linear(256, 192), nn.Linear(192, 10)).eval(), _calls(), tmp_path)

    assert TorchaoWeightOnlyInt4().apply(model, work).quantized == (work.layers[0].name,)
    with pytest.raises(NotApplicable, match="groups of 256 divide"):
        TorchaoWeightOnlyInt4(group_size=256).apply(*_job(nn.Linear(192, 16).eval(), [torch.randn(2, 192)], tmp_path))


@pytest.mark.parametrize(
    "build",
    [lambda: TorchaoWeightOnlyInt4(group_size=48), lambda: OpenvinoDynamicInt8(group_size=0)],
)
def test_another_group_lists_the_allowed_ones(build):
    with pytest.raises(UsageError, match="allowed are 32, 64, 128, 256"):
        build()


def test_gentler_settings_have_smaller_groups(job):
    for technique in (TorchaoWeightOnlyInt4(group_size=64), OpenvinoDynamicInt8(group_size=64)):
        assert list(technique.gentler(job[1])) == [dataclasses.replace(technique, group_size=32)]


def test_dynamic_int8_in_openvino_leaves_alone_what_the_user_named(job):
    model, work = job
    named = dataclasses.replace(work, keep=(work.layers[0].name,))

    assert OpenvinoDynamicInt8().apply(model, named).quantized == (work.layers[1].name, work.layers[2].name)


def test_dynamic_int8_in_openvino_says_where_it_does_nothing(job, monkeypatch):
    monkeypatch.setattr(openvino_session, "configuration", lambda settings: {"INFERENCE_PRECISION_HINT": "f32"})

    with pytest.raises(NotApplicable, match="no product of this model with activations in int8 here"):
        OpenvinoDynamicInt8().apply(*job)


def test_a_group_that_is_not_allowed_is_refused():
    assert openvino_session.configuration(Settings().with_options(activation_group=64)) == (
        openvino_session.configuration(Settings()) | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"}
    )
    with pytest.raises(ArtifactError, match="activation_group is 7; allowed are"):
        openvino_session.configuration(Settings().with_options(activation_group=7))


@pytest.mark.parametrize(
    "plan",
    [
        (TorchaoStaticInt8(), Inductor(freeze=True)),
        (TorchaoWeightOnlyInt4(), Inductor(freeze=True)),
        (OpenvinoDynamicInt8(), OpenVino()),
    ],
    ids=lambda plan: str(plan[0]),
)
def test_each_goes_with_its_compiler_and_with_no_other_quantization(plan):
    everything = frozenset(Fact)

    assert Plan.of(plan).illegal(everything) is None
    for other in (TorchaoStaticInt8(), TorchaoWeightOnlyInt4(), OpenvinoDynamicInt8()):
        if type(other) is not type(plan[0]):
            assert Plan.of([*plan, other]).illegal(everything) is not None


def test_static_int8_in_the_graph_makes_no_plan_of_its_own():
    told = Plan((TorchaoStaticInt8(), Inductor(freeze=False))).illegal(frozenset(Fact))

    assert (
        told
        == "torchao-static-int8 needs a later technique that makes int8 kernels of its graph: inductor(freeze=True)"
    )
