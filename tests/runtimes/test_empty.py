"""The empty program: the same form, inputs and outputs as another one's, and nothing computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runtimes.models import Convolution, Recurrent, mlp, work
from vivace.core.errors import CallError, NotApplicable
from vivace.core.program import Form, Model, Settings
from vivace.runtimes import aot, onnx_graph, openvino_graph, store
from vivace.runtimes.capture import capture
from vivace.runtimes.empty import emptied, open_empty

Build = Callable[[Model, Path], Model]
SETTINGS = Settings(threads=1, inference_mode=True)


def _torch(model: Model, _: Path) -> Model:
    return model


def _inductor(model: Model, _: Path) -> Model:
    return model.replace(form=Form.INDUCTOR, settings=SETTINGS.with_options(freezing=True))


def _onnx(model: Model, folder: Path) -> Model:
    return onnx_graph.to_onnx(model, work(model, folder)).replace(settings=SETTINGS)


def _openvino(model: Model, folder: Path) -> Model:
    return openvino_graph.to_openvino(model, work(model, folder)).replace(settings=SETTINGS)


def _aot(model: Model, folder: Path) -> Model:
    return aot.to_aot(model.replace(settings=Settings(inference_mode=True)), folder / "aot")


def _native(model: Model, _: Path) -> Model:
    return model.replace(form=Form.NATIVE, settings=SETTINGS)


FORMS = [_torch, _inductor, _native, _onnx, _openvino, pytest.param(_aot, marks=pytest.mark.slow)]


@pytest.mark.parametrize("build", FORMS)
def test_an_empty_program_takes_and_gives_what_the_other_does_and_computes_nothing(
    build: Build, tmp_path: Path
) -> None:
    store.save(build(capture(mlp(), (torch.randn(2, 784),)).model, tmp_path), tmp_path / "program")

    arguments = {"folder": str(tmp_path / "program"), "inputs": [[2, 784]], "outputs": [[2, 10]]}
    empty = open_empty({**arguments, "to": str(tmp_path / "empty")})

    assert empty.form is store.read_model(tmp_path / "program").form
    assert torch.equal(empty(torch.randn(2, 784)), torch.zeros(2, 10))
    assert torch.equal(empty(torch.randn(2, 784)), torch.zeros(2, 10))
    with pytest.raises(CallError, match=r"allowed is \[2, 784\]"):
        empty(torch.randn(3, 784))


@pytest.mark.parametrize("build", [_torch, _onnx, _openvino])
def test_an_empty_program_answers_with_the_same_nesting(build: Build, tmp_path: Path) -> None:
    module = Recurrent().eval()
    store.save(build(capture(module, (torch.randn(2, 5, 8),)).model, tmp_path), tmp_path / "program")

    shapes = {"inputs": [[2, 5, 8]], "outputs": [[2, 16], [1, 2, 16], [1, 2, 16]]}
    empty = open_empty({"folder": str(tmp_path / "program"), **shapes, "to": str(tmp_path / "empty")})

    assert [state.shape for state in empty(torch.randn(2, 5, 8)).states] == [(1, 2, 16), (1, 2, 16)]


def test_copies_that_share_a_batch_and_forms_without_a_counterpart_are_told(tmp_path: Path) -> None:
    model = capture(Convolution().eval(), (torch.randn(2, 1, 8, 8),)).model

    with pytest.raises(NotApplicable, match="splits each batch over copies"):
        emptied(model.replace(settings=Settings(instances=2)), [[2, 1, 8, 8]], [[2, 10]], tmp_path)
    with pytest.raises(NotApplicable, match="form null has no empty counterpart"):
        emptied(model.replace(form=Form.NULL), [[2, 1, 8, 8]], [[2, 10]], tmp_path)
