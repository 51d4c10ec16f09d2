"""Weights that are trained for int8 lose less in int8, on samples they were not trained on."""

import dataclasses

import pytest
import torch
from taught import job_of, trained_network
from torch import nn

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.layer import Layer
from vivace.core.plan import Plan
from vivace.core.registry import techniques
from vivace.devices import machine
from vivace.runtimes import eager, store
from vivace.runtimes.graphs.layers import layers_of
from vivace.techniques import fake_quantization
from vivace.techniques.fine_tuning import noise
from vivace.techniques.memory.inference_mode import InferenceMode
from vivace.techniques.precision.onnx_static_int8 import OnnxStaticInt8
from vivace.techniques.sparsity.magnitude_pruning import MagnitudePruning
from vivace.techniques.sparsity.quantization_aware_training import QuantizationAwareTraining
from vivace.techniques.sparsity.recovery import Recovery

FACTS = frozenset(
    {
        *(Fact.TORCH_GRAPH, Fact.ONNX_READY, Fact.OPENVINO_READY, Fact.RUNNABLE, Fact.FLOAT32, Fact.UNQUANTIZED),
        *(Fact.UNCOMPILED, Fact.ON_CPU, Fact.HAS_LINEAR, Fact.CALIBRATION, Fact.INT8_INSTRUCTIONS),
    }
)

REDUCE_RANGE = Fact.INT8_INSTRUCTIONS not in machine.detect().facts()
"""Sums of 16 bits could overflow there."""


def uneven():
    """A trained network with one hidden unit in eight thirty times larger than the others, and the same answers."""
    net = trained_network()
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    larger = torch.ones(128)
    larger[::8] = 30.0
    with torch.no_grad():
        for first, second in ((net[1], layers[1]), (layers[1], layers[2])):
            first.weight.mul_(larger if first.weight.dim() == 1 else larger[:, None])
            first.bias.mul_(larger)
            second.weight.div_(larger)
    return net


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The network, its job with 200 digits to train on, and 997 digits that nothing has seen."""
    made = job_of(uneven(), tmp_path_factory.mktemp("uneven"))
    return made.model, made.work, made.images


def _loss_in_int8(model, work, rows, wanted, folder):
    """The noise of the answers when ONNX Runtime runs the model in static int8, as this machine can."""
    store.save(OnnxStaticInt8(reduce_range=REDUCE_RANGE).apply(model, work), folder)
    program = store.load(folder)
    answers = program.run([rows])
    program.close()
    return noise(answers, wanted).item()


def test_a_trained_network_loses_less_in_static_int8_on_new_samples(job, tmp_path):
    pytest.importorskip("onnxruntime")
    model, work, rows = job
    wanted = eager.run_flat(model.program, [rows])

    trained = QuantizationAwareTraining(reduce_range=REDUCE_RANGE).apply(model, work)

    before, after = (
        _loss_in_int8(one, work, rows, wanted, tmp_path / name) for one, name in ((model, "before"), (trained, "after"))
    )
    assert after < 0.9 * before


def test_zeros_stay_zero(job):
    model, work, _ = job
    pruned = MagnitudePruning(share=0.5, smallest=4).apply(model, work)

    after = QuantizationAwareTraining(steps=30).apply(pruned, work).program.state_dict

    for name, weight in pruned.program.state_dict.items():
        if weight.dim() == 2:
            assert torch.equal(after[name] == 0, weight == 0)
            assert not torch.equal(after[name], weight)


def test_the_program_stays_float_and_says_what_was_won(job):
    model, work, _ = job

    after = QuantizationAwareTraining(steps=100).apply(model, work)

    assert not eager.is_coarse(after.program)
    before = model.program.state_dict
    assert all(weight.shape == before[name].shape for name, weight in after.program.state_dict.items())
    assert after.lineage[-1].startswith("quantization-aware-training(steps=100): held-out loss ")


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ((InferenceMode(),), "needs a later technique that computes products in int8"),
        (("openvino-weight-only", "openvino"), "needs a later technique that computes products in int8"),
        ((MagnitudePruning(), Recovery(), "onnx-static-int8", "onnx-runtime"), "both a training of the same weights"),
    ],
    ids=["float", "weights alone", "beside recovery"],
)
def test_it_is_refused_where_it_has_nothing_to_do(plan, reason):
    kinds = techniques()
    others = [kinds[t]() if isinstance(t, str) else t for t in plan]

    assert Plan.of(others).illegal(FACTS) is None
    assert reason in (Plan.of([*others, QuantizationAwareTraining()]).illegal(FACTS) or "")


@pytest.mark.parametrize("names", ["nncf-static-int8 openvino", "magnitude-pruning onnx-dynamic-int8 onnx-runtime"])
def test_it_belongs_before_every_int8(names):
    kinds = techniques()
    plan = Plan.of([QuantizationAwareTraining(), *(kinds[name]() for name in names.split())])

    assert plan.illegal(FACTS) is None
    assert isinstance(plan.techniques[-3], QuantizationAwareTraining)


def test_gradients_pass_through_the_rounding():
    weight = torch.randn(4, 8, requires_grad=True)

    fake_quantization.rounded_activation(fake_quantization.rounded_weight(weight)).sum().backward()

    assert torch.equal(weight.grad, torch.ones(4, 8))


def test_every_product_of_a_graph_takes_rounded_operands(job):
    model, _, rows = job

    def products(graph):
        counted.append(fake_quantization.insert(graph))

    counted = []
    rounded = eager.open_function(model.program, products)(*eager.lifted_values(model.program), rows)
    plain = eager.run_flat(model.program, [rows])

    assert counted == [3]
    assert 0 < noise(rounded, plain).item() < 0.5


def test_a_layer_that_the_user_keeps_in_float_is_not_rounded_in_training(job, monkeypatch):
    model, work, _ = job
    names = [layer.name for layer in layers_of(model)]
    rounded, insert = [], fake_quantization.insert
    monkeypatch.setattr(fake_quantization, "insert", lambda graph, **how: rounded.append(insert(graph, **how)))

    QuantizationAwareTraining(steps=30).apply(model, dataclasses.replace(work, keep=(names[1],)))

    assert (len(names), rounded) == (3, [2])


def test_what_trains_computes_a_kept_layer_exactly(job):
    model, _, rows = job
    kept = {layer.name for layer in layers_of(model)}

    answers = eager.open_function(model.program, lambda graph: fake_quantization.insert(graph, kept=kept))
    exact = answers(*eager.lifted_values(model.program), rows)

    assert torch.equal(exact[0], eager.run_flat(model.program, [rows])[0])


def test_a_kept_layer_that_is_no_longer_there_is_refused_by_name(job):
    model, work, _ = job
    gone = dataclasses.replace(work, keep=("linear_9",), layers=(Layer("linear_9", "head", "linear"),))

    with pytest.raises(NotApplicable, match="linear_9 cannot be told apart"):
        QuantizationAwareTraining(steps=30).apply(model, gone)


def test_a_kept_product_of_activations_that_was_fused_is_no_reason_to_refuse(job):
    model, work, _ = job
    fused = dataclasses.replace(work, keep=("matmul",), layers=(Layer("matmul", "attention", "matmul"),))

    assert QuantizationAwareTraining(steps=100).apply(model, fused).lineage


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_an_impossible_number_of_steps_is_refused(steps):
    with pytest.raises(UsageError, match="1 or more"):
        QuantizationAwareTraining(steps=steps)
