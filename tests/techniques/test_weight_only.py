"""Weights in 8 and 4 bits: what is stored, how many bytes it takes, and how close the answers stay."""

import logging

import pytest
import torch
from torch import nn

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.work import Work
from vivace.measure.fidelity import compare_outputs
from vivace.runtimes import capture, store
from vivace.techniques.compile.onnx_runtime import OnnxRuntime
from vivace.techniques.compile.open_vino import OpenVino
from vivace.techniques.precision.onnx_weight_only import OnnxWeightOnly
from vivace.techniques.precision.openvino_weight_only import OpenvinoWeightOnly
from vivace.techniques.precision.torchao_weight_only_int8 import TorchaoWeightOnlyInt8
from vivace.testing import contract, tiny

X = torch.randn(3, 256, generator=torch.Generator().manual_seed(3))


def _net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(256, 192), nn.ReLU(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 8)).eval()


@pytest.fixture
def captured(tmp_path):
    model = capture.capture(_net(), (X,)).model
    facts = frozenset(Fact) - {Fact.HAS_ATTENTION}
    return model, Work("net", model.signature, facts, contract.SAMPLE_COST, tmp_path / "work")


def _loaded(captured, folder, *plan):
    model, work = captured
    for technique in plan:
        model = technique.apply(model, work)
    store.save(model, folder)
    return store.load(folder)


@pytest.mark.parametrize(
    ("plan", "least_db"),
    [
        ([OpenvinoWeightOnly(), OpenVino()], 30),
        ([OpenvinoWeightOnly(symmetric=False), OpenVino()], 30),
        ([OpenvinoWeightOnly(bits=4, group_size=64), OpenVino()], 15),
        ([OpenvinoWeightOnly(bits=4), OpenVino()], 12),
        ([OnnxWeightOnly(), OnnxRuntime()], 30),
        ([OnnxWeightOnly(int8_products=False), OnnxRuntime()], 35),
        ([OnnxWeightOnly(bits=4), OnnxRuntime()], 15),
        ([TorchaoWeightOnlyInt8()], 30),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_answers_stay_close_for_other_batches_too(captured, tmp_path, plan, least_db):
    program = _loaded(captured, tmp_path / "program", *plan)
    more = torch.randn(7, 256, generator=torch.Generator().manual_seed(4))

    with torch.no_grad():
        fidelity = compare_outputs([[_net()(X)], [_net()(more)]], [[program(X)], [program(more)]])

    assert fidelity.sqnr_db >= least_db


@pytest.mark.parametrize(
    "plan",
    [
        [OpenvinoWeightOnly(), OpenVino()],
        [OpenvinoWeightOnly(bits=4, group_size=64), OpenVino()],
        [OnnxWeightOnly(int8_products=False), OnnxRuntime()],
    ],
    ids=lambda plan: str(plan[0]),
)
def test_of_weights_alone_nothing_else_is_rounded(tmp_path, plan):
    """A layer whose weights are rounded is still linear: f(x + y) = f(x) + f(y)."""
    layer, x, y = nn.Linear(256, 192, bias=False).eval(), X, X.flip(1)
    model = capture.capture(layer, (X,)).model
    work = Work("layer", model.signature, frozenset(Fact), contract.SAMPLE_COST, tmp_path / "work")
    program = _loaded((model, work), tmp_path / "program", *plan)

    with torch.no_grad():
        found, whole = program(x) + program(y), program(x + y)

    torch.testing.assert_close(whole, found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("technique", "compiler", "most"),
    [
        (OpenvinoWeightOnly(), OpenVino(), 0.35),
        (OpenvinoWeightOnly(bits=4, group_size=64), OpenVino(), 0.25),
        (OnnxWeightOnly(), OnnxRuntime(), 0.40),
        (OnnxWeightOnly(bits=4), OnnxRuntime(), 0.30),
        (TorchaoWeightOnlyInt8(), None, 0.40),
    ],
    ids=str,
)
def test_the_stored_program_is_smaller_by_about_the_bits_that_were_saved(captured, tmp_path, technique, compiler, most):
    ends = [compiler] if compiler else []
    _loaded(captured, tmp_path / "plain", *ends)
    _loaded(captured, tmp_path / "small", technique, *ends)

    assert _weight_bytes(tmp_path / "small") <= most * _weight_bytes(tmp_path / "plain")


def _weight_bytes(folder):
    """The bytes of the files that hold weights; the graph's text is not counted where it is a file of its own."""
    return sum(p.stat().st_size for p in folder.iterdir() if p.suffix in {".bin", ".onnx", ".pt2"})


def test_a_gemm_becomes_a_product_in_blocks_and_a_sum(captured):
    onnx = pytest.importorskip("onnx")
    model, work = captured

    graph = onnx.load(str(OnnxWeightOnly(bits=4).apply(model, work).program)).graph

    names = [node.op_type for node in graph.node]
    assert (names.count("MatMulNBits"), names.count("Gemm")) == (3, 0)


def test_layers_below_one_block_stay_as_they_are(captured):
    _, work = captured

    with pytest.raises(NotApplicable, match="256 inputs or more"):
        OnnxWeightOnly(block_size=256).apply(_small_model(), work)


def _small_model():
    return capture.capture(tiny.tiny("mlp").model(), tiny.tiny("mlp").inputs()).model


def test_the_quantizer_leaves_the_log_as_it_was(captured):
    model, work = captured
    before = list(logging.getLogger().handlers)

    OnnxWeightOnly().apply(model, work)

    assert logging.getLogger().handlers == before


def test_a_model_without_weights_has_nothing_to_compress(tmp_path):
    model = capture.capture(nn.ReLU().eval(), (X,)).model
    work = Work("none", model.signature, frozenset(), contract.SAMPLE_COST, tmp_path)

    with pytest.raises(NotApplicable, match="no weights to compress"):
        OpenvinoWeightOnly().apply(model, work)
    with pytest.raises(NotApplicable, match="no matrix product"):
        OnnxWeightOnly().apply(model, work)
    with pytest.raises(NotApplicable, match="no linear layer"):
        TorchaoWeightOnlyInt8().apply(model, work)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: OpenvinoWeightOnly(bits=3), "allowed are 4 and 8"),
        (lambda: OpenvinoWeightOnly(bits=8, group_size=64), "a positive group with 4 bits"),
        (lambda: OpenvinoWeightOnly(bits=4, group_size=-1), "a positive group with 4 bits"),
        (lambda: OnnxWeightOnly(bits=2), "allowed are 4 and 8"),
        (lambda: OnnxWeightOnly(block_size=48), "16, 32, 64"),
    ],
)
def test_an_impossible_setting_lists_the_allowed_ones(build, told):
    with pytest.raises(UsageError, match=told):
        build()


@pytest.mark.parametrize(("rows", "offers"), [(1, 1), (64, 0)])
def test_weight_only_in_the_graph_offers_itself_for_few_rows(rows, offers):
    work = Work("any", None, frozenset(), Cost(rows * 2e6, 4e6, 1e4, 10), None)

    assert len(list(TorchaoWeightOnlyInt8.variants(work, contract.SAMPLE_MACHINE))) == offers
