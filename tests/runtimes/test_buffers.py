"""Calls through kept buffers: the same answers as through an engine's own Python, whatever comes in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from runtimes.models import Function, mlp, work
from vivace.core.program import Model, Settings
from vivace.runtimes import onnx_graph, onnx_session, openvino_graph, openvino_session, source
from vivace.runtimes.buffers import held, onnx_binding
from vivace.runtimes.capture import capture
from vivace.runtimes.program import Program

Open = Callable[[Model, Path], Program]


def _onnx(model: Model, folder: Path) -> Program:
    return onnx_session.load(onnx_graph.to_onnx(model, work(model, folder)))


def _openvino(model: Model, folder: Path) -> Program:
    shapes = Settings().with_options(exact_shapes="[[[2, 784]], [[4, 784]]]")
    return openvino_session.load(openvino_graph.to_openvino(model, work(model, folder)).replace(settings=shapes))


@pytest.fixture(params=[_onnx, _openvino])
def opened(request: pytest.FixtureRequest) -> Open:
    found: Open = request.param
    return found


def test_calls_in_changing_shapes_are_answered_each_with_its_own_inputs(opened: Open, tmp_path: Path) -> None:
    module = mlp()
    program = opened(capture(module, (torch.randn(2, 784),)).model, tmp_path)
    calls = [torch.randn(size, 784) for size in (2, 2, 4, 3, 2, 4, 2, 1, 3)]

    answers = [program(x) for x in calls]  # all alive at once: none may be overwritten by a later call

    for x, answer in zip(calls, answers, strict=True):
        torch.testing.assert_close(answer, module(x), rtol=1e-4, atol=1e-5)


def test_inputs_that_need_gradients_or_lie_strided_are_read_as_they_are(opened: Open, tmp_path: Path) -> None:
    module = mlp()
    program = opened(capture(module, (torch.randn(2, 784),)).model, tmp_path)
    x = torch.randn(784, 2).T

    answers = [program(x.detach().requires_grad_()) for _ in range(3)]

    assert not any(answer.requires_grad for answer in answers)
    torch.testing.assert_close(answers[-1], module(x), rtol=1e-4, atol=1e-5)


def test_large_inputs_are_read_where_they_lie(tmp_path: Path) -> None:
    module = Function(lambda x: x.sum(dim=1)).eval()
    model = openvino_graph.to_openvino(
        captured := capture(module, (torch.randn(2, held.COPIED_BYTES),)).model, work(captured, tmp_path)
    )
    shapes = Settings().with_options(exact_shapes=f"[[[2, {held.COPIED_BYTES}]]]")
    program = openvino_session.load(model.replace(settings=shapes))
    calls = [torch.rand(2, held.COPIED_BYTES) for _ in range(3)]

    answers = [program(x) for x in calls]

    for x, answer in zip(calls, answers, strict=True):
        torch.testing.assert_close(answer, x.sum(dim=1))


def test_large_inputs_that_lie_strided_are_kept_until_they_were_read(tmp_path: Path) -> None:
    module = Function(lambda x: x + 1).eval()
    captured = capture(module, (torch.randn(2, held.COPIED_BYTES),)).model
    shapes = Settings().with_options(exact_shapes=f"[[[2, {held.COPIED_BYTES}]]]")
    model = openvino_graph.to_openvino(captured, work(captured, tmp_path)).replace(settings=shapes)
    program, x = openvino_session.load(model), torch.rand(held.COPIED_BYTES, 2).T

    answers = [program(x) for _ in range(6)]

    assert all(torch.equal(answer, x + 1) for answer in answers)


def test_calls_go_on_after_inference_mode_in_which_the_program_was_opened_or_first_called(
    opened: Open, tmp_path: Path
) -> None:
    module, x = mlp(), torch.randn(2, 784)
    captured = capture(module, (x,)).model
    with torch.inference_mode():
        program = opened(captured, tmp_path)
        program(x)

    answers = [program(x) for _ in range(2)]

    torch.testing.assert_close(answers[-1], module(x), rtol=1e-4, atol=1e-5)


def test_the_callers_default_device_is_not_that_of_the_buffers(opened: Open, tmp_path: Path) -> None:
    module, x = mlp(), torch.randn(2, 784)
    program = opened(capture(module, (x,)).model, tmp_path)

    with torch.device("meta"):
        answers = [program(x) for _ in range(2)]

    torch.testing.assert_close(answers[-1], module(x), rtol=1e-4, atol=1e-5)


def test_large_answers_are_not_held_for_any_shape(tmp_path: Path) -> None:
    module = Function(lambda x: x.repeat(1, 1000)).eval()
    program = _onnx(capture(module, (torch.randn(2, 50),)).model, tmp_path)
    bound = program._run
    assert isinstance(bound, onnx_binding.Bound)

    answers = [program(torch.randn(size, 50)) for size in (2, 3, 2)]

    assert answers[-1].shape == (2, 50_000)
    assert all(run is bound._call for run in bound._known.values())


def test_a_file_whose_outputs_are_not_as_long_as_it_says_is_answered_in_every_length(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    rows = onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, [None, 3])
    kept = onnx.helper.make_tensor_value_info("kept", onnx.TensorProto.INT64, [None, 2])
    nodes = [
        onnx.helper.make_node("NonZero", ["rows"], ["found"]),
        onnx.helper.make_node("Transpose", ["found"], ["kept"]),
    ]
    graph = onnx.helper.make_graph(nodes, "found", [rows], [kept])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "model.onnx")
    program = onnx_session.load(source.onnx_model(tmp_path / "model.onnx"))
    calls = [torch.ones(2, 3), torch.ones(2, 3), torch.eye(2, 3), torch.ones(2, 3)]

    answers = [program(x) for x in calls]

    assert [len(answer) for answer in answers] == [6, 6, 2, 6]


def test_outputs_whose_shapes_depend_on_more_than_the_batch_are_not_bound() -> None:
    fixed = capture(mlp(), (torch.randn(2, 784),)).model.signature
    free = capture(Function(lambda x: x + 1).eval(), (torch.randn(2, 5),), varying=[frozenset({0, 1})]).model.signature

    assert onnx_binding.shapes_follow(fixed)
    assert not onnx_binding.shapes_follow(free)


def test_a_held_run_gives_the_promised_type() -> None:
    x, y = torch.zeros(2), torch.zeros(2)
    run = held.held(held.copies([(0, x)]), lambda: torch.mul(x, 2, out=y), [(y, torch.float64)])

    answer: Tensor = run([torch.tensor([1.0, 2.0])])[0]

    assert answer.dtype is torch.float64
    assert answer.tolist() == [2.0, 4.0]
