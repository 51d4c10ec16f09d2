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
from vivace.data import samples
from vivace.runtimes import store
from vivace.runtimes.capture import capture
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


def test_onnx_runtime_tells_a_gelu_or_an_activation_of_a_linear_layer(tmp_path: Path) -> None:
    assert _listed("mlp", tmp_path, "onnx-runtime").note == ""


@pytest.mark.slow
def test_what_inductor_fused_is_said_not_to_be_listed(tmp_path: Path) -> None:
    assert _listed("mlp", tmp_path, "inductor").note == "what Inductor fused is not listed"


def test_tiny_residual_is_what_these_tests_take_it_for() -> None:
    kinds = [type(child) for child in tiny.tiny("residual").model().stem]

    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
