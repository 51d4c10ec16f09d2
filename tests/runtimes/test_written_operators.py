"""Single operators in written networks: what PyTorch gives, and where nothing is rounded the same to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runtimes.native_operators import EXACT, GROUPS, All, leaves
from runtimes.test_native import captured, threaded
from vivace.core.errors import NotApplicable
from vivace.devices import machine
from vivace.runtimes.native import session

pytestmark = pytest.mark.skipif(
    not machine.detect().cxx_compiler, reason="generated code needs a C++ compiler: install g++"
)


def numbers(samples: int, is_exact: bool) -> Tensor:
    """Some of which are equal, and one is none where there are several samples and nothing is added up."""
    found = torch.randn(samples, 4, 6, generator=torch.Generator().manual_seed(4))
    found.view(-1)[3:5] = 3.0
    if is_exact and samples > 1:
        found.view(-1)[-2] = float("nan")
    return found


@pytest.mark.parametrize("samples", [3, 1])
@pytest.mark.parametrize("group", GROUPS)
def test_they_are_pytorchs(group: str, samples: int) -> None:
    x = numbers(samples, group in EXACT)
    _, model = captured(lambda: All(group), x, fixed=True)
    found = iter(session.compiled(threaded(model, 2), [x])([x]))
    within = 0.0 if group in EXACT else 1e-5

    for name, operator in GROUPS[group].items():
        for wanted in leaves(operator(x)):
            one = next(found)
            assert one.dtype is wanted.dtype, name
            torch.testing.assert_close(
                one, wanted, rtol=within, atol=within, equal_nan=True, msg=lambda text, of=name: f"{of}: {text}"
            )


@pytest.mark.parametrize("shape", [(5000, 3), (40, 100, 5), (2, 2000, 1, 9), (1, 33, 20)], ids=str)
def test_long_sums_of_lines_round_little(shape: tuple[int, ...]) -> None:
    """One after the other, so many of them are off by 1e-6 to 3e-6."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(2))

    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(tuple(range(x.dim() - 1)))

    found = session.compiled(threaded(captured(Sum, x, fixed=True)[1], 2), [x])([x])[0]

    wanted = x.double().sum(tuple(range(x.dim() - 1)))
    assert float(((found - wanted) / wanted).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("operator", "told"),
    [
        (lambda x: x.topk(100, -1).values, "first 100 of 200"),
        (lambda x: x.logcumsumexp(-1), "logcumsumexp"),
        (lambda x: torch.cdist(x, x, p=1.0), "cdist"),
    ],
    ids=["many first elements", "logcumsumexp", "other distances"],
)
def test_what_has_no_c_is_told_by_its_name(operator: Any, told: str) -> None:
    class Only(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return operator(x)

    x = torch.randn(2, 200)

    with pytest.raises(NotApplicable, match=told):
        session.compiled(captured(Only, x)[1], [x])


def test_parts_of_a_layer_are_computed_as_the_layer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a transposed convolution is taken apart into has names that no list of kept layers holds."""
    network = lambda: nn.ConvTranspose2d(8, 8, 4, 2, 1)  # noqa: E731
    x = torch.randn(1, 8, 6, 6)
    _, model = captured(network, x)
    (name,) = (node.name for node in model.program.graph.nodes if node.op == "call_function")

    def answer(**options: str) -> Tensor:
        asked = model.replace(settings=model.settings.with_options(**options))
        return session.compiled(asked, [x])([x])[0]

    exact = answer(products="float32")
    assert not torch.equal(answer(products="int8"), exact)
    assert torch.equal(answer(products="int8", kept=name), exact)


def test_a_product_before_an_operator_of_several_is_written_once() -> None:
    """Both what the operator is tried as and its parts ask for it."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3), nn.Softmax(1))
    x = torch.randn(1, 3, 9, 9)
    _, model = captured(lambda: network, x)

    program, _, _ = session.written(model, [x])

    assert [len(members) for members in program.products] == [1, 1]
