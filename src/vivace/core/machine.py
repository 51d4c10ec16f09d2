"""What one machine is: detected by `devices.machine`, recorded with every number, compared when an artifact loads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vivace.core.facts import Fact


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One accelerator that PyTorch can use."""

    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Tpu:
    """One chip of a TPU that is attached to this machine, by its generation's name, such as "TPU v5e"."""

    name: str


@dataclasses.dataclass(frozen=True)
class JaxPlatform:
    """What programs of form XLA run on in one job: JAX's name of it, and what JAX says its devices are.

    "cpu" is XLA's CPU back end. `is_exclusive` says that a process that opens it has it alone until it ends, as is so
    for a TPU. `note` says why it is not the TPU that the machine has.

    >>> JaxPlatform("tpu").variables
    {'JAX_PLATFORMS': 'tpu,cpu'}
    """

    name: str
    kinds: tuple[str, ...] = ()
    is_exclusive: bool = False
    note: str = ""

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment of a process that computes there: JAX then fails where it could fall back to the CPU."""
        return {"JAX_PLATFORMS": "cpu" if self.name == "cpu" else f"{self.name},cpu"}


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """A measured limit of this machine, taken with `threads` threads, or of its first CUDA device (`device` "cuda").

    `gflops` maps a precision (f32, tf32, bf16, f16, int8) to 10^9 operations a second; `copy_gigabytes_per_second` is a
    large copy beyond the caches, bytes read plus bytes written; on a device within its own memory.
    """

    threads: int
    gflops: Mapping[str, float]
    copy_gigabytes_per_second: float
    device: str = "cpu"


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine at hand. `cores_allowed` is what the container and the affinity mask leave, not what the host has."""

    processor: str
    architecture: str
    instructions: tuple[str, ...]
    cores_allowed: int
    cores_host: int
    memory_bytes: int
    operating_system: str
    gpus: tuple[Gpu, ...] = ()
    cxx_compiler: str = ""
    ceilings: tuple[Ceiling, ...] = ()
    tpus: tuple[Tpu, ...] = ()

    def facts(self) -> frozenset[Fact]:
        """What plans may rely on here."""
        found: set[Fact] = set()
        if {"avx512_bf16", "amx_bf16", "bf16"} & set(self.instructions) or self.tpus:
            found.add(Fact.BF16_INSTRUCTIONS)
        if {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"} & set(self.instructions):
            found.add(Fact.INT8_INSTRUCTIONS)
        if {"avx2", "avx_vnni", "avx512_vnni"} & set(self.instructions):
            found.add(Fact.INT8_PRODUCTS)
        if self.gpus:
            found.add(Fact.CUDA_DEVICE)
        if any(gpu.compute_capability >= (8, 0) for gpu in self.gpus):
            found.add(Fact.CUDA_BF16)
        if self.tpus:
            found.add(Fact.TPU_DEVICE)
        if self.cxx_compiler:
            found.add(Fact.CXX_COMPILER)
        return frozenset(found)

    @property
    def fingerprint(self) -> str:
        """Equal for machines on which a proof carries over: processor, instructions, cores, GPUs and TPUs."""
        parts: list[Any] = [
            self.processor,
            self.architecture,
            sorted(self.instructions),
            self.cores_allowed,
            [gpu.name for gpu in self.gpus],
            *([[tpu.name for tpu in self.tpus]] if self.tpus else []),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Everything, as a JSON value."""
        return {**dataclasses.asdict(self), "fingerprint": self.fingerprint}
