"""torchrun's agent of one machine, which also says what it saw: whose end, and which machines have left or joined."""

from __future__ import annotations

import os
import uuid
from typing import Any

from torch._C._distributed_c10d import Store
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import ProcessFailure

from vivace.distributed.channel import MEETING

LOOKS = 20
"""How often in a row a machine must be seen to be missing: one that starts its ranks again is, for a moment."""


class TooFew(Exception):
    """So many machines have left that those which are there may not go on."""


class Agent(LocalElasticAgent):
    """Set `said`, a list that receives sentences, `names`, a store with the numbers of machines (`introduce`), and
    `known`, how many of the sentences were there before. A machine that leaves has the others start again, and counts
    as no restart. Raises TooFew from `run` where fewer than the rendezvous needs are left.
    """

    said: list[str]
    names: Store
    known = 0
    """How much of it was said of restarts before the next one."""
    meeting = ""
    starts_again = 0
    """How often ranks were told to start again, for whatever reason."""
    ranks: int | None = None
    """How many ranks there are on all machines that take part; None before they have come together."""
    _machines: frozenset[Any] = frozenset()
    _looks = 0
    _quitters: frozenset[int] = frozenset()

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        self.starts_again += 1
        super()._restart_workers(worker_group)

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        """Come together with the other machines' agents, and agree with them on a name for it that is new."""
        # Else a machine that joins later waits for an address that the first one has told to earlier rounds alone.
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        super()._rendezvous(worker_group)
        group: Any = worker_group  # whose fields are said to be None for ever
        if group.group_rank == 0:
            group.store.set(MEETING, str(uuid.uuid4()))  # a store of this rendezvous alone
        self.meeting = os.environ[MEETING] = group.store.get(MEETING).decode()  # the ranks inherit it
        self.ranks = group.workers[0].world_size
        before, self._machines = self._machines, frozenset(self._state().participants)
        if before:
            self.said += [f"{self._name(one)} has left" for one in sorted(before - self._machines)]
            self.said += [f"{self._name(one)} has joined" for one in sorted(self._machines - before)]

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state is WorkerState.HEALTHY:
            result = self._look_for_quitters(worker_group) or result
        if result.failures:
            first = min(result.failures.values(), key=lambda one: one.timestamp)
            local = first.local_rank
            rank = worker_group.workers[local].global_rank
            how = f"was killed by {first.signal_name()}"
            if first.exitcode > 0:
                how = f"ended: {_last_line(first.message)}"
            elif first.exitcode == 0:
                how = "ended by itself, with exit code 0, before the others did"
            if not any(one.startswith(f"rank {rank} ") for one in self.said[self.known :]):  # a deadline says it first
                self.said.append(f"rank {rank} {how}")
            self.known = len(self.said)
        elif result.state is WorkerState.HEALTHY:
            self._look_for_machines(worker_group)
        return result

    def _look_for_quitters(self, worker_group: WorkerGroup) -> RunResult | None:
        """The failure of ranks that ended without an error, which PyTorch's agent takes for done: it would wait for the
        others, and they for them. One that is done has given an answer."""
        context: Any = self._pcontext
        processes, answers = context._pc.processes, context._return_values
        gone = frozenset(at for at, one in enumerate(processes) if one.exitcode == 0 and at not in answers)
        seen, self._quitters = gone & self._quitters, gone  # twice: the answer comes a moment after it was looked for
        if not seen:
            return None
        failures = {
            worker_group.workers[local].global_rank: ProcessFailure(local, processes[local].pid, 0, "")
            for local in seen
        }  # fmt: skip
        return RunResult(state=WorkerState.FAILED, failures=failures)

    def _look_for_machines(self, worker_group: WorkerGroup) -> None:
        """Start again without those that give no sign of life. PyTorch's agent does so for machines that have come
        alone: of those that have gone it waits to see ranks fail, and counts these as restarts."""
        state = self._state()
        gone = self._machines - set(state.participants) - state.wait_list
        self._looks = self._looks + 1 if gone else 0
        if self._looks < LOOKS:
            return
        self._looks = 0
        left, least = len(self._machines) - len(gone), self._handler().settings.min_nodes
        names = " and ".join(self._name(one) for one in sorted(gone))
        if left < least:
            told = f"{names} {'has' if len(gone) == 1 else 'have'} left, and at least {least} are needed (--nodes)"
            self.said.append(told)
            raise TooFew(told)
        self.said += [f"{self._name(one)} has left" for one in sorted(gone)]
        self._machines -= gone
        self._restart_workers(worker_group)

    def _handler(self) -> Any:
        return self._worker_group.spec.rdzv_handler

    def _state(self) -> Any:
        """What is known of the machines, as of about a second ago: the agent asks how many wait all the time."""
        return self._handler()._state_holder.state

    def _name(self, node: Any) -> str:
        key = _key(node.addr, node.pid)
        number = self.names.get(key).decode() if self.names.check([key]) else "of a number not known"
        return f"machine {number} ({node.addr})"


def introduce(store: Store, address: str, number: int) -> None:
    """Tell the others the number of this machine, whose agent is in this process."""
    store.set(_key(address, os.getpid()), str(number))


def _key(address: str, pid: int) -> str:
    return f"machine/{address}/{pid}"


def _last_line(told: object) -> str:
    """Of what an error says of itself."""
    text = told.get("message", "") if isinstance(told, dict) else told
    return next((line.strip() for line in reversed(str(text).splitlines()) if line.strip()), "nobody knows why")[:300]
