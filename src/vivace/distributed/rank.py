"""A rank's life: it joins the others, is told what to do, does it together with them, and the first one answers."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.elastic.multiprocessing.errors import record

from vivace.core.errors import VivaceError
from vivace.distributed.channel import ATTEMPT, Channel, arrived
from vivace.distributed.team import Team
from vivace.distributed.watch import Watch
from vivace.distributed.world import World

PR_SET_PDEATHSIG = 1
CLOSE = "close"
GRACE_SECONDS, LONG_GRACE_SECONDS = 10.0, 30.0
"""How long a rank whose peer has gone waits to be restarted before it says that it cannot go on by itself: the agents
of several machines see by their rendezvous, within some 17 seconds, that one of them has gone."""


@record  # so that the agent can say what a rank ended by
def live(entry: str, arguments: Mapping[str, Any], payload: bytes, team: Mapping[str, Any], port: int) -> None:
    """What torchrun's agent starts in each process: join, serve commands until told to close.

    `entry` is "module:function", called with (arguments, payload, world); its methods are the commands. An object that
    has `describe` says with it how an error is told to the launcher.
    """
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    mine = Team(**team)
    torch.set_num_threads(mine.threads)
    store = TCPStore(mine.address, port, is_master=False, timeout=timedelta(seconds=60))
    device = _device(mine)
    rank = _join(store, mine, device)
    channel = Channel(store, _attempt(store))
    pulse = Channel(TCPStore(mine.address, port, is_master=False), channel.attempt)  # a thread's own connection
    watch = Watch(os.getpid(), lambda text: pulse.place(rank, text), _exchanged)
    watch.start()
    service: Any = None
    try:
        layout = mine.layout_for(dist.get_world_size())
        module, _, name = entry.partition(":")
        service = getattr(importlib.import_module(module), name)(arguments, payload, World(layout, watch, device))
        serve(service, channel, watch, rank)
    except (Exception, SystemExit) as error:  # noqa: BLE001  the user's code may raise anything; the launcher must hear
        traceback.print_exc()
        sys.stderr.flush()
        if not isinstance(error, VivaceError | OSError):
            grace = GRACE_SECONDS if mine.is_on_one_machine else LONG_GRACE_SECONDS
            threading.Event().wait(grace)  # if a peer has died, all are restarted meanwhile
        describe = getattr(service, "describe", _plainly)
        channel.fail({**describe(error), "rank": rank})
        threading.Event().wait()  # until the launcher, which has been told, ends all of us
    watch.close()
    dist.destroy_process_group()


def serve(service: Any, channel: Channel, watch: Watch, rank: int) -> None:
    """Do what the launcher says, one command after the other."""
    number = 0
    while True:
        with watch.during("waiting for a command"):
            command = channel.command(number)
        if command["method"] == CLOSE:
            return
        with watch.during(command["method"]):
            result = getattr(service, command["method"])(**command["arguments"])
        if rank == 0:
            channel.answer(number, result)
        number += 1


def _join(store: TCPStore, team: Team, device: torch.device) -> int:
    """Find the other ranks; this one's number.

    Not by the agent's own store, which PyTorch gives them by default: it lives on when ranks are started again, so that
    they may read each other's addresses of before, and wait where nobody is (pytorch issue 135712).
    """
    choose_interface(team)
    patience = timedelta(seconds=2 * team.deadline + 60)
    store.set_timeout(patience)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    meeting = PrefixStore(f"meeting/{arrived(store)}", store)
    dist.init_process_group(store=meeting, rank=rank, world_size=ranks, timeout=patience, **speaking(device))
    return rank


def speaking(device: torch.device) -> dict[str, Any]:
    """How ranks with their models on such devices speak: NCCL, which is told each rank's own card, or gloo.

    >>> speaking(torch.device("cpu"))
    {'backend': 'gloo'}
    """
    return {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}


def choose_interface(team: Team) -> None:
    """Let gloo and NCCL use the interface by which this machine is reached, unless the user has named one."""
    found = interface_of(team.own_address())
    if found:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", found)
        if not team.is_on_one_machine:
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={found}")  # without the sign, all that begin so


def interface_of(address: str) -> str:
    """The network interface that has an address, for gloo, which would take the one of the host's name; an empty text
    where none has it."""
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if any(one.address == address for one in addresses)), "")


def _attempt(store: Store) -> int:
    """The number of this coming together, which the first rank counts."""
    told: list[Any] = [store.add(ATTEMPT, 1) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(told)
    return int(told[0])


def _exchanged() -> int:
    """How many collectives this rank has begun, in all of its groups."""
    groups: list[Any] = list(dist.distributed_c10d._world.pg_map)
    return sum(group._get_sequence_number_for_group() for group in groups)


def _device(team: Team) -> torch.device:
    if team.device != "cuda":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _plainly(error: BaseException) -> dict[str, str]:
    return {"outcome": "", "reason": f"{type(error).__name__}: {error}"}


def _die_with_parent() -> None:
    """Be killed when the launcher ends (prctl(2)), so that nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
