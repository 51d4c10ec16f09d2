"""Form XLA: PyTorch's graphs in JAX answer as PyTorch does, for any number of samples, and files that could do more are
refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vivace.core.errors import ArtifactError, CallError, NotApplicable
from vivace.core.program import Form, Model, Settings
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.empty import emptied

pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")

from xla_networks import NETWORKS, Recurrent, perceptron

from vivace.runtimes.settings import parts
from vivace.runtimes.xla import session, stablehlo


def stored(module: nn.Module, x: Tensor, folder: Path, batches: str = "[1, 4]") -> Model:
    """A network in form XLA in a program folder."""
    captured = capture(module.eval(), (x,)).model
    model = stablehlo.to_xla(captured, folder / "made")
    if captured.signature.has_batch:
        model = model.replace(settings=Settings().with_options(batches=batches))
    store.save(model, folder / "program")
    return model


def flat(answer: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xla")
    stored(perceptron(), torch.randn(4, 20), folder)
    return folder / "program"


@pytest.fixture
def own(program: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(program, tmp_path / "program"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_xla_answers_as_pytorch_to_one_part_in_ten_thousand(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, x = NETWORKS[name]
    module = build()
    stored(module, x, tmp_path)

    opened = store.load(tmp_path / "program")

    assert opened.form is Form.XLA
    for received, expected in zip(flat(opened(x)), flat(module(x)), strict=True):
        assert received.dtype is expected.dtype
        assert (received - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("samples", [1, 3, 4, 11])
def test_any_number_of_samples_is_answered_from_the_compiled_ones(samples: int, tmp_path: Path) -> None:
    module, x = Recurrent(), torch.randn(samples, 9, 8)
    stored(module, torch.randn(4, 9, 8), tmp_path)

    received = store.load(tmp_path / "program")(x)

    for got, want in zip(received, module(x), strict=True):
        assert torch.allclose(got, want, atol=1e-5)


def test_parts_cover_a_call_with_the_least_filling() -> None:
    assert list(parts.parts_of(9, (1, 2, 4))) == [(0, 4, 4), (4, 4, 4), (8, 1, 1)]


def test_answers_stay_when_the_program_is_called_again(program: Path) -> None:
    opened = store.load(program)

    first = opened(torch.zeros(4, 20))
    kept = first.clone()
    opened(torch.ones(4, 20))

    assert torch.equal(first, kept)


def test_a_call_that_does_not_fit_is_refused(program: Path) -> None:
    with pytest.raises(CallError, match="allowed is"):
        store.load(program)(torch.zeros(4, 21))


def test_bfloat16_goes_in_and_comes_out(tmp_path: Path) -> None:
    module = nn.Linear(8, 4).bfloat16()
    x = torch.randn(4, 8).bfloat16()
    stored(module, x, tmp_path)

    received = store.load(tmp_path / "program")(x)

    assert received.dtype is torch.bfloat16
    assert torch.allclose(received.float(), module(x).float(), rtol=2e-2, atol=2e-2)


def test_an_operator_without_a_translation_is_named_with_its_layer(tmp_path: Path) -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(1)[0]

    with pytest.raises(NotApplicable, match=r"lacks aten\.sort"):
        stored(Sorted(), torch.randn(4, 8), tmp_path)


def test_chosen_threads_are_not_promised(tmp_path: Path) -> None:
    model = capture(perceptron().eval(), (torch.randn(4, 20),)).model

    with pytest.raises(NotApplicable, match="one pool of threads"):
        stablehlo.to_xla(model.replace(settings=Settings(threads=1)), tmp_path / "made")


def test_a_file_more_or_less_is_refused(own: Path) -> None:
    (own / "extra.py").write_text("")
    with pytest.raises(ArtifactError, match="none of the files"):
        store.load(own)
    (own / "extra.py").unlink()
    (own / stablehlo.WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=r"lacks model\.safetensors"):
        store.load(own)


@pytest.mark.parametrize("content", [b"", b"no program", bytes(4096), b"module {", b"\xff"])
def test_a_damaged_program_is_refused(own: Path, content: bytes) -> None:
    (own / stablehlo.PROGRAM).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"no readable StableHLO|does not take what its signature says"):
        store.load(own)


CALLING = """
module {
  func.func public @main(%arg0: tensor<4x20xf32>) -> tensor<4x4xf32> {
    %0 = CALL : (tensor<4x20xf32>) -> tensor<4x4xf32>
    return %0 : tensor<4x4xf32>
  }
}
"""
CALLS = {
    "plain": "stablehlo.custom_call @by_address(%arg0)",
    "escaped": r'"stablehlo.custom\5Fcall"(%arg0) {call_target_name = "by_address"}',
    "named like an assertion": 'stablehlo.custom_call @"shape_assertion_by_address"(%arg0)',
}


def test_a_program_says_nothing_of_the_files_that_it_was_made_by(program: Path) -> None:
    assert ".py" not in (program / stablehlo.PROGRAM).read_text()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_program_that_calls_code_of_the_process_is_refused(own: Path, call: str) -> None:
    (own / stablehlo.PROGRAM).write_text(CALLING.replace("CALL", call))

    with pytest.raises(ArtifactError, match="custom_call, which is not arithmetic"):
        store.load(own)


@pytest.mark.parametrize("batches", ["[0]", "[-1]", "[true]", "no", "[]", "[1099511627776]", '["1"]'])
def test_numbers_of_samples_that_cannot_be_compiled_are_refused(program: Path, batches: str) -> None:
    model = store.read_model(program)
    with pytest.raises(ArtifactError, match="the option batches is"):
        session.load(model.replace(settings=Settings().with_options(batches=batches)))


def test_an_empty_program_takes_and_gives_the_same_shapes(program: Path, tmp_path: Path) -> None:
    empty = emptied(store.read_model(program), [[4, 20]], [[4, 4]], tmp_path)

    answer = session.load(empty)(torch.ones(4, 20))

    assert torch.equal(answer, torch.zeros(4, 4))


def test_positions_are_counted_from_where_the_model_says(tmp_path: Path) -> None:
    class Positions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            counted = torch.arange(5, dtype=x.dtype) + torch.arange(2, 7) + torch.arange(0, 10, 2)
            return (x[:, None] * counted).where(counted > 4, 0.0).sum((1, 2), keepdim=True)

    x = torch.randn(4, 5)
    stored(Positions(), x, tmp_path)

    assert torch.allclose(store.load(tmp_path / "program")(x), Positions()(x), atol=1e-5)


def test_norms_of_any_order_and_sums_of_exponentials_are_pytorchs(tmp_path: Path) -> None:
    class Norms(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            orders = (0, 1, 2, 3, math.inf, -math.inf)
            norms = [torch.linalg.vector_norm(x, order, dim=1, keepdim=True) for order in orders]
            unit = nn.functional.normalize(x, dim=1)
            return torch.cat([*norms, torch.linalg.vector_norm(x, dim=1, keepdim=True), x.logsumexp(1, True), unit], 1)

    x = torch.randn(4, 5)
    x[0, 0] = 0.0
    stored(Norms(), x, tmp_path)

    assert torch.allclose(store.load(tmp_path / "program")(x), Norms()(x), atol=1e-5)
