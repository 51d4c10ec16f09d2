"""Networks written out as C++: what they answer, alone and in threads, in all precisions; what they refuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runtimes.native_networks import NETWORKS, perceptron
from vivace.codegen.arrays import Array
from vivace.codegen.build import _compile
from vivace.codegen.panels import BFLOAT16, FLOAT32, INT8
from vivace.codegen.tiles import HALF_LEVELS, Vector, vector_of
from vivace.core.errors import CallError, NotApplicable
from vivace.core.program import Form, Model
from vivace.devices import machine
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.native import session
from vivace.runtimes.native.lowering import Program
from vivace.runtimes.native.source import source_of

HERE = machine.detect()
VECTOR = vector_of(HERE.instructions)
pytestmark = pytest.mark.skipif(not HERE.cxx_compiler, reason="generated code needs a C++ compiler: install g++")
WITHIN = {"float32": 2e-6, "bfloat16": 2e-2, "int8": 4e-2}
"""How far answers may be from PyTorch's, as a share of their length."""


def captured(make: Any, inputs: Tensor, fixed: bool = False, **options: str) -> tuple[nn.Module, Model]:
    torch.manual_seed(5)
    network = make().eval()
    model = capture(network, (inputs,), fixed_shapes=fixed).model
    return network, model.replace(form=Form.NATIVE, settings=model.settings.with_options(**options))


def leaves(answer: Any) -> list[Tensor]:
    return [answer] if isinstance(answer, Tensor) else list(answer)


def distance(found: Any, wanted: Any) -> float:
    pairs = zip(leaves(found), leaves(wanted), strict=True)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


@pytest.mark.parametrize("precision", WITHIN)
@pytest.mark.parametrize("name", NETWORKS)
def test_it_answers_as_the_network_does(name: str, precision: str) -> None:
    if precision == INT8 and not VECTOR.has_int8:
        pytest.skip("this processor multiplies no bytes")
    make, inputs = NETWORKS[name]
    network, model = captured(make, inputs, products=precision)
    with torch.no_grad():
        wanted = network(inputs)

    runs = {count: session.compiled(threaded(model, count), [inputs]) for count in (1, 2)}
    alone = runs[1]([inputs])

    assert distance(alone, wanted) < WITHIN[precision]
    other = another(inputs)
    with torch.no_grad():
        assert distance(runs[1]([other]), network(other)) < WITHIN[precision]
    for _ in range(300):  # threads that did not wait where they must would differ sooner or later
        assert distance(runs[2]([inputs]), alone) < 1e-6


def another(inputs: Tensor) -> Tensor:
    """Another call of the same shapes: code is written beside one that is computed, and must hold nothing of it."""
    return inputs.flatten().roll(1).reshape(inputs.shape)


def threaded(model: Model, count: int) -> Model:
    return model.replace(settings=model.settings.replace(threads=count))


@pytest.mark.parametrize("products", [FLOAT32, INT8])
def test_calls_of_any_number_of_samples_are_answered_by_the_code(products: str, tmp_path: Path) -> None:
    if products == INT8 and not VECTOR.has_int8:
        pytest.skip("this processor multiplies no bytes")
    inputs = torch.randn(8, 20)
    network, model = captured(perceptron, inputs, products=products)
    store.save(model, tmp_path / "program")
    program = store.load(tmp_path / "program")
    whole = program(inputs)

    assert program.form is Form.NATIVE
    for size in (1, 7, 8, 19):
        given = inputs.repeat(3, 1)[:size]
        assert distance(program(given), network(given).detach()) < WITHIN[products]
        assert torch.allclose(program(given)[:1], whole[:1], atol=1e-6)  # the same code answers
    program.close()


@pytest.mark.skipif("avx2" not in HERE.instructions, reason="this processor has no AVX2")
def test_products_of_bytes_that_are_added_in_16_bits_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "vector_of", lambda _: Vector(8, 16, int8_levels=HALF_LEVELS))
    monkeypatch.setattr(session, "flags_for", lambda *_: ["-mavx2", "-mfma"])  # without dot products of bytes
    inputs = torch.cat([torch.full((4, 64), 3.0), torch.full((4, 64), -3.0), torch.randn(8, 64)])
    network, model = captured(lambda: nn.Linear(64, 24), inputs, products=INT8)
    with torch.no_grad():
        network.weight.copy_(torch.full((24, 64), 0.5) * torch.where(torch.arange(24) % 2 == 0, 1.0, -1.0)[:, None])
    model = capture(network, (inputs,)).model.replace(form=Form.NATIVE, settings=model.settings)

    found = session.compiled(model, [inputs])([inputs])

    assert distance(found, network(inputs).detach()) < WITHIN[INT8]
    assert torch.allclose(found[0][:8], network(inputs[:8]).detach(), rtol=1e-4)  # the largest sums that there are


