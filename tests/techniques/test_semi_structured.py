"""Two non-zeros of each four inputs, stored as these and two bits each: products, what is stored, what is refused."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from vivace.core.layer import StoredWeight
from vivace.core.measurement import Interval
from vivace.measure import kernels
from vivace.runtimes import capture, eager, store
from vivace.runtimes.sparse import semi_structured
from vivace.runtimes.sparse.semi_structured import packed, unpacked
from vivace.techniques.sparsity.magnitude_pruning import MagnitudePruning, mask
from vivace.techniques.sparsity.sparse_kernels import SparseKernels

GENERATOR = torch.Generator().manual_seed(0)


def pruned(outputs: int, inputs: int) -> torch.Tensor:
    weight = torch.randn(outputs, inputs, generator=GENERATOR)
    weight = torch.where(mask(weight, 0.5, "2:4"), weight, 0.0)
    weight[::3, : inputs // 2] = 0.0  # groups with less than two
    return weight


@pytest.mark.parametrize(("outputs", "inputs"), [(16, 4), (37, 64), (1, 8), (64, 100)])
def test_what_is_stored_is_the_weight(outputs: int, inputs: int) -> None:
    weight = pruned(outputs, inputs)
    found = packed(weight)

    assert found is not None
    values, places = found
    assert unpacked(values, places, outputs, inputs).equal(weight)
    panels = -(-outputs // 16)
    assert values.numel() == panels * 16 * inputs // 2 and places.numel() * 32 == 2 * values.numel()


def test_a_weight_with_more_in_a_group_is_not_stored_so() -> None:
    weight = pruned(20, 16)
    weight[19, 12:15] = 1.0

    assert packed(weight) is None and packed(pruned(4, 8)[:, :6]) is None


@pytest.fixture(params=["compiled", "by operators"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by operators":
        monkeypatch.setattr(semi_structured, "_kernel", lambda threads: None)
    elif semi_structured._kernel(1) is None:
        pytest.skip("compiled kernels need a C++ compiler: install g++")


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(64,), (1, 64), (3, 3, 64), (0, 64)])
def test_the_product_equals_the_dense_one(shape: tuple[int, ...], with_bias: bool, threads: int) -> None:
    weight = pruned(37, 64)
    bias = torch.randn(37, generator=GENERATOR) if with_bias else None
    x = torch.randn(shape, generator=GENERATOR)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = semi_structured.operator()(x, *(packed(weight) or ()), bias, 37, 64)
    finally:
        torch.set_num_threads(before)

    exact = nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert found.shape == exact.shape
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_calls_from_several_threads_do_not_mix() -> None:
    weight, wrong = pruned(200, 256), []
    values, places = packed(weight) or ()

    def work(seed: int) -> None:
        x = torch.randn(3, 256, generator=torch.Generator().manual_seed(seed))
        want = x @ weight.t()
        for _ in range(200):
            found = semi_structured.operator()(x, values, places, None, 200, 256)
            if not torch.allclose(found, want, atol=1e-4):
                wrong.append(seed)

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()

    assert wrong == []


def test_other_types_of_numbers_are_multiplied_by_operators() -> None:
    weight, bias, x = pruned(37, 64), torch.randn(37, generator=GENERATOR), torch.randn(3, 64, generator=GENERATOR)

    found = semi_structured.operator()(x.bfloat16(), *(packed(weight) or ()), bias, 37, 64)

    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), nn.functional.linear(x, weight, bias), rtol=0.05, atol=0.2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_was_forked_after_a_call_has_threads_of_its_own() -> None:
    weight, x = pruned(200, 256), torch.randn(1, 256)
    values, places = packed(weight) or ()
    kernel = semi_structured._kernel(2)
    if kernel is None:
        pytest.skip("compiled kernels need a C++ compiler: install g++")
    kernel(x, values, places, None, torch.empty(1, 200))
    child = os.fork()
    if not child:
        y = torch.empty(1, 200)
        own = semi_structured._kernel(2)
        if own is not None:
            own(x, values, places, None, y)
        os._exit(0 if own is not kernel and float((y - x @ weight.t()).abs().max()) < 1e-3 else 1)

    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child waits for threads that it does not have")

    assert os.waitstatus_to_exitcode(status) == 0


def test_parts_that_do_not_fit_are_refused_and_any_bits_are_in_range() -> None:
    values, places = packed(pruned(37, 64)) or ()
    multiply, x = semi_structured.operator(), torch.randn(2, 64)
    wrong = [
        (values[:2], places, None), (values, places.long(), None), (values, places[:, :-1], None),
        (values.double(), places, None), (values, places, torch.zeros(36)),
    ]  # fmt: skip

    for parts in wrong:
        with pytest.raises(RuntimeError, match="semi_structured_linear received values"):
            multiply(x, *parts, 37, 64)
    with pytest.raises(RuntimeError, match="rows of 63"):
        multiply(torch.randn(2, 63), values, places, None, 37, 64)
    assert multiply(x, values, torch.full_like(places, -1), None, 37, 64).isfinite().all()


def test_a_model_pruned_so_is_stored_so_and_answers_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(kernels, "speedup", lambda *_: Interval(2.0, 2.0, 2.0))
    x = torch.randn(8, 128, generator=GENERATOR)
    net = nn.Sequential(nn.Linear(128, 250), nn.ReLU(), nn.Linear(250, 10)).eval()
    halved = MagnitudePruning(share=0.5, pattern="2:4").apply(capture.capture(net, (x,)).model, None)

    sparse = SparseKernels().apply(halved, None)
    store.save(sparse, tmp_path / "program")
    program = store.load(tmp_path / "program")

    stored = 256 * 64 * 4 + 16 * 32 * 2 * 4
    assert f"1 of 1 layers, {stored} bytes of weights for {4 * 128 * 250}" in sparse.lineage[-1]
    assert sparse.stored_weights == (StoredWeight("0", "2:4", 4 * 128 * 250, stored),)
    for samples in (1, 5, 64):
        given = torch.randn(samples, 128, generator=GENERATOR)
        torch.testing.assert_close(program(given), eager.run_flat(halved.program, [given])[0], rtol=1e-4, atol=1e-5)
