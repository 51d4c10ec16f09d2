"""The team: how many processes on how many machines train together, where they meet, and how patient they are."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

from vivace.core.errors import UsageError
from vivace.distributed.layout import Layout

PORT = 29400
"""torchrun's own, where several machines meet unless another is given."""
LONGEST_SECONDS = 10_000_000
"""The longest deadline: four months, which clocks of all libraries below can count."""


@dataclasses.dataclass(frozen=True)
class Team:
    """`processes` on each of `nodes` machines, of which at least `least_nodes` are needed; this is number `node_rank`.

    They meet at `address` and `port`, on machine 0; 0 is any free port, for one machine. A rank that dies has all start
    again from the last checkpoint, at most `restarts` times, then with fewer processes on the machine. Ranks that wait
    for another one longer than `deadline` seconds end it. `layout` is as `Layout.read` takes it. Raises UsageError.
    """

    processes: int = 1
    nodes: int = 1
    least_nodes: int = 1
    node_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0
    restarts: int = 3
    deadline: float = 300.0
    layout: str = ""
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        for name, least in (("processes", 1), ("nodes", 1), ("node_rank", 0), ("restarts", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{name} is {value!r}; allowed is a whole number of {least} or more")
        if self.node_rank >= self.nodes:
            raise UsageError(f"node_rank is {self.node_rank}, and there are {self.nodes} nodes; allowed is 0 to "
                             f"{self.nodes - 1}")  # fmt: skip
        if not 0 <= self.port < 65536:
            raise UsageError(f"port is {self.port}; allowed is 0 (any) to 65535")
        if not 0 < self.deadline <= LONGEST_SECONDS:
            raise UsageError(
                f"deadline is {self.deadline!r}; allowed is a number of seconds above 0, up to {LONGEST_SECONDS:,}"
            )
        Layout.of(self.layout, self.everyone)

    @staticmethod
    def of(processes: int, nodes: str = "1", **others: Any) -> Team:
        """A team as it is asked for on the command line: `nodes` is a number, or LEAST:MOST as torchrun has it."""
        least, colon, most = nodes.partition(":")
        if not least.isdecimal() or (colon and not most.isdecimal()):
            raise UsageError(f"nodes is {nodes!r}; allowed is a number, or LEAST:MOST such as 1:4")
        count = int(most or least)
        if int(least) > count or int(least) < 1:
            raise UsageError(f"nodes is {nodes!r}; allowed is LEAST:MOST with LEAST from 1 to MOST")
        if count > 1:
            others.setdefault("port", PORT)
        return Team(processes=processes, nodes=count, least_nodes=int(least), **others)

    @property
    def everyone(self) -> int:
        """Processes on all machines."""
        return self.processes * self.nodes

    @property
    def is_on_one_machine(self) -> bool:
        """Whether all of it is here."""
        return self.nodes == 1

    def check_cards(self, cards: int) -> None:
        """Raise UsageError where this machine has fewer CUDA devices than processes: NCCL takes one process for each.

        >>> Team(processes=2).check_cards(0)
        """
        if self.device == "cuda" and self.processes > cards:
            raise UsageError(
                f"processes is {self.processes}, and this machine has {cards} CUDA device{'s' * (cards != 1)}, of "
                f"which each process needs one; allowed are up to {cards}, or a job whose model lies on the processor"
            )

    def own_address(self) -> str:
        """This machine's address in the network that the machines meet in: nothing is sent to find it.

        >>> Team().own_address()
        '127.0.0.1'
        """
        family, *_, where = socket.getaddrinfo(self.address, self.port or PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])

    def to_json(self) -> dict[str, Any]:
        """The fields and their values."""
        return dataclasses.asdict(self)

    def layout_for(self, ranks: int) -> Layout:
        """The layout of as many ranks as there are, of which machines that have left or not come have none."""
        whole = Layout.of(self.layout, self.everyone)
        return whole if ranks == whole.processes else whole.left_to(ranks)

    def smaller(self) -> Team | None:
        """The largest team of this machine with fewer processes that its layout allows, or, where it allows none, with
        one process less in the layout that is left to them; None for one process."""
        for processes in range(self.processes - 1, 0, -1):
            try:
                return dataclasses.replace(self, processes=processes)
            except UsageError:
                continue
        left = self.processes - 1
        return None if not left else dataclasses.replace(self, processes=left, layout=str(self.layout_for(left)))