@pytest.mark.skipif(HERE.architecture != "x86_64", reason="flags of x86 processors")
@pytest.mark.parametrize(
    ("instructions", "flags"),
    [
        (("avx2",), ["-mavx2", "-mfma"]),
        (("avx2", "avx_vnni"), ["-mavx2", "-mfma", "-mavxvnni"]),
        (("avx512f", "avx512bw"), ["-mavx512f", "-mavx512bw"]),
        (("avx512f", "avx512bw", "avx512_vnni"), ["-mavx512f", "-mavx512bw", "-mavx512vnni"]),
        (
            ("avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
            ["-mavx512f", "-mavx512bw", "-mavx512vnni", "-mavx512bf16"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("products", [FLOAT32, BFLOAT16, INT8])
@pytest.mark.parametrize(("make", "shape"), [(perceptron, (8, 20)), (lambda: filtered(), (1, 2, 6, 7))])
def test_what_is_written_for_other_processors_compiles(
    instructions: tuple[str, ...], flags: list[str], make: Any, shape: tuple[int, ...], products: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(session, "vector_of", lambda _: vector_of(instructions))
    inputs = torch.randn(shape)
    _, model = captured(make, inputs, products=products)

    program, arrays, results = session.written(model, [inputs])

    outputs = [Array.whole(f"y{place}", one.shape, one.kind) for place, one in enumerate(results)]
    source = source_of(program, arrays, outputs, results)
    _compile(source, HERE.cxx_compiler, flags, tmp_path / "program.so")  # and not called: it may not run here


@pytest.mark.parametrize("columns", [5, 8, 24, 40])  # tiles of several widths and heights
def test_what_is_no_number_stays_so_within_bounds(columns: int) -> None:
    inputs = torch.randn(23, 20)
    inputs[3, 4], inputs[9, 1] = torch.nan, torch.inf
    network, model = captured(lambda: nn.Sequential(nn.Linear(20, columns), nn.ReLU6()), inputs)
    with torch.no_grad():
        wanted = network(inputs)

    (found,) = session.compiled(model, [inputs])([inputs])

    assert wanted[3].isnan().all()
    assert torch.allclose(found, wanted, atol=1e-5, equal_nan=True)


def test_layers_that_are_kept_stay_in_float() -> None:
    inputs = torch.randn(8, 20)
    network, model = captured(perceptron, inputs, products=INT8, kept="linear,linear_1", others=FLOAT32)
    if not VECTOR.has_int8:
        pytest.skip("this processor multiplies no bytes")

    assert distance(session.compiled(model, [inputs])([inputs]), [network(inputs).detach()]) < WITHIN["float32"]


class AnyLength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.symbols, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.symbols(codes))


def test_other_lengths_run_by_operators_in_float_and_are_refused_in_int8() -> None:
    codes = torch.randint(0, 20, (2, 9))
    network = AnyLength().eval()
    model = capture(network, (codes,), varying=[frozenset({1})]).model.replace(form=Form.NATIVE)
    longer = torch.randint(0, 20, (2, 12))

    program = session.load(model)

    assert distance(program(longer), network(longer).detach()) < 1e-6
    if VECTOR.has_int8:
        with pytest.raises(NotApplicable, match="fixed_shapes"):
            session.load(model.replace(settings=model.settings.with_options(products=INT8)))


def test_whole_numbers_over_each_other_are_none() -> None:
    class Shares(nn.Module):
        def forward(self, codes: Tensor) -> Tensor:
            is_small = codes < 30  # all are
            return codes / 3 + codes / codes.sum(1, keepdim=True) + (codes > 5) / is_small

    codes = torch.randint(1, 20, (2, 9))
    network, model = captured(Shares, codes)

    assert distance(session.compiled(model, [codes])([codes]), network(codes)) < WITHIN["float32"]


def test_an_index_that_the_model_does_not_have_is_a_wrong_call() -> None:
    codes = torch.randint(0, 20, (2, 9))
    run = session.compiled(captured(AnyLength, codes)[1], [codes])

    with pytest.raises(CallError, match="index"):
        run([codes + 20])

    run([codes])  # and the program goes on


def test_an_operator_without_c_is_named() -> None:
    class Multiplied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.logcumsumexp(dim=1)

    with pytest.raises(NotApplicable, match="logcumsumexp"):
        session.compiled(captured(Multiplied, torch.randn(2, 5))[1], [torch.randn(2, 5)])


def test_what_is_written_over_through_a_view_is_refused() -> None:
    class Writer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            y[:, :1].add_(1)
            return y

    inputs = torch.randn(2, 5)
    with pytest.raises(NotApplicable, match="writes over"):
        session.compiled(captured(Writer, inputs)[1], [inputs])


class Summing(nn.Module):
    """Adds to numbers that never change, in their place."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(2, 5).add_(x) * 3


class Counted(nn.Module):
    """Its answer's numbers depend on one that is read from the call."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sum().item()


class Masked(nn.Module):
    """How many numbers it adds up depends on them."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].sum()


def test_what_is_written_over_numbers_that_never_change_is_no_part_of_them() -> None:
    _, model = captured(Summing, torch.randn(2, 5))

    run = session.compiled(model, [torch.randn(2, 5)])

    x = torch.randn(2, 5)
    torch.testing.assert_close(run([x])[0], (1 + x) * 3)
    torch.testing.assert_close(run([x])[0], (1 + x) * 3)


@pytest.mark.parametrize("make", [Counted, Masked])
def test_what_depends_on_the_numbers_of_one_call_is_refused(make: Any) -> None:
    with pytest.raises(NotApplicable, match="depends on numbers of the call"):
        session.compiled(captured(make, torch.randn(2, 5), fixed=True)[1], [torch.randn(2, 5)])


def test_a_network_with_more_rows_than_are_written_down_is_refused() -> None:
    inputs = torch.zeros(1, 1, 512, 512)

    with pytest.raises(NotApplicable, match="rows"):
        session.compiled(captured(lambda: nn.Conv2d(1, 2, 3, padding=1), inputs, fixed=True)[1], [inputs])


def test_arrays_beyond_a_small_networks_memory_are_refused() -> None:
    program = Program(VECTOR, 1, lambda name: FLOAT32)
    program.room((1 << 28,))
    program.check_memory()
    program.room((1 << 28,), "short")

    with pytest.raises(NotApplicable, match=r"1\.5 GiB"):
        program.check_memory()


def test_the_threads_of_a_closed_program_end() -> None:
    inputs = torch.randn(70, 20)
    network, model = captured(perceptron, inputs)
    session.load(threaded(model, 2)).close()  # whatever PyTorch starts for the first one is there now
    before = threading_tasks()

    program = session.load(threaded(model, 2))
    program(inputs)
    during = threading_tasks()
    program.close()

    assert during == before + 1 and threading_tasks() == before
    assert distance(session.load(model)(inputs), network(inputs).detach()) < WITHIN["float32"]


def filtered() -> nn.Module:
    """A window of each channel, within bounds, and a mixture of its answers."""
    return nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, groups=2), nn.ReLU6(), nn.Conv2d(2, 4, 1))


def threading_tasks() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("products", [FLOAT32, INT8])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (perceptron, (4, 20)),
        (lambda: nn.Conv2d(2, 4, 3), (4, 2, 6, 6)),
        (lambda: nn.Conv2d(2, 4, 5), (1, 2, 5, 5)),
        (filtered, (4, 2, 6, 7)),
        (filtered, (1, 2, 6, 7)),
    ],
    ids=["rows", "images", "one image", "filtered images", "one filtered image"],
)
def test_numbers_that_are_none_are_not_hidden(make: Any, shape: tuple[int, ...], threads: int, products: str) -> None:
    if products == INT8 and not VECTOR.has_int8:
        pytest.skip("this processor multiplies no bytes")
    inputs = torch.randn(shape)
    run = session.compiled(threaded(captured(make, inputs, products=products)[1], threads), [inputs])
    inputs[0].view(-1)[3] = torch.nan

    found = run([inputs])[0]

    assert found[0].isnan().any() and found[1:].isfinite().all()


class NormalizedLines(nn.Module):
    """A normalization of the axis that is no column of the product before it; both are of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        nn.init.normal_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.mix(x))


class Blind(nn.Module):
    """Attention some of whose queries see no key."""

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (2, 8)).transpose(1, 2)
        mask = (x[:, :, :1] > 0).transpose(1, 2)[:, None].expand(-1, 2, x.shape[1], -1)
        seen = mask & (x[:, None, :, :1] > 0)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=seen)


class Clipped(nn.Module):
    """What ends below zero after all, into a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).clamp(0.0, -0.5))


class Around(nn.Module):
    """Zeros around an image that two convolutions and another read; another number around it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(2, 5, 3), nn.Conv2d(2, 2, 2, groups=2), nn.Conv2d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        y, z = nn.functional.pad(x, (1, 0, 2, 1)), nn.functional.pad(x, (1, 1), value=0.5)
        alone = self.three(nn.functional.pad(x, (0, 3, 1, 0)))
        return torch.cat([one.flatten(1) for one in (self.one(y), self.two(y), self.three(z), y.sum(1), alone)], 1)


class Pooled(nn.Module):
    """Means of windows that begin before an image or end after it, with zeros counted, or not, or by another number."""

    def forward(self, x: Tensor) -> Tensor:
        settings = [
            {"padding": 1}, {"padding": 1, "count_include_pad": False}, {"ceil_mode": True},
            {"padding": 1, "ceil_mode": True}, {"divisor_override": 5},
            {"padding": 1, "ceil_mode": True, "count_include_pad": False},
        ]  # fmt: skip
        found = [nn.functional.avg_pool2d(x, 3, 2, **each) for each in settings]
        return torch.cat([one.flatten(1) for one in (*found, nn.functional.avg_pool1d(x[:, :, 0], 2, 2, 1))], 1)


class Same(nn.Module):
    """Convolutions told in words, dropouts over what is used again, an image repeated, nothing around it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (
            nn.Conv2d(2, 5, (4, 3), padding="same", dilation=(1, 2)),
            nn.Conv2d(5, 4, 3, padding="valid"),
        )
        self.own, self.drop = nn.Conv2d(4, 4, 2, padding="same", groups=4), nn.Dropout(0.3, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(nn.functional.pad(self.one(x), (0, 0, 0, 0)).relu())
        return (self.own(self.drop(y)) + y).repeat(1, 2, 1, 3)


class Weighed(nn.Module):
    """Channels weighed by products of their means, which are images of one place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.narrow, self.wide = nn.Conv2d(3, 400, 3), nn.Conv2d(400, 500, 1), nn.Conv2d(500, 400, 1)
        self.last = nn.Conv2d(400, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(x * self.wide(self.narrow(x.mean((2, 3), keepdim=True)).relu()).sigmoid())


def grouped() -> nn.Module:
    """A window of each channel within bounds, before mixtures of some of them."""
    return nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(), nn.Conv2d(8, 6, 1, groups=2))


def unbounded() -> nn.Module:
    """A window of each channel whose upper bound is none, before a mixture of its answers."""
    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Hardtanh(0.0, torch.inf), nn.Conv2d(4, 3, 1))


def resized(factor: float, align_corners: bool) -> nn.Module:
    """An image so many times as large."""
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=align_corners)


