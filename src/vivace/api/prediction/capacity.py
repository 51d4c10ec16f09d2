"""What counting a job may take of this machine's memory: it is refused with numbers before there is none left."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vivace.core.errors import EnvironmentFault
from vivace.core.training.rig import Rig
from vivace.measure import memory

DO = "predict where more memory is free, or describe the model (transformer:layers=...)"


def check_fits(rig: Rig, why: str) -> None:
    """Raise EnvironmentFault where a job that was put together without memory would hold more than is free here, in
    weights, gradients and the optimizer's states. `why` says what hinders counting it without memory."""
    parameters = [one for one in rig.model.parameters() if one.is_meta]
    learning = [one for one in parameters if one.requires_grad]
    weights = _bytes([*parameters, *(one for one in rig.model.buffers() if one.is_meta)])
    gradients, states = _bytes(learning), _state_bytes(rig, learning)
    free, needed = _spare_bytes(), weights + gradients + states
    if needed > free:
        told = " + ".join(f"{size / 1e9:.3g}" for size in (weights, gradients, states))
        raise EnvironmentFault(
            f"this job cannot be counted on tensors without memory ({why}), and made here it holds "
            f"{needed / 1e9:.3g} GB at the least (weights, gradients, optimizer: {told}), "
            f"of {free / 1e9:.3g} GB that may be used; {DO}"
        )


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """No more of this machine's memory inside than most of what is free; raises EnvironmentFault at the limit, which is
    the operating system's on private memory (setrlimit(2), RLIMIT_DATA) and for the whole process, where it has one."""
    spare, held = _spare_bytes(), _held_bytes()
    if held is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [one for one in (held + spare, soft, hard) if one != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    except (MemoryError, RuntimeError) as failure:
        if not isinstance(failure, MemoryError) and "allocate memory" not in str(failure):
            raise
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        raise EnvironmentFault(
            f"counting this job takes more than the {spare / 1e9:.3g} GB of memory that may be used here"
            f"{_asked(failure)}; {DO}"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _asked(failure: BaseException) -> str:
    found = re.search(r"tried to allocate (\d+) bytes", str(failure))
    return f" (the last request was for {int(found[1]) / 1e9:.3g} GB)" if found else ""


def _spare_bytes() -> int:
    return int(memory.SPARE_SHARE * memory.available_bytes())


def _held_bytes() -> int | None:
    """Private writable memory of this process (proc(5), VmData); None where the system does not tell or limit it."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        for line in (memory.PROC / "self" / "status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return None


def _state_bytes(rig: Rig, learning: Sequence[torch.nn.Parameter]) -> float:
    """What the optimizer keeps after a step; nothing where it takes none without memory, so that the sum is a least."""
    try:
        for one in learning:
            one.grad = torch.empty_like(one)
        rig.optimizer.step()
    except Exception:  # noqa: BLE001 - the optimizer is the user's and may raise anything on tensors without memory
        return 0.0
    return _bytes(pytree.tree_leaves(list(rig.optimizer.state.values())))


def _bytes(leaves: Sequence[object]) -> float:
    return float(sum(one.numel() * one.element_size() for one in leaves if isinstance(one, Tensor)))
