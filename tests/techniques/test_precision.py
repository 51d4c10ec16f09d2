"""Fewer bits: what the graph holds afterwards, and how close the answers stay on nets of realistic size."""

import pytest
import torch
from torch import nn

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.work import Work
from vivace.data import samples
from vivace.devices import machine
from vivace.measure.fidelity import compare_outputs
from vivace.runtimes import capture, eager, store
from vivace.techniques.compile.onnx_runtime import OnnxRuntime
from vivace.techniques.compile.open_vino import OpenVino
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.techniques.precision.cuda_bfloat16 import CudaBfloat16
from vivace.techniques.precision.float16 import Float16
from vivace.techniques.precision.nncf_static_int8 import NncfStaticInt8
from vivace.techniques.precision.onnx_dynamic_int8 import OnnxDynamicInt8
from vivace.techniques.precision.onnx_static_int8 import OnnxStaticInt8
from vivace.techniques.precision.tf32 import Tf32
from vivace.techniques.precision.torchao_dynamic_int8 import TorchaoDynamicInt8
from vivace.testing import contract, tiny

aten = torch.ops.aten
WORK = Work("any", None, frozenset(), contract.SAMPLE_COST, None)
AS_HERE = {"reduce_range": Fact.INT8_INSTRUCTIONS not in machine.detect().facts()}
"""Where there are no int8 dot products, sums of 16 bits could overflow."""


def _narrowed(technique, name):
    model = tiny.tiny(name)
    captured = capture.capture(model.model(), model.inputs()).model
    return technique.apply(captured, WORK).program


def _dtypes(program, target):
    return [node.meta["val"].dtype for node in program.graph.nodes if node.target is target]


def test_linear_layers_and_convolutions_compute_in_bfloat16():
    program = _narrowed(Bfloat16(), "residual")

    assert set(_dtypes(program, aten.conv2d.default)) == {torch.bfloat16}
    assert set(_dtypes(program, aten.linear.default)) == {torch.bfloat16}


def test_attention_computes_in_bfloat16():
    program = _narrowed(Bfloat16(), "encoder")

    assert _dtypes(program, aten.scaled_dot_product_attention.default) == [torch.bfloat16]


def test_weights_are_stored_in_bfloat16_and_the_wide_ones_are_gone():
    program = _narrowed(Bfloat16(), "lstm")

    assert {value.dtype for value in program.state_dict.values()} == {torch.bfloat16}


def test_answers_keep_the_dtype_that_they_had():
    program = _narrowed(Bfloat16(), "dataclass")

    assert [node.meta["val"].dtype for node in program.graph.output_node().args[0]] == [torch.float32] * 2


def test_float16_gives_a_float16_graph():
    assert set(_dtypes(_narrowed(Float16(), "mlp"), aten.linear.default)) == {torch.float16}


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x, mask):
        q = self.layer(x).unsqueeze(1)
        return nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)


def test_a_mask_of_the_lowest_float32_does_not_become_nan():
    x = torch.randn(2, 4, 16)
    mask = torch.full((2, 1, 4, 4), torch.finfo(torch.float32).min)
    model = Bfloat16().apply(capture.capture(Masked().eval(), (x, mask)).model, None)

    assert torch.isfinite(eager.run_flat(model.program, [x, mask])[0]).all()


class Exponential(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x):
        return torch.exp(self.layer(x)).cumsum(-1)


def test_exponentials_and_long_sums_stay_in_float32():
    model = Bfloat16().apply(capture.capture(Exponential().eval(), (torch.randn(2, 16),)).model, None)

    assert _dtypes(model.program, aten.exp.default) + _dtypes(model.program, aten.cumsum.default) == [torch.float32] * 2


def test_a_graph_without_products_has_nothing_to_narrow():
    model = capture.capture(nn.ReLU().eval(), (torch.randn(2, 3),)).model

    with pytest.raises(NotApplicable, match="no float32 product"):
        Bfloat16().apply(model, None)


def test_torchao_weights_are_stored_as_plain_int8_without_its_own_tensor_class():
    program = _narrowed(TorchaoDynamicInt8(), "encoder")

    int8 = [value for value in program.state_dict.values() if value.dtype is torch.int8]
    assert int8 and all(type(value) is torch.Tensor for value in int8)
    assert aten._int_mm.default in {node.target for node in program.graph.nodes}


def test_layers_below_the_smallest_size_stay_in_float32():
    with pytest.raises(NotApplicable, match="at least 64 x 64"):
        _narrowed(TorchaoDynamicInt8(smallest=64), "mlp")


