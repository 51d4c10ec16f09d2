"""What every test shares: one thread, a cache of its own, a folder to work in, and skips of GPU tests said aloud."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before anything imports torch: on a shared machine, oversubscribed OpenMP barriers cost a hundredfold. Workers
# that tests start inherit it; techniques that choose threads set their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a shell starts in the background ignores Ctrl-C, and so do its children: tests that interrupt would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The tools from wheels are compiled once, which takes a minute, and kept: not in the cache that each run of tests has.
os.environ.setdefault("YOWASP_CACHE_DIR", str(Path.home() / ".cache" / "YoWASP"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a card, with the reason, where PyTorch sees none."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in on_gpu:
        item.add_marker(pytest.mark.skip(reason="PyTorch sees no CUDA device here"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _thawed() -> Iterator[None]:
    """Arms that ran in this process set objects aside (gc.freeze); who looks for referrers at the end needs them."""
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `vivace doctor` measured for the user of this machine must not order the plans of a test."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def workbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is also the current one, so that nothing is written into the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
