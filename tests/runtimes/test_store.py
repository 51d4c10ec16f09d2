"""Program folders: every form is stored, opened again, and answers as the module does for any number of samples."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtimes.models import Convolution, Recurrent, mlp, work
from vivace.core.errors import ArtifactError, DiskFull, MissingExtra, NotApplicable
from vivace.core.program import Form, Model, Settings
from vivace.devices.machine import threads_here
from vivace.runtimes import aot, onnx_graph, onnx_session, openvino_graph, pt2, store
from vivace.runtimes.capture import capture

Build = Callable[[Model, Path], Model]


def _torch(model: Model, _: Path) -> Model:
    return model


def _inductor(model: Model, _: Path) -> Model:
    return model.replace(form=Form.INDUCTOR, settings=Settings(inference_mode=True).with_options(freezing=True))


def _aot(model: Model, folder: Path) -> Model:
    return aot.to_aot(model.replace(settings=Settings(inference_mode=True)), folder / "aot")


def _onnx(model: Model, folder: Path) -> Model:
    return onnx_graph.to_onnx(model, work(model, folder)).replace(settings=Settings(threads=1))


def _openvino(model: Model, folder: Path) -> Model:
    return openvino_graph.to_openvino(model, work(model, folder)).replace(settings=Settings(threads=1))


FORMS = [_torch, _inductor, _onnx, _openvino, pytest.param(_aot, marks=pytest.mark.slow)]


@pytest.mark.parametrize("build", FORMS)
def test_a_stored_program_answers_as_the_module_for_any_number_of_samples(build: Build, tmp_path: Path) -> None:
    module = Convolution().eval()
    model = build(capture(module, (torch.randn(2, 1, 8, 8),)).model, tmp_path)
    store.save(model, tmp_path / "program")

    program = store.load(tmp_path / "program", trust=True)

    one, many = torch.randn(1, 1, 8, 8), torch.randn(33, 1, 8, 8)
    assert program.form is model.form
    assert torch.allclose(program(one), module(one), atol=1e-5)
    assert torch.allclose(program(many), module(many), atol=1e-5)


@pytest.mark.parametrize("build", FORMS)
def test_a_nested_answer_keeps_its_shape_in_every_form(build: Build, tmp_path: Path) -> None:
    module = Recurrent().eval()
    model = build(capture(module, {"x": torch.randn(2, 5, 8), "scale": 2.0}).model, tmp_path)
    store.save(model, tmp_path / "program")

    received = store.load(tmp_path / "program", trust=True)(x=torch.ones(4, 5, 8), scale=2.0)

    expected = module(torch.ones(4, 5, 8), 2.0)
    assert torch.allclose(received.logits, expected.logits, atol=1e-5)
    assert torch.allclose(received.states[0], expected.states[0], atol=1e-5)


@pytest.mark.parametrize("build", [_torch, _onnx, pytest.param(_openvino, marks=pytest.mark.slow)])
def test_a_transformer_with_a_free_length_is_stored_in_every_form(build: Build, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    module = transformers.BertModel(transformers.BertConfig(intermediate_size=64, **sizes)).eval()
    ids = torch.randint(0, 50, (2, 12))
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    store.save(build(capture(module, call, varying=[frozenset({1})] * 2).model, tmp_path), tmp_path / "program")

    shorter = {name: value[:1, :7] for name, value in call.items()}
    received = store.load(tmp_path / "program")(**shorter)

    assert torch.allclose(received.last_hidden_state, module(**shorter).last_hidden_state, atol=1e-5)


@pytest.mark.parametrize("build", FORMS[1:4])
def test_an_answer_is_not_overwritten_by_the_next_call(build: Build, tmp_path: Path) -> None:
    model = build(capture(mlp(), (torch.randn(2, 784),)).model, tmp_path)
    store.save(model, tmp_path / "program")
    program = store.load(tmp_path / "program")

    first = program(torch.ones(2, 784))
    kept = first.clone()
    program(torch.zeros(2, 784))

    assert torch.equal(first, kept)


def test_compiling_serves_every_batch_size_without_another_compilation(tmp_path: Path) -> None:
    model = _inductor(capture(mlp(), (torch.randn(1, 784),)).model, tmp_path)
    store.save(model, tmp_path / "program")
    program = store.load(tmp_path / "program")
    torch._dynamo.utils.counters.clear()

    sizes = [program(torch.randn(n, 784)).shape[0] for n in (1, 2, 3, 8, 64)]

    assert sizes == [1, 2, 3, 8, 64]
    assert not torch._dynamo.utils.counters["inductor"]
    assert not torch._dynamo.utils.counters["stats"]


def test_a_model_read_back_can_be_stored_again_with_its_settings_and_example(tmp_path: Path) -> None:
    example = torch.randn(2, 784)
    model = capture(mlp(), (example,)).model.replace(settings=Settings(threads=2), lineage=("a", "b"))
    store.save(model, tmp_path / "one")

    again = store.read_model(tmp_path / "one")
    store.save(again, tmp_path / "two")

    assert again.settings == Settings(threads=2)
    assert again.lineage == ("a", "b")
    assert again.signature == model.signature
    assert torch.equal(store.read_model(tmp_path / "two").program.example_inputs[0][0], example)


def test_saving_over_a_folder_replaces_it_and_leaves_nothing_beside(tmp_path: Path) -> None:
    model = capture(mlp(), (torch.randn(2, 784),)).model
    store.save(model, tmp_path / "program")
    store.save(model.replace(form=Form.NULL, program=None), tmp_path / "program")

    assert [path.name for path in tmp_path.iterdir()] == ["program"]
    assert store.load(tmp_path / "program").form is Form.NULL


def test_a_full_disk_is_said_and_leaves_the_old_folder_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = capture(mlp(), (torch.randn(2, 784),)).model
    store.save(model, tmp_path / "program")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pt2, "save", full)

    with pytest.raises(DiskFull, match="no room left on the disk"):
        store.save(model, tmp_path / "program")

    assert [path.name for path in tmp_path.iterdir()] == ["program"]
    assert store.load(tmp_path / "program")(torch.ones(1, 784)).shape == (1, 10)


def test_native_code_needs_trust(tmp_path: Path) -> None:
    (tmp_path / "native.pt2").write_bytes(b"native")
    model = capture(mlp(), (torch.randn(2, 784),)).model
    store.save(model.replace(form=Form.AOT_INDUCTOR, program=tmp_path / "native.pt2"), tmp_path / "program")

    with pytest.raises(ArtifactError, match="trust=True"):
        store.load(tmp_path / "program")


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "form": "x"}'])
def test_a_damaged_folder_is_an_artifact_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "program.json").write_text(text)

    with pytest.raises(ArtifactError, match="program"):
        store.load(tmp_path)


def test_a_folder_without_its_program_says_which_file_is_missing(tmp_path: Path) -> None:
    store.save(capture(mlp(), (torch.randn(2, 784),)).model, tmp_path / "program")
    (tmp_path / "program" / "model.pt2").unlink()

    with pytest.raises(ArtifactError, match=r"lacks model\.pt2"):
        store.load(tmp_path / "program")


@pytest.mark.parametrize(("package", "build", "extra"), [("onnx", _onnx, "onnx"), ("openvino", _openvino, "openvino")])
def test_a_missing_package_is_named_with_its_install_line(
    package: str, build: Build, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = capture(mlp(), (torch.randn(2, 784),)).model
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )

    with pytest.raises(MissingExtra, match=rf"pip install 'vivace\[{extra}\]'"):
        build(model, tmp_path)


def test_without_a_compiler_inductor_is_not_applicable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(_inductor(capture(mlp(), (torch.randn(2, 784),)).model, tmp_path), tmp_path / "program")
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(NotApplicable, match="needs a C\\+\\+ compiler"):
        store.load(tmp_path / "program")


def test_a_conversion_is_made_once_for_one_lineage(tmp_path: Path) -> None:
    model = capture(mlp(), (torch.randn(2, 784),)).model
    first = onnx_graph.to_onnx(model, work(model, tmp_path)).program
    written = first.stat().st_mtime_ns

    again = onnx_graph.to_onnx(model, work(model, tmp_path)).program
    other = onnx_graph.to_onnx(model.replace(lineage=("x",)), work(model, tmp_path)).program

    assert again == first
    assert first.stat().st_mtime_ns == written
    assert other != first


def test_the_program_note_is_plain_json(tmp_path: Path) -> None:
    store.save(capture(mlp(), (torch.randn(2, 784),)).model, tmp_path / "program")

    assert json.loads((tmp_path / "program" / "program.json").read_text())["form"] == "torch"


def test_onnx_runtime_is_told_its_threads_so_that_it_pins_none(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = capture(mlp(), (torch.randn(3, 784),)).model
    file = Path(onnx_graph.to_onnx(model, work(model, tmp_path)).program)

    told = [onnx_session.open_session(file, Settings(threads=count)) for count in (None, 2)]

    counts = [session.get_session_options().intra_op_num_threads for session in told]
    assert counts == [threads_here(), 2]