def test_torchao_products_equal_torchaos_own():
    quantization = pytest.importorskip("torchao.quantization")
    module = tiny.tiny("mlp").model()
    x = tiny.tiny("mlp").inputs(8)
    model = TorchaoDynamicInt8(smallest=1).apply(capture.capture(module, x).model, WORK)
    config = quantization.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    quantization.quantize_(module, config)

    with torch.no_grad():
        torch.testing.assert_close(eager.run_flat(model.program, list(x))[0], module(*x), rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained classifier of two rings with its job, and the calls and answers to judge by."""
    folder = tmp_path_factory.mktemp("trained")
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(512, 32, generator=generator)
    labels = (features[:, :8].norm(dim=1) > features[:, 8:16].norm(dim=1)).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(features), labels).backward()
        optimizer.step()
    model = capture.capture(module.eval(), (features[:4],)).model
    calls = [[part] for part in features[:256].split(16)]
    calibration = samples.write(folder / "calibration", calls, model.signature.call, 1)
    facts = frozenset(Fact) - {Fact.HAS_ATTENTION}
    work = Work("trained", model.signature, facts, contract.SAMPLE_COST, folder, calibration)
    with torch.no_grad():
        return model, work, features[256:], module(features[256:])


@pytest.mark.parametrize(
    ("plan", "least_db"),
    [
        ([Bfloat16()], 40),
        ([TorchaoDynamicInt8()], 30),
        ([OnnxDynamicInt8(**AS_HERE), OnnxRuntime()], 30),
        ([OnnxStaticInt8(**AS_HERE), OnnxRuntime()], 25),
        ([OnnxStaticInt8(products_only=True, **AS_HERE), OnnxRuntime()], 25),
        ([NncfStaticInt8("mixed", **AS_HERE), OpenVino()], 20),
        ([NncfStaticInt8("performance", **AS_HERE), OpenVino()], 20),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_a_trained_net_keeps_its_answers_close(trained, tmp_path, plan, least_db):
    model, work, features, wanted = trained
    for technique in plan:
        model = technique.apply(model, work)
    store.save(model, tmp_path / "program")

    found = store.load(tmp_path / "program")(features)

    fidelity = compare_outputs([[wanted]], [[found]])
    assert fidelity.sqnr_db >= least_db
    assert fidelity.agreement >= 0.97


class Tied(nn.Module):
    """Scores by the embedding's own weight, after one square layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.square = nn.Embedding(40, 16), nn.Linear(16, 16)
        self.scores = nn.Linear(16, 40, bias=False)
        self.scores.weight = self.embedding.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.scores(self.square(torch.relu(self.square(self.embedding(words).mean(1)))))


def test_dynamic_int8_keeps_weights_right_that_others_read_too(tmp_path):
    tied = tiny.Tiny("tied", Tied, lambda samples, drawn: (torch.randint(0, 40, (samples, 5), generator=drawn),))

    assert contract.check_applied(OnnxDynamicInt8(**AS_HERE), tied, tmp_path) == ""


@pytest.mark.parametrize("technique", [OnnxStaticInt8(), NncfStaticInt8()], ids=str)
def test_static_quantization_without_data_says_what_to_give(trained, technique):
    model, work, _, _ = trained
    bare = Work(work.name, work.signature, work.facts, work.cost, work.folder)

    with pytest.raises(NotApplicable, match="calibration data"):
        technique.apply(model, bare)


@pytest.mark.parametrize("build", [lambda: OnnxStaticInt8(method="best"), lambda: NncfStaticInt8(preset="best")])
def test_an_unknown_setting_lists_the_allowed_ones(build):
    with pytest.raises(UsageError, match=r"'best'; allowed are"):
        build()


def test_weights_keep_7_bits_where_the_processor_has_no_int8_dot_products():
    plain = Machine("any", "x86_64", (), 2, 2, 1 << 30, "Linux")
    work = Work("any", None, frozenset(), contract.SAMPLE_COST, None)

    offered = [*OnnxStaticInt8.variants(work, plain), *OnnxDynamicInt8.variants(work, plain)]

    assert all(technique.reduce_range for technique in offered)


def test_cuda_bfloat16_offers_itself_only_where_bfloat16_does_not():
    work = Work("any", None, frozenset(), contract.SAMPLE_COST, None)
    without, having = (Machine("any", "x86_64", flags, 2, 2, 1, "Linux") for flags in ((), ("avx512_bf16",)))

    assert (list(CudaBfloat16.variants(work, without)), list(CudaBfloat16.variants(work, having))) == (
        [CudaBfloat16()],
        [],
    )


def test_tf32_is_a_setting_and_not_set_twice():
    model = tiny.tiny("mlp")
    captured = capture.capture(model.model(), model.inputs()).model
    changed = Tf32().apply(captured, None)

    assert changed.settings.tf32
    with pytest.raises(NotApplicable, match="already"):
        Tf32().apply(changed, None)


@pytest.mark.parametrize("technique", [NncfStaticInt8(), OnnxStaticInt8(), TorchaoDynamicInt8()])
def test_what_leaves_recurrent_cells_in_float_promises_nothing_where_they_are_the_work(technique):
    recurrent = Cost(1e9, 4e6, 4e6, 100, recurrent_share=0.9)

    assert technique.rewrite(recurrent) == recurrent
    assert technique.rewrite(Cost(1e9, 4e6, 4e6, 100)).precision == "int8"


def test_dynamic_int8_promises_a_recurrent_network_something_and_a_convolutional_one_nothing():
    convolutional = Cost(1e9, 4e6, 4e6, 100, convolution_share=0.9)

    assert OnnxDynamicInt8().rewrite(convolutional) == convolutional
    assert OnnxDynamicInt8().rewrite(Cost(1e9, 4e6, 4e6, 100, recurrent_share=0.9)).precision == "int8"


def test_one_scale_a_tensor_promises_more_only_where_cells_are_the_work():
    for share, is_more in ((0.9, True), (0.1, False)):
        cost = Cost(1e9, 4e6, 4e6, 100, recurrent_share=share)
        by_channel, by_tensor = (OnnxDynamicInt8(per_channel=way).rewrite(cost) for way in (True, False))
        assert (by_tensor.efficiency > by_channel.efficiency) == is_more


def test_dynamic_int8_reaches_the_weights_of_an_lstm_of_any_batch(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = tiny.tiny("lstm")
    captured = capture.capture(model.model(), model.inputs())
    work = Work("lstm", captured.model.signature, frozenset(), Cost(1, 1, 1, 1), tmp_path)

    quantized = OnnxDynamicInt8().apply(captured.model, work)

    kinds = [node.op_type for node in onnx.load(str(quantized.program)).graph.node]
    assert captured.model.signature.has_batch
    assert ("DynamicQuantizeLSTM" in kinds, "LSTM" in kinds) == (True, False)
