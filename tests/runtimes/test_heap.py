"""What calls free stays in the process while a program wants it so, and goes back to the kernel when it is closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vivace.core.errors import ArtifactError
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.settings import heap

needs_glibc = pytest.mark.skipif(not heap.is_available(), reason="the C library here is not glibc")

FAULTS = """
import resource, sys, torch
from vivace.runtimes.settings import heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

faults()
plain = faults()
heap.hold(64_000_000)
heap.hold(64_000_000)
faults()
kept = faults()
heap.release()
still_kept = faults()
held = resident()
heap.release()
print(plain, kept, still_kept, held - resident(), faults())
"""


@needs_glibc
def test_memory_is_kept_until_the_last_holder_releases_it() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)

    plain, kept, still_kept, given_back, after = map(int, done.stdout.split())
    assert kept < plain / 10
    assert still_kept < plain / 10
    assert given_back > 10_000_000
    assert after < 2 * plain


@needs_glibc
def test_a_program_holds_the_heap_from_loading_to_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(heap, "hold", lambda size: asked.append(f"hold {size}"))
    monkeypatch.setattr(heap, "release", lambda: asked.append("release"))
    model = capture(nn.Linear(3, 2).eval(), (torch.zeros(1, 3),)).model
    store.save(model.replace(settings=model.settings.replace(heap_bytes=5_000_000)), tmp_path / "program")

    program = store.load(tmp_path / "program")
    program(torch.zeros(1, 3))
    assert asked == ["hold 5000000"]

    program.close()
    program.close()
    assert asked == ["hold 5000000", "release"]


@pytest.mark.parametrize("size", [-1, heap.MOST_BYTES + 1, 1.5, "1", True])
def test_a_size_that_no_technique_asks_for_is_refused(size: object) -> None:
    with pytest.raises(ArtifactError, match="allowed are 1 to"):
        heap.hold(size)  # type: ignore[arg-type]
