"""What engines fused is told by the layers of the captured model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from runtimes.models import work
from vivace.core.layer import Fused
from vivace.core.registry import techniques
from vivace.core.technique import Technique
from vivace.data import samples
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.fusions import inductor_kernels
from vivace.runtimes.fusions.lister import fused
from vivace.testing import contract, tiny

KINDS = techniques()


def _listed(model: str, folder: Path, *names: str):  # type: ignore[no-untyped-def]
    original = contract.prepare(tiny.tiny(model), folder / "original")
    job = contract.describe(original, tiny.tiny(model), folder)
    for name in names:
        original = KINDS[name]().apply(original, job)
    store.save(original, folder / "program")
    return fused(folder / "program", folder / "original")


def test_the_captured_program_fuses_nothing(tmp_path: Path) -> None:
    found = _listed("residual", tmp_path)

    assert (found.groups, found.note) == ((), "")


def test_a_folded_normalization_is_told_with_its_convolution_also_after_storing(tmp_path: Path) -> None:
    found = _listed("residual", tmp_path, "fold-conv-batchnorm")

    assert found.groups == (
        Fused("conv2d", ("stem.0", "stem.1")),
        Fused("conv2d", ("block.0", "block.1")),
        Fused("conv2d", ("block.3", "block.4")),
    )


def test_fused_attention_tells_the_operators_that_it_replaced(tmp_path: Path) -> None:
    (group,) = _listed("attention", tmp_path, "fuse-attention").groups

    assert group == Fused("scaled_dot_product_attention", ("matmul", "div", "softmax", "matmul_1"))


@pytest.mark.parametrize("name", ["native-program", "native-int8"])
def test_code_of_its_own_tells_what_a_product_ends_with(name: str, tmp_path: Path) -> None:
    groups = _listed("residual", tmp_path, name).groups

    assert groups[0] == Fused("product", ("stem.0", "stem.1", "stem.2"))
    assert any("add" in layer for group in groups for layer in group.layers)  # the shortcut


def test_openvino_tells_which_layers_became_one_convolution(tmp_path: Path) -> None:
    groups = _listed("residual", tmp_path, "openvino").groups

    assert next(group.layers[:3] for group in groups if group.operator == "Convolution") == (
        "stem.0",
        "stem.1",
        "stem.2",
    )


@pytest.mark.parametrize("names", [("openvino",), ("nncf-static-int8", "openvino")], ids="+".join)
def test_openvino_tells_a_convolution_that_lost_its_name_by_its_weights(names: tuple[str, ...], tmp_path: Path) -> None:
    x = torch.randn(4, 1, 8, 8)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    captured = capture(plain.eval(), (x,)).model  # nothing is added by it or to it, so nothing keeps its name
    calls = samples.write(tmp_path / "calls", [[x]], captured.signature.call, 1)
    job = dataclasses.replace(work(captured, tmp_path), calibration=calls)
    model = captured
    for name in names:
        model = KINDS[name]().apply(model, job)
    store.save(captured, tmp_path / "original")
    store.save(model, tmp_path / "program")

    groups = fused(tmp_path / "program", tmp_path / "original").groups

    assert next(group.layers[:3] for group in groups if group.operator == "Convolution") == (
        "0",
        "1",
        "2",
    )


def test_a_rewrites_group_grows_by_what_the_compiler_added(tmp_path: Path) -> None:
    groups = _listed("residual", tmp_path, "fold-conv-batchnorm", "openvino").groups

    assert ("stem.0", "stem.1", "stem.2") in [group.layers for group in groups]


def test_onnx_runtime_tells_which_layers_became_one_convolution(tmp_path: Path) -> None:
    found = _listed("residual", tmp_path, "onnx-runtime")

    assert ("stem.0", "stem.1", "stem.2") in [group.layers for group in found.groups]
    assert found.note == ""


def _without_fusing(model: str, folder: Path, technique: Technique):  # type: ignore[no-untyped-def]
    plain = technique.unfused()
    assert plain is not None and plain.unfused() is None
    original = contract.prepare(tiny.tiny(model), folder / "original")
    job = contract.describe(original, tiny.tiny(model), folder)
    store.save(plain.apply(original, job), folder / "program")
    return fused(folder / "program", folder / "original")


def test_onnx_runtime_without_fusing_adds_nothing_to_what_the_exporter_folded(tmp_path: Path) -> None:
    found = _without_fusing("residual", tmp_path, KINDS["onnx-runtime"]())

    assert [group.layers for group in found.groups] == [
        ("stem.0", "stem.1"),
        ("block.0", "block.1"),
        ("block.3", "block.4"),
    ]


def test_onnx_runtime_tells_a_gelu_or_an_activation_of_a_linear_layer(tmp_path: Path) -> None:
    assert _listed("mlp", tmp_path, "onnx-runtime").note == ""


def _frozen(model: str, folder: Path, name: str):  # type: ignore[no-untyped-def]
    original = contract.prepare(tiny.tiny(model), folder / "original")
    job = contract.describe(original, tiny.tiny(model), folder)
    store.save(KINDS[name](freeze=True).apply(original, job), folder / "program")
    return fused(folder / "program", folder / "original")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inductor", "aot-inductor"])
def test_inductor_tells_a_convolution_with_what_its_patterns_put_into_it(name: str, tmp_path: Path) -> None:
    found = _frozen("residual", tmp_path, name)

    layers = [group.layers for group in found.groups]
    assert ("stem.0", "stem.1", "stem.2") in layers and ("block.0", "block.1", "block.2") in layers
    assert ("block.3", "block.4", "add", "relu_1") in layers
    told = [layer for group in layers for layer in group]
    assert len(told) == len(set(told))
    assert found.note == ""


@pytest.mark.slow
def test_inductor_tells_attention_that_it_recognized_and_a_sum_with_its_normalization(tmp_path: Path) -> None:
    found = _listed("attention", tmp_path, "inductor")

    assert [group.layers for group in found.groups] == [("matmul", "div", "softmax", "matmul_1"), ("add", "norm")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inductor", "aot-inductor"])
def test_inductor_without_fusing_puts_nothing_into_convolutions_but_folded_weights(name: str, tmp_path: Path) -> None:
    found = _without_fusing("residual", tmp_path, KINDS[name](freeze=True))

    convolutions = [group.layers for group in found.groups if "conv" in group.operator]
    assert convolutions == [("stem.0", "stem.1"), ("block.0", "block.1"), ("block.3", "block.4")]


@pytest.mark.slow
def test_recording_leaves_the_graph_and_inductor_as_they_were() -> None:
    from torch._inductor import config, debug, pattern_matcher

    graph = capture(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), (torch.randn(2, 4),)).model.program.graph
    before = (debug.dump_inductor_provenance_info, pattern_matcher.LoweringPatternEntry.apply)

    with inductor_kernels.recorded(graph) as compilations:
        during = (debug.dump_inductor_provenance_info, pattern_matcher.LoweringPatternEntry.apply)

    assert before == (debug.dump_inductor_provenance_info, pattern_matcher.LoweringPatternEntry.apply) != during
    assert config.trace.provenance_tracking_level == 0 and compilations == []
    assert not any("vivace_nodes" in node.meta.get("custom", {}) for node in graph.nodes)


def test_tiny_residual_is_what_these_tests_take_it_for() -> None:
    kinds = [type(child) for child in tiny.tiny("residual").model().stem]

    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
