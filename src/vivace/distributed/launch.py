"""The launcher of one machine: hosts the store, runs torchrun's elastic agent, passes commands on, ends what hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch.distributed.elastic.rendezvous.registry as registry
from torch._C._distributed_c10d import Store, TCPStore
from torch.distributed import DistError, DistNetworkError
from torch.distributed.elastic.agent.server.api import WorkerSpec, WorkerState
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousParameters

from vivace.core import errors
from vivace.core.errors import EnvironmentFault, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.distributed.agent import Agent, TooFew, introduce
from vivace.distributed.channel import MOMENT, Channel, absent, attempts
from vivace.distributed.layout import Layout
from vivace.distributed.rank import CLOSE, live
from vivace.distributed.team import Team
from vivace.distributed.watch import Patience, Place

JOIN_SECONDS = 600
START_SECONDS = 180
"""How long processes of one machine may take to start, again too, and of several to find each other."""
LEAVING_SECONDS = 30.0
"""Within how long a machine that has left is seen to have: three beats of torchrun's rendezvous, and two seconds."""
STOP_SECONDS = 3
ANSWER_SECONDS = 5.0
LESS_MEMORY = (
    "let each process hold less: parts of the model (--layout shard=N, with more processes), a smaller batch, or "
    "activation-checkpointing (--plan)"
)
LOOK_SECONDS = 1.0
"""About how much time passes between two looks at where the ranks are."""


def open_launcher(arguments: Mapping[str, Any], payload: bytes) -> Launcher:
    """The entry of the worker that launches: {"team", "entry", "arguments"}; `payload` goes to every rank as it is."""
    return Launcher(Team(**arguments["team"]), arguments["entry"], arguments["arguments"], payload)


