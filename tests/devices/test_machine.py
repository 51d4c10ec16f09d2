"""Detection of the machine at hand, and what /proc/cpuinfo tells on x86 and arm64."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from vivace.core.facts import Fact
from vivace.core.machine import Gpu
from vivace.devices.container import Limits
from vivace.devices.machine import cores_allowed, cores_here, detect, threads_here
from vivace.devices.processor import processor

X86 = """processor : 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni avx512_bf16 amx_int8 amx_bf16 hypervisor

processor : 1
model name\t: another
flags\t\t: fpu
"""
ARM = """processor\t: 0
Features\t: fp asimd aes asimddp sve bf16 i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def test_x86_gives_the_model_name_and_only_the_flags_that_matter() -> None:
    assert processor(X86) == (
        "Intel(R) Xeon(R) Platinum 8480+",
        ("amx_bf16", "amx_int8", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "sse4_2"),
    )


def test_arm64_gives_the_core_by_its_part_number() -> None:
    assert processor(ARM) == ("Arm Neoverse V1", ("asimd", "asimddp", "bf16", "i8mm", "sve"))


def test_an_unknown_arm_core_is_named_by_its_numbers() -> None:
    name, _ = processor("CPU implementer : 0x99\nCPU part : 0x123")
    assert name == "Arm processor, implementer 0x99, part 0x123"


def test_the_smallest_of_quota_affinity_and_host_is_allowed() -> None:
    assert cores_allowed(Limits(cores=3.9), affinity=8, host=64) == 3
    assert cores_allowed(Limits(cores=16), affinity=4, host=64) == 4
    assert cores_allowed(Limits(), affinity=64, host=64) == 64
    assert cores_allowed(Limits(cores=0.2), affinity=4, host=64) == 1


def test_detection_agrees_with_psutil_on_cores_and_never_exceeds_its_memory() -> None:
    machine = detect()
    assert machine.cores_host == psutil.cpu_count()
    assert machine.cores_allowed <= len(psutil.Process().cpu_affinity())
    assert 0 < machine.memory_bytes <= psutil.virtual_memory().total
    assert machine.architecture == os.uname().machine


def test_a_machine_without_proc_is_still_detected(tmp_path: Path) -> None:
    machine = detect(tmp_path)
    assert machine.processor
    assert machine.instructions == ()


def test_made_up_files_decide_cores_memory_and_facts(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(X86)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("100000 100000\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1000000\n")
    machine = detect(tmp_path)
    assert machine.cores_allowed == 1
    assert machine.memory_bytes == 1_000_000
    assert {Fact.BF16_INSTRUCTIONS, Fact.INT8_INSTRUCTIONS} <= machine.facts()


def test_the_compiler_that_the_user_names_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "my-compiler"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert detect().cxx_compiler == str(compiler)


def test_a_missing_compiler_is_an_empty_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert detect().cxx_compiler == ""


def test_a_card_is_detected_with_its_memory_and_compute_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="a card", total_memory=1 << 34, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    machine = detect()
    assert machine.gpus == (Gpu("a card", 1 << 34, (9, 0)),)
    assert {Fact.CUDA_DEVICE, Fact.CUDA_BF16} <= machine.facts()


@pytest.mark.parametrize(("told", "threads"), [("", None), ("1", 1), ("0", None), ("many", None), ("4096", None)])
def test_an_engine_takes_a_thread_a_core_unless_fewer_are_asked_for(
    told: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)

    assert threads_here() == (cores_here() if threads is None else threads)