ODD = {
    "normalized lines": (NormalizedLines, (3, 6, 6)),
    "blind queries": (Blind, (2, 9, 16)),
    "clipped below zero": (Clipped, (1, 1, 9, 9)),
    "means of windows": (Pooled, (2, 5, 8, 7)),
    "told in words": (Same, (2, 2, 7, 8)),
    "weighed channels": (Weighed, (1, 3, 9, 8)),
    "around": (Around, (2, 2, 6, 7)),
    "mixed in groups": (grouped, (2, 8, 6, 7)),
    "without a bound": (unbounded, (2, 4, 6, 7)),
    "grouped normalization": (lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.GroupNorm(2, 8)), (2, 2, 7, 7)),
    "gated cells": (lambda: nn.Sequential(nn.Conv1d(3, 8, 1), nn.GLU(1), nn.Hardswish(), nn.ELU()), (2, 3, 9)),
    "between places": (lambda: nn.Sequential(nn.Conv2d(2, 5, 3), resized(2, False), nn.Conv2d(5, 3, 1)), (2, 2, 8, 7)),
    "between kept corners": (lambda: nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), resized(1.7, True)), (1, 2, 9, 6)),
    "made smaller": (lambda: nn.Sequential(resized(0.6, False), nn.Conv2d(2, 4, 3, padding=1)), (1, 2, 9, 11)),
    "a line between places": (lambda: nn.Sequential(nn.Conv1d(2, 9, 2), nn.Upsample(23, mode="linear")), (3, 2, 9)),
    "windows with gaps": (lambda: nn.Conv2d(2, 3, 3, dilation=(2, 1), padding=(2, 0), stride=(1, 2)), (1, 2, 9, 9)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("products", [FLOAT32, INT8])
@pytest.mark.parametrize("name", ODD)
def test_what_looks_like_something_else_is_right_too(name: str, products: str) -> None:
    if products == INT8 and not VECTOR.has_int8:
        pytest.skip("this processor multiplies no bytes")
    make, shape = ODD[name]
    network, model = captured(make, torch.randn(shape), products=products)
    inputs = torch.randn(shape)
    with torch.no_grad():
        wanted = network(inputs)

    assert distance(session.compiled(model, [torch.randn(shape)])([inputs]), wanted) < WITHIN[products]


class Attending(nn.Module):
    """Attention of heads so wide; queries and keys are the lines given, in other orders."""

    def __init__(self, width: int, is_causal: bool) -> None:
        super().__init__()
        self.width, self.is_causal = width, is_causal

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (-1, self.width)).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(heads, -heads, heads + 1, is_causal=self.is_causal)


