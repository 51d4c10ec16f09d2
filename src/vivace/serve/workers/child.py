"""The worker's own side: an artifact, opened and checked, that answers batches until the front closes its socket."""

from __future__ import annotations

import contextlib
import gc
import math
import socket
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vivace.core.errors import CallError
from vivace.measure.clock import SystemClock
from vivace.runtimes.calls import torch_dtype
from vivace.runtimes.program import Program
from vivace.serve.slices import ask_for_slice
from vivace.serve.workers.arena import Arena, aligned
from vivace.serve.workers.messages import LONGEST, Computed, Place, decode_inputs
from vivace.serve.workers.opening import Opened, batching_of, open_artifact


def open_served(arguments: Mapping[str, Any], payload: object) -> Served:
    """The worker's entry: {"folder", "trust", "digest", "socket"}. With "digest" None everything is measured anew.

    The front's short slice was inherited; who computes takes the kernel's own, before any thread of a runtime starts.
    """
    ask_for_slice(0)
    folder = Path(arguments["folder"])
    opened = open_artifact(folder, bool(arguments["trust"]), arguments["digest"])
    note: dict[str, Any] = {"digest": opened.digest, "warnings": list(opened.warnings)}
    if arguments["digest"] is None:
        note |= {
            "signature": opened.program.signature.to_json(),
            "manifest": opened.manifest.model_dump(mode="json", exclude={"files"}),
            "batching": batching_of(opened, folder).to_json(),
        }
    return Served(opened, note, arguments["socket"])


class Served:
    """Answers batches. `opened` is what the front is told of the artifact."""

    def __init__(self, opened: Opened, note: dict[str, Any], path: str) -> None:
        self.opened = note
        self._desk = Desk(opened.program)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(path)

    def serve(self) -> None:
        """Take the two arenas, then answer one batch after the other; return when the front has closed the socket."""
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 2)
        given, taken = (Arena(descriptor) for descriptor in descriptors)
        gc.collect()
        gc.freeze()
        while message := self._socket.recv(LONGEST):
            with contextlib.suppress(BrokenPipeError):
                self._socket.send(self._desk.answer(message, given, taken).encode())

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Desk:
    """Computes what lies in one arena and lays the answers into the other. Never raises for what a call does."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._dtypes = [torch_dtype(spec.dtype) for spec in program.signature.inputs]
        self._clock = SystemClock()

    def answer(self, message: bytes, given: Arena, taken: Arena) -> Computed:
        """One batch."""
        try:
            given.follow()
            leaves = self._leaves(message, given)
            started = self._clock.now()
            outputs = self._program.run(leaves)
            seconds = self._clock.now() - started
            return Computed(tuple(_lay(outputs, taken)), seconds)
        except CallError as error:
            return Computed(call_error=str(error))
        except Exception as error:  # noqa: BLE001  a runtime may raise anything, and the next batch must still be served
            traceback.print_exc()
            return Computed(failure=f"{type(error).__name__}: {error}")

    def _leaves(self, message: bytes, given: Arena) -> list[Tensor]:
        return [_view(given, place, dtype) for place, dtype in zip(decode_inputs(message), self._dtypes, strict=True)]


def _view(arena: Arena, place: Place, dtype: torch.dtype) -> Tensor:
    """A tensor that lies in the arena; booleans are copied, as any byte but 0 means true."""
    count = math.prod(place.shape)
    if count == 0:
        return torch.empty(place.shape, dtype=dtype)
    if dtype is torch.bool:
        return (torch.frombuffer(arena.map, dtype=torch.uint8, count=count, offset=place.offset) != 0).reshape(
            place.shape
        )
    return torch.frombuffer(arena.map, dtype=dtype, count=count, offset=place.offset).reshape(place.shape)


def _lay(outputs: Sequence[Tensor], arena: Arena) -> list[Place]:
    """Copy answers into the arena, one after the other."""
    places, end = [], 0
    for leaf in outputs:
        places.append(Place(aligned(end), tuple(leaf.shape)))
        end = places[-1].offset + leaf.numel() * leaf.element_size()
    arena.reserve(end)
    for leaf, place in zip(outputs, places, strict=True):
        if leaf.numel():
            target = torch.frombuffer(arena.map, dtype=leaf.dtype, count=leaf.numel(), offset=place.offset)
            target.copy_(leaf.detach().reshape(-1))
    return places
