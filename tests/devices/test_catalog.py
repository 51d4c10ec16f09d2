"""The catalogue of devices: every number has a source and makes sense; a wrong one is refused."""

from __future__ import annotations

import pytest

from vivace.core.errors import UsageError
from vivace.devices.catalog import FILE, KINDS, PRECISIONS, Device, device, devices, read

EVERY = list(devices().values())
SOURCES = """
[sources.sheet]
title = "a data sheet"
url = "https://example.org/sheet"
read = "2026-11-26"
"""
ONE = SOURCES + """
[devices.chip]
name = "Chip"
vendor = "Maker"
kind = "asic"
[devices.chip.from.sheet]
dense_int8_tops = 4
"""  # fmt: skip


def rate(one: Device, precision: str) -> float | None:
    return one.dense_flops(precision)


def test_there_are_at_least_forty_devices_of_every_kind() -> None:
    assert len(EVERY) >= 40
    assert {one.kind for one in EVERY} == set(KINDS)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.key)
def test_every_number_names_a_source_with_an_address_and_a_day(one: Device) -> None:
    assert one.numbers
    assert all(number.source.title and number.source.url for number in one.numbers.values())
    assert all(number.source.read.startswith("2026-") for number in one.numbers.values())


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.key)
def test_narrower_products_are_not_slower(one: Device) -> None:
    known = [found for precision in ("f32", "tf32", "bf16", "fp8") if (found := rate(one, precision))]
    assert known == sorted(known)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.key)
def test_sparse_is_at_least_dense_and_at_most_four_times_it(one: Device) -> None:
    pairs = [(one.dense_flops(p), one.sparse_flops(p)) for p in PRECISIONS]
    assert all(dense <= sparse <= 4 * dense for dense, sparse in pairs if dense and sparse)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.key)
def test_a_byte_of_memory_buys_a_plausible_number_of_operations(one: Device) -> None:
    flops, memory = one.dense_flops("bf16"), one.memory_bytes_per_second
    ridge = flops / memory if flops and memory else 100.0
    assert 1 <= ridge <= 1300 or one.key == "groq-lpu-v1"


def test_headlines_that_are_sparse_are_not_dense() -> None:
    """The traps of marketing pages: 9,000 for B200 in fp8, 3,958 for H200 in fp8, 2,615 for MI300X in f16."""
    assert device("b200").dense_flops("fp8") == 4.5e15
    assert device("h200-sxm").dense_flops("fp8") == 1.979e15
    assert device("mi300x").dense_flops("f16") == 1.3e15
    assert device("cerebras-wse3").dense_flops("f16") is None
    assert [device(key).dense_flops("int8") for key in ("b300", "gb300")] == [150e12, 165e12]  # not that of B200
    assert device("jetson-agx-orin-64").sparse_flops("int8") == 275e12


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.key)
def test_links_of_a_domain_are_faster_than_the_network_between_domains(one: Device) -> None:
    link, network = one.link_bytes_per_second, one.network_bytes_per_second
    assert not (link and network) or link > 3 * network
    assert one.torus_dimensions in ((2, 3) if one.kind == "tpu" and one.domain_devices else (1,))


def test_what_no_source_gives_is_absent() -> None:
    assert device("core-ultra-200v").dense_flops("int8") is None
    assert device("tpu-v5e").value("power_watts") is None


def test_an_unknown_device_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match=r"unknown device 'h100'; did you mean .*'h100-sxm'.*vivace predict --list"):
        device("h100")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nosuch-gpu", r"devices of gpu are v100-sxm2, .*h100-sxm, .* and \d+ more; `vivace predict --list`"),
        ("nosuch-tpu", r"devices of tpu are tpu-v1, .*tpu-v\d"),
        ("fpga", r"devices of fpga are ecp5-25f, .*, ice40-lp8k;"),
        ("tpu-v5", r"did you mean 'tpu-v5e' or 'tpu-v5p'\? "),
        ("nvidia-h100", "did you mean 'h100-pcie' or 'h100-sxm'"),
        ("rtx4090", r"did you mean 'rtx-4090'\? "), ("ice40-hx8k", r"did you mean 'ice40-lp8k'\? "),
        ("warpdrive", "no name is near that; `vivace predict --list` shows all"),
    ],
)  # fmt: skip
def test_what_is_suggested_is_near_or_of_the_kind_that_the_name_says(name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        device(name)
    assert "coral" not in str(caught.value)


def test_names_are_found_in_any_case() -> None:
    assert device("H100-SXM") is device("h100-sxm")


def test_a_catalogue_of_one_device_is_read() -> None:
    assert read(ONE)["chip"].dense_flops("int8") == 4e12


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("dense_int8_gops = 4", "no known number"),
        ("dense_int8_tops = 0", "above 0"),
        ("dense_int8_tops = true", "above 0"),
        ('dense_int8_tops = "4"', "above 0"),
        ("dense_int8_tops = 4\nsparse_int8_tops = 3", "above sparse"),
        ("dense_bf16_tflops = 4\nreached_bf16_tflops = 5", "above dense"),
        ("dense_int8_tops = 4\n[devices.chip.from.memory]\nmemory_gigabytes = 8", "not among the sources"),
    ],
)
def test_a_wrong_number_is_refused(wrong: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(ONE.replace("dense_int8_tops = 4", wrong))


def test_a_number_from_two_sources_is_refused() -> None:
    two = ONE + "[devices.chip.from.other]\ndense_int8_tops = 4\n" + SOURCES.replace("sheet", "other")
    with pytest.raises(ValueError, match="from two sources, sheet and other"):
        read(two)


def test_a_kind_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 'toaster'"):
        read(ONE.replace('"asic"', '"toaster"'))


def test_no_source_is_left_unused() -> None:
    used = {number.source.key for one in EVERY for number in one.numbers.values()}
    listed = {line[9:-1] for line in FILE.read_text(encoding="utf-8").splitlines() if line.startswith("[sources.")}
    assert listed == used