class Launcher:
    """Runs the ranks of one machine, and on machine 0 tells all of them what to do.

    Raises EnvironmentFault where the port is in use, or nobody is at the address.
    """

    def __init__(self, team: Team, entry: str, arguments: Mapping[str, Any], payload: bytes) -> None:
        self._team = team
        self._job = (entry, dict(arguments), payload)
        self._store, self._port = _store(team)
        self._channel: Channel | None = None
        self._number = 0
        self._answers = 0
        self._said: list[str] = []
        self._told = 0
        self._known_starts = 0
        self._starting = _Starting(team)
        self._run: _Run
        self._launch(team)

    def ask(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Let all ranks do something: {"result": the first one's answer}, or {"restarted": why} where they have had to
        start again, and know nothing of it yet; both with {"processes": how many there are}.

        Raises what a rank raised, with its number; WorkerFailure where they cannot go on.
        """
        channel = self._channel or self._next()
        channel.tell(self._number, method, arguments)
        patience = Patience(max(1, round(self._deadline() / LOOK_SECONDS)))
        looks = 0
        while True:
            with contextlib.suppress(LookupError):
                result = channel.answered(self._number)
                self._number += 1
                self._answers += 1
                return {"result": result, "processes": self._run.ranks}
            self._raise_failure(channel)
            if attempts(self._store) > channel.attempt or not self._run.alive:
                self._next()
                why = "; then ".join(self._said[self._told :]) or "the machines that take part have changed"
                self._told = len(self._said)
                return {"restarted": why, "processes": self._run.ranks}
            looks += 1
            if self._run.starts_again != self._known_starts:
                self._tick()
            is_time = looks % round(LOOK_SECONDS / MOMENT.total_seconds()) == 0
            if is_time and self._run.starts_again == self._known_starts:  # else what is seen is of ranks that died
                self._end_what_hangs(patience, channel)

    def attend(self) -> str:
        """On a machine other than 0: take part until the ranks are done; an empty text, or why they are not."""
        self._run.thread.join()
        return self._run.reason

    def close(self) -> None:
        """Let the ranks leave."""
        if self._channel is not None and self._run.alive:
            self._channel.tell(self._number, CLOSE, {})
            self._run.thread.join(STOP_SECONDS)

    def _launch(self, team: Team) -> None:
        self._team = team
        introduce(self._store, team.own_address(), team.node_rank)
        self._run = _Run(team, self._store, self._port, self._job, self._said)

    def _deadline(self) -> float:
        """Seconds that ranks may wait: where machines may leave, long enough for that to be seen."""
        return max(self._team.deadline, LEAVING_SECONDS if self._team.least_nodes < self._team.nodes else 0.0)

    def _next(self) -> Channel:
        """Wait for the next attempt's ranks, with fewer of them where no restart is left."""
        before = self._channel.attempt if self._channel is not None else 0
        while attempts(self._store) <= before:
            self._run.thread.join(MOMENT.total_seconds())
            self._tick()
            if not self._run.alive:
                smaller = self._team.smaller() if self._answers and self._team.is_on_one_machine else None
                if smaller is None:
                    raise WorkerFailure(Outcome.CRASHED, self._said[-1] if self._said else self._run.reason)
                self._said.append(
                    f"no restart was left, so fewer processes go on: {Layout.of(smaller.layout, smaller.processes)}"
                )
                self._answers = 0
                self._launch(smaller)
        self._channel, self._number = Channel(self._store, attempts(self._store)), 0
        self._known_starts = self._run.starts_again
        self._starting = _Starting(self._team)
        return self._channel

    def _tick(self) -> None:
        """Another moment has passed while ranks start. Raises WorkerFailure where they take too long."""
        if not self._starting.is_late():
            return
        names = [f"rank {rank}" for rank in self._run.absent(self._store)]
        told = f"{', '.join(names)} did not start" if names else "all of them started, and did not find each other"
        seconds = self._starting.seconds
        raise WorkerFailure(Outcome.TIMEOUT, f"the processes did not come together within {seconds} s: {told}")

    def _raise_failure(self, channel: Channel) -> None:
        told = channel.failure()
        if told is None:
            return
        is_of_all = told.get("outcome") == Outcome.UNSUPPORTED.value  # they do the same, and any of them says it first
        reason = told["reason"] if is_of_all else f"rank {told['rank']}: {told['reason']}"
        if told.get("outcome") == Outcome.OOM.value:
            reason = f"{reason}; {LESS_MEMORY}"
        if "raise" in told:
            kind: type[Exception] = getattr(errors, told["raise"])
            raise kind(reason)
        raise WorkerFailure(Outcome(told["outcome"] or Outcome.CRASHED.value), reason)

    def _end_what_hangs(self, patience: Patience, channel: Channel) -> None:
        places = {rank: Place(**json.loads(text)) for rank, text in channel.places(self._run.ranks).items()}
        found = patience.look(places)
        if found is None:
            return
        rank, sentence = found
        reason = f"{sentence}; the deadline is {self._deadline():g} s"
        if not self._team.restarts or not self._team.is_on_one_machine:
            raise WorkerFailure(Outcome.TIMEOUT, reason)
        self._said.append(reason)
        self._known_starts = -1  # nobody is looked for again until they have started again
        with contextlib.suppress(ProcessLookupError):
            os.kill(places[rank].pid, signal.SIGKILL)  # the agent starts all of them again


class _Starting:
    """Counts the moments that ranks take to come together, of which `seconds` are allowed."""

    def __init__(self, team: Team) -> None:
        self.seconds = START_SECONDS if team.is_on_one_machine else JOIN_SECONDS
        self._left = round(self.seconds / MOMENT.total_seconds())

    def is_late(self) -> bool:
        """Whether, now that another moment has passed, they have been too many."""
        self._left -= 1
        return self._left < 0


class _Run:
    """One agent with its ranks, in a thread; `reason` is why it ended, empty while all is well."""

    def __init__(
        self, team: Team, store: Store, port: int, job: tuple[str, dict[str, Any], bytes], said: list[str]
    ) -> None:
        self.reason = ""
        self._everyone = team.everyone
        self._meeting = f"{team.address}:{port}"
        entry, arguments, payload = job
        mine = team.own_address()  # a host's name may stand for an address that the other machines cannot reach
        parameters = RendezvousParameters(
            backend="c10d", endpoint=f"{team.address}:{port}", run_id=_run_id(team), min_nodes=team.least_nodes,
            max_nodes=team.nodes, is_host=False, join_timeout=JOIN_SECONDS,
            local_addr=mine,
        )  # fmt: skip
        spec = WorkerSpec(
            role="rank", local_world_size=team.processes, entrypoint=live,
            args=(entry, arguments, payload, team.to_json(), port),
            rdzv_handler=registry.get_rendezvous_handler(parameters), max_restarts=team.restarts,
            monitor_interval=0.1, local_addr=mine,
        )  # fmt: skip
        self._logs = tempfile.TemporaryDirectory(prefix="vivace-")
        logs = DefaultLogsSpecs(log_dir=self._logs.name)
        self._agent = Agent(spec, logs, "spawn", exit_barrier_timeout=60, shutdown_timeout=STOP_SECONDS)
        self._agent.said, self._agent.known, self._agent.names = said, len(said), store
        self.thread = threading.Thread(target=self._keep, name="vivace-agent", daemon=True)
        self.thread.start()

    @property
    def alive(self) -> bool:
        """Whether the agent still runs."""
        return self.thread.is_alive()

    @property
    def starts_again(self) -> int:
        """How often the agent has told the ranks to start again."""
        return self._agent.starts_again

    @property
    def ranks(self) -> int:
        """How many ranks there are on the machines that take part; of all machines before these have come together."""
        return self._agent.ranks or self._everyone

    def absent(self, store: Store) -> list[int]:
        """The ranks that have not started since they were last told to."""
        return absent(store, self._agent.meeting, self.ranks)

    def _keep(self) -> None:
        said = self._agent.said
        try:
            result = self._agent.run()
            if result.state is not WorkerState.SUCCEEDED:
                self.reason = f"{said[-1] if said else 'the ranks ended'}, and no restart was left"
        except TooFew as error:
            self.reason = str(error)
        except (RendezvousConnectionError, DistNetworkError):
            told = "start one of the machines as number 0 (--node-rank 0), all with its address, and with --resume"
            self.reason = f"machine 0, where the machines meet ({self._meeting}), has gone; to go on, {told}"
        except Exception as error:  # noqa: BLE001  the agent's own failures, such as a rendezvous that nobody comes to
            self.reason = f"{type(error).__name__}: {error}"
        finally:
            self._logs.cleanup()


def _run_id(team: Team) -> str:
    return str(uuid.uuid4()) if team.is_on_one_machine else "vivace"


def _store(team: Team) -> tuple[TCPStore, int]:
    """The store that all meet at: hosted on machine 0, where this is it, and its port."""
    if team.node_rank > 0:
        try:
            store = TCPStore(team.address, team.port, is_master=False, timeout=timedelta(seconds=JOIN_SECONDS))
        except DistError as error:
            raise EnvironmentFault(
                f"nobody answers at {team.address}, port {team.port}; start machine 0 there (node_rank 0), with the "
                "same address and port"
            ) from error
        return store, team.port
    opened = listening(team)
    port = opened.getsockname()[1]
    store = TCPStore(team.address, port, is_master=True, wait_for_workers=False, master_listen_fd=opened.detach())
    return store, port


def listening(team: Team) -> socket.socket:
    """What machine 0 listens at for the others. Raises EnvironmentFault where the port is in use."""
    try:
        return socket.create_server((team.address, team.port))
    except OSError as error:
        raise EnvironmentFault(
            f"the port {team.port} of {team.address} cannot be used: {error.strerror or error}; give another one "
            "(--rdzv-endpoint HOST:PORT), or leave it out where all processes are on one machine"
        ) from error


def why_silent(address: str) -> str:
    """Why nobody answers at HOST:PORT, within some seconds; empty where somebody does, and for what is no such address.

    >>> why_silent("auto")
    ''
    """
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdecimal():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    except (OverflowError, UnicodeError) as error:  # a port above 65535; what can be no host's name
        return str(error)
    return ""
