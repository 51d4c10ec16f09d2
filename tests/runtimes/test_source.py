"""Originals: modules and model files, opened as their own libraries would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from runtimes.models import Convolution, mlp, work
from vivace.core.errors import UsageError
from vivace.core.program import Form
from vivace.runtimes import onnx_graph, source, store
from vivace.runtimes.capture import capture


def test_a_module_is_put_in_eval_mode() -> None:
    module = Convolution().train()

    assert source.open_original({"file": None}, module) is module
    assert not module.training


def test_an_onnx_file_is_a_model_of_its_own(tmp_path: Path) -> None:
    module = Convolution().eval()
    captured = capture(module, (torch.randn(2, 1, 8, 8),)).model
    path = onnx_graph.to_onnx(captured, work(captured, tmp_path)).program
    x = torch.randn(3, 1, 8, 8)

    model = source.onnx_model(path)
    store.save(model, tmp_path / "program")

    assert model.form is Form.ONNX
    assert model.signature.inputs[0].shape == (None, 1, 8, 8)
    assert torch.allclose(source.open_source(path)(x), module(x), atol=1e-5)
    assert torch.allclose(store.load(tmp_path / "program")(x), module(x), atol=1e-5)
    assert source.example_inputs(path)[0].shape == (2, 1, 8, 8)


def test_a_pt2_file_with_a_free_batch_keeps_it(tmp_path: Path) -> None:
    module, free = mlp(), torch.export.Dim.DYNAMIC
    torch.export.save(
        torch.export.export(module, (torch.randn(4, 784),), dynamic_shapes=({0: free},)), tmp_path / "m.pt2"
    )

    original: Any = source.open_source(tmp_path / "m.pt2")
    found = capture(original, source.example_inputs(tmp_path / "m.pt2"))

    assert found.model.signature.inputs[0].shape == (None, 784)
    assert torch.allclose(original(torch.ones(3, 784)), module(torch.ones(3, 784)))


def test_a_pt2_file_with_fixed_shapes_stays_fixed(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(mlp(), (torch.randn(4, 784),)), tmp_path / "m.pt2")

    original: Any = source.open_source(tmp_path / "m.pt2")
    found = capture(original, source.example_inputs(tmp_path / "m.pt2"))

    assert found.model.signature.inputs[0].shape == (4, 784)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_keras_file_is_captured_through_its_torch_back_end(tmp_path: Path) -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()]
    keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")]).save(tmp_path / "m.keras")

    original: Any = source.open_source(tmp_path / "m.keras")
    found = capture(original, source.example_inputs(tmp_path / "m.keras"))
    store.save(found.model, tmp_path / "program")

    x = torch.rand(5, 8, 8, 1)
    assert found.note == ""
    assert torch.allclose(store.load(tmp_path / "program")(x), original(x), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.onnx", UsageError, "there is no model file"),
        ("broken.onnx", UsageError, "ONNX Runtime cannot open"),
        ("broken.pt2", UsageError, "not a readable"),
        ("broken.keras", UsageError, "Keras cannot open"),
        ("model.txt", UsageError, "allowed endings are .pt2 and .keras"),
    ],
)
def test_a_file_that_cannot_be_opened_is_named(name: str, error: type, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"x")
    (tmp_path / "broken.pt2").write_bytes(b"x")
    (tmp_path / "broken.keras").write_bytes(b"x")
    (tmp_path / "model.txt").write_bytes(b"x")

    with pytest.raises(error, match=message):
        source.open_source(tmp_path / name)


def test_anything_else_is_refused() -> None:
    with pytest.raises(UsageError, match="the model is a int"):
        source.open_source(3)


def test_a_model_is_where_its_weights_are() -> None:
    assert source.device_of(mlp()) == "cpu"
    assert source.device_of(torch.nn.ReLU()) == "cpu"
    assert source.device_of("model.onnx") == "cpu"


def test_a_model_on_two_devices_is_refused_with_both() -> None:
    spread = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta"))
    with pytest.raises(UsageError, match="lies on cpu and meta; give all of it on one device"):
        source.device_of(spread)


def test_a_model_on_a_device_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="lies on meta; give it on the CPU"):
        source.device_of(torch.nn.Linear(2, 2, device="meta"))
