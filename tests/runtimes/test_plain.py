"""Graphs as plain data: they answer as the exporter's do, need none of it, and a damaged one is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runtimes.models import Function, mlp
from vivace.core.errors import ArtifactError
from vivace.core.program import Form
from vivace.core.structure import flatten
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs import plain
from vivace.testing import tiny


def saved(module: nn.Module, call: Any, folder: Path, form: Form = Form.TORCH) -> Path:
    model = capture(module.eval(), call).model
    store.save(model.replace(form=form), folder / "program")
    return folder / "program"


def flat(answer: Any) -> list[Tensor]:
    return flatten(answer, lambda one: isinstance(one, Tensor))[0]


def edited(program: Path, change: Callable[[Any], object]) -> Path:
    """The program with another graph as plain data."""
    path = program / plain.FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return program


@pytest.mark.parametrize("model", tiny.MODELS, ids=lambda model: model.name)
def test_a_graph_read_as_plain_data_answers_bit_for_bit_as_the_exporters(model: tiny.Tiny, tmp_path: Path) -> None:
    program = saved(model.model(), model.inputs(), tmp_path)

    light, whole = store.read_to_run(program), store.read_model(program)

    assert isinstance(light.program, plain.PlainProgram)
    assert not isinstance(whole.program, plain.PlainProgram)
    for samples in (1, 4, 7):
        call = model.inputs(samples, seed=samples)
        found, wanted = (flat(tiny.answer(store.open_model(program, one), call)) for one in (light, whole))
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
        assert [one.requires_grad for one in found] == [one.requires_grad for one in wanted]


@pytest.mark.parametrize("form", [Form.TORCH, Form.NATIVE])
def test_an_interpreter_that_opens_one_imports_neither_the_exporter_nor_the_compiler_of_pytorch(
    form: Form, tmp_path: Path
) -> None:
    program = saved(mlp(), (torch.randn(2, 784),), tmp_path, form)
    script = (
        "import sys, torch; from pathlib import Path; from vivace.runtimes import store; "
        f"store.load(Path({str(program)!r}))(torch.zeros(2, 784)); "
        "print(sorted({'sympy', 'torch._dynamo', 'torch._export.serde.serialize'} & set(sys.modules)))"
    )

    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert child.stdout.strip() == "[]", child.stdout + child.stderr


def test_weights_that_are_one_stay_one(tmp_path: Path) -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    program = saved(nn.Sequential(first, second), (torch.randn(2, 8),), tmp_path)

    read = store.read_to_run(program).program

    weights = [value for value in read.state_dict.values() if value.dim() == 2]
    assert len({weight.data_ptr() for weight in weights}) == 1


def test_a_program_that_was_made_by_another_pytorch_or_of_another_graph_is_left_to_the_exporter(tmp_path: Path) -> None:
    program = saved(mlp(), (torch.randn(2, 784),), tmp_path)
    archive = program / "model.pt2"

    assert plain.read(archive, edited(program, lambda one: one.update(torch="0.0.1")) / plain.FILE) is None
    edited(program, lambda one: one.update(torch=torch.__version__, of="0" * 64))
    assert plain.read(archive, program / plain.FILE) is None
    assert not isinstance(store.read_to_run(program).program, plain.PlainProgram)


def test_what_is_not_plain_is_not_written(tmp_path: Path) -> None:
    def chosen(x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    program = saved(Function(chosen), (torch.randn(2, 3),), tmp_path)

    assert not (program / plain.FILE).exists()
    torch.testing.assert_close(store.load(program)(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def first(document: Any, op: str) -> Any:
    return next(node for node in document["nodes"] if node["op"] == op)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: first(one, "call_function").update(target="aten.save.default"), "operator 'aten.save.default'"),
        (lambda one: first(one, "call_function").update(target="aten.from_file.default"), "holds the operator"),
        (lambda one: first(one, "call_function").update(target="os.system"), "holds the operator"),
        (lambda one: first(one, "call_function").update(target="operator.methodcaller"), "holds the operator"),
        (lambda one: first(one, "call_function").update(target="aten.__class__.default"), "holds the operator"),
        (lambda one: first(one, "call_function").update(target="aten.no_such.default"), "damaged: AttributeError"),
        (lambda one: first(one, "call_function").update(name="open(1)"), "two nodes of the name|is no name"),
        (lambda one: first(one, "call_function").update(kwargs={"open(1)": 1}), "is no name"),
        (lambda one: first(one, "call_function").update(args=[{"node": 10**6}]), "is none"),
        (lambda one: first(one, "call_function").update(args=[{"node": -1}]), "is none"),
        (lambda one: first(one, "call_function").update(args=[{"dtype": "os"}]), "is no dtype"),
        (lambda one: first(one, "call_function").update(op="call_module"), "a node of kind 'call_module'"),
        (lambda one: first(one, "placeholder").update(name="import"), "two nodes of the name|is no name"),
        (lambda one: one.update(nodes=one["nodes"][1:]), "damaged"),
        (lambda one: one["taken"].append({"name": "absent", "dtype": "float32"}), "damaged|lacks the numbers"),
        (lambda one: one["taken"][0].update(dtype="float64"), "damaged|out of bounds|exported program"),
        (lambda one: one.update(nodes=None), "damaged"),
    ],
)
def test_a_graph_that_nobody_wrote_is_refused(change: Callable[[Any], object], reason: str, tmp_path: Path) -> None:
    program = edited(saved(mlp(), (torch.randn(2, 784),), tmp_path), change)

    with pytest.raises(ArtifactError, match=reason):
        store.load(program)


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    program = saved(mlp(), (torch.randn(2, 784),), tmp_path)
    path = program / plain.FILE
    path.write_text(path.read_text()[:-40])

    with pytest.raises(ArtifactError, match="damaged"):
        store.load(program)