@pytest.mark.parametrize("products", WITHIN)
@pytest.mark.parametrize(
    ("samples", "length", "heads", "width", "is_causal"),
    [(3, 33, 2, 32, False), (1, 70, 3, 8, True), (2, 7, 1, 24, True), (1, 40, 2, 5, False), (2, 1, 2, 16, False)],
)
def test_attention_of_any_size_is_added_up_in_every_precision(
    products: str, samples: int, length: int, heads: int, width: int, is_causal: bool
) -> None:
    if products == INT8 and not VECTOR.has_int8:
        pytest.skip("this processor multiplies no bytes")
    inputs = torch.randn(samples, length, heads * width)
    network, model = captured(lambda: Attending(width, is_causal), inputs, products=products)

    found = session.compiled(model, [inputs])([inputs])

    assert distance(found, network(inputs)) < WITHIN["float32" if products == FLOAT32 else "bfloat16"]
    if products != FLOAT32 and VECTOR.has_bf16 and width % 2 == 0:
        assert distance(found, network(inputs)) > 1e-5  # operands were rounded


@pytest.mark.skipif(not VECTOR.has_int8, reason="this processor multiplies no bytes")
@pytest.mark.parametrize("inputs", [torch.randn(1, 3, 9, 8), torch.randn(1, 3, 3, 3)])
def test_steps_of_places_are_written_into_their_own_array(inputs: Tensor) -> None:
    mixed = nn.Sequential(Weighed(), nn.Conv2d(8, 4, 1))
    program, *_ = session.written(captured(lambda: mixed, inputs, products=INT8)[1], [inputs])
    written = 0
    for one in program.statements:
        for inner, name in re.findall(r"e < to\*(\d+); e\+\+\) (w\d+)\[e\]", one.text):
            rows = int(re.findall(r"MIN\(t\*\d+, (\d+)\)", one.text)[0])
            written += 1
            assert rows * int(inner) <= program.scratch[name][1]
    assert written == (inputs.shape[2] > 3)


def test_transposed_windows_with_gaps_are_refused() -> None:
    inputs = torch.randn(1, 2, 5, 5)

    with pytest.raises(NotApplicable, match="side by side"):
        session.compiled(captured(lambda: nn.ConvTranspose2d(2, 3, 2, 2, dilation=2), inputs)[1], [inputs])


@pytest.mark.parametrize(
    ("how", "said"),
    [({"padding_idx": 0}, "bags of one length"), ({"mode": "max"}, "bags of one length")],
)
def test_bags_that_leave_rows_out_or_keep_the_largest_are_refused(how: dict[str, Any], said: str) -> None:
    x = torch.randint(0, 9, (4, 6))
    _, model = captured(lambda: nn.EmbeddingBag(9, 8, **{"mode": "sum", **how}), x, fixed=True)

    with pytest.raises(NotApplicable, match=said):
        session.compiled(model, [x])


def test_answers_of_a_type_that_code_does_not_give_are_refused() -> None:
    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 2).bfloat16()

    with pytest.raises(NotApplicable, match="bfloat16"):
        session.compiled(captured(Halved, torch.randn(2, 5))[1], [torch.randn(2, 5)])
