"""The processor's name and the instruction sets that matter to deep learning, from /proc/cpuinfo on x86 and arm64."""

from __future__ import annotations

import platform
from pathlib import Path

_KEPT = """
    sse4_2 avx avx2 fma f16c avx512f avx512bw avx512vl avx512dq avx512_vnni avx512_bf16 avx512_fp16 avx_vnni
    avx_vnni_int8 avx_ne_convert amx_tile amx_int8 amx_bf16 amx_fp16 avx10
    asimd asimdhp asimddp fphp bf16 i8mm sve sve2 svebf16 svei8mm sme sme2
"""
INSTRUCTIONS = frozenset(_KEPT.split())
"""The flags that are kept; the others change with kernels and say nothing about speed here."""

ARM_PARTS = {  # Arm technical reference manuals, register MIDR_EL1: (implementer, part)
    ("0x41", "0xd08"): "Arm Cortex-A72",
    ("0x41", "0xd0b"): "Arm Cortex-A76",
    ("0x41", "0xd0c"): "Arm Neoverse N1",
    ("0x41", "0xd40"): "Arm Neoverse V1",
    ("0x41", "0xd49"): "Arm Neoverse N2",
    ("0x41", "0xd4f"): "Arm Neoverse V2",
    ("0x41", "0xd8e"): "Arm Neoverse N3",
    ("0x41", "0xd84"): "Arm Neoverse V3",
}


def processor(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """The name and the sorted instruction sets that a text of /proc/cpuinfo tells.

    >>> processor("model name : AMD EPYC\\nflags : fpu avx2 avx512_vnni")
    ('AMD EPYC', ('avx2', 'avx512_vnni'))
    >>> processor("CPU implementer : 0x41\\nCPU part : 0xd0c\\nFeatures : fp asimd asimddp")
    ('Arm Neoverse N1', ('asimd', 'asimddp'))
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return _name(fields), tuple(sorted(flags & INSTRUCTIONS))


def read_cpuinfo(root: Path = Path("/")) -> str:
    """The text of /proc/cpuinfo, empty where there is none."""
    try:
        return (root / "proc/cpuinfo").read_text()
    except OSError:
        return ""


def _name(fields: dict[str, str]) -> str:
    implementer, part = fields.get("CPU implementer", ""), fields.get("CPU part", "")
    if fields.get("model name"):
        return fields["model name"]
    if implementer:
        return ARM_PARTS.get((implementer, part), f"Arm processor, implementer {implementer}, part {part}")
    return platform.processor() or platform.machine()
