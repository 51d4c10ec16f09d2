"""The arithmetic of ceilings with a false timer, and the products against PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vivace.devices import ceilings
from vivace.devices.ceilings import copy, measure_ceilings, measure_device_ceiling, product

SMALL_COPY = 4096


def tenth_of_a_second(kernel: Callable[[], object]) -> float:
    kernel()
    return 0.1


def test_rates_follow_from_the_timers_seconds() -> None:
    (found,) = measure_ceilings([1], tenth_of_a_second, precisions=("f32",), copy_bytes=SMALL_COPY)
    assert found.threads == 1
    assert found.gflops == {"f32": pytest.approx(2 * 512**3 / 0.1 / 1e9)}
    assert found.copy_gigabytes_per_second == pytest.approx(2 * SMALL_COPY / 0.1 / 1e9)


def test_the_product_grows_until_it_takes_long_enough() -> None:
    seconds = iter([0.001, 0.008, 0.064, 0.1])
    (found,) = measure_ceilings([1], lambda _: next(seconds), precisions=("f32",), copy_bytes=SMALL_COPY)
    assert found.gflops["f32"] == pytest.approx(2 * 2048**3 / 0.064 / 1e9)


def test_the_best_size_counts_even_when_a_larger_one_was_slower() -> None:
    seconds = iter([0.001, 0.1, 0.1])
    (found,) = measure_ceilings([1], lambda _: next(seconds), precisions=("f32",), copy_bytes=SMALL_COPY)
    assert found.gflops["f32"] == pytest.approx(2 * 512**3 / 0.001 / 1e9)


def test_each_count_of_threads_is_set_while_timing_and_put_back_afterwards() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def note_threads(_: object) -> float:
        seen.append(torch.get_num_threads())
        return 1.0

    measure_ceilings([1, 2], note_threads, precisions=("f32",), copy_bytes=SMALL_COPY)
    assert seen == [1, 1, 2, 2]
    assert torch.get_num_threads() == before


def test_a_precision_that_cannot_be_multiplied_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(precision: str, side: int) -> Callable[[], object]:
        raise RuntimeError("no such product")

    monkeypatch.setattr(ceilings, "product", refuse)
    (found,) = measure_ceilings([1], tenth_of_a_second, copy_bytes=SMALL_COPY)
    assert found.gflops == {}


def test_a_precision_that_is_multiplied_slower_than_f32_has_no_kernel_and_no_ceiling() -> None:
    seconds = iter([0.1, 1.0, 0.05, 0.1])  # f32, bf16, int8, the copy
    (found,) = measure_ceilings([1], lambda _: next(seconds), copy_bytes=SMALL_COPY)
    assert found.gflops == {
        "f32": pytest.approx(2 * 512**3 / 0.1 / 1e9),
        "int8": pytest.approx(2 * 512**3 / 0.05 / 1e9),
    }


def test_the_int8_product_is_an_exact_integer_product() -> None:
    torch.manual_seed(0)
    answer = product("int8", 64)()
    torch.manual_seed(0)
    left = torch.randint(-128, 127, (64, 64), dtype=torch.int8)
    assert isinstance(answer, torch.Tensor)
    assert torch.equal(answer, (left.long() @ left.long()).int())


def test_the_copy_moves_every_byte() -> None:
    answer = copy(SMALL_COPY)()
    assert isinstance(answer, torch.Tensor)
    assert answer.numel() * answer.element_size() == SMALL_COPY
    assert bool((answer == 1).all())


def test_a_devices_ceiling_is_the_best_of_its_sizes_in_each_precision() -> None:
    seconds = iter([0.1, 0.2, 0.1, 0.05, 0.01])
    found = measure_device_ceiling(lambda _: next(seconds), ("f32", "bf16"), (64, 128), SMALL_COPY, device="cpu")
    assert found.device == "cuda"
    assert found.gflops == {
        "f32": pytest.approx(2 * 128**3 / 0.2 / 1e9),
        "bf16": pytest.approx(2 * 128**3 / 0.05 / 1e9),
    }
    assert found.copy_gigabytes_per_second == pytest.approx(2 * SMALL_COPY / 0.01 / 1e9)


def test_tf32_is_allowed_for_its_product_only() -> None:
    allowed: list[bool] = []
    before = torch.backends.cuda.matmul.allow_tf32
    measured = product("tf32", 8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "mm", lambda *_, **__: allowed.append(torch.backends.cuda.matmul.allow_tf32))
        measured()

    assert (allowed, torch.backends.cuda.matmul.allow_tf32) == ([True], before)


def test_a_precision_that_a_device_cannot_multiply_is_left_out() -> None:
    def refuse(_: Callable[[], object]) -> float:
        raise RuntimeError("no such product")

    with pytest.raises(RuntimeError):  # the copy, which every device can
        measure_device_ceiling(refuse, ("f32",), (8,), SMALL_COPY, device="cpu")
    seconds = iter([0.1])
    found = measure_device_ceiling(lambda _: next(seconds), (), (8,), SMALL_COPY, device="cpu")
    assert found.gflops == {}
