"""How a server is set up: frozen values, checked before anything is opened."""

from __future__ import annotations

import dataclasses
import ipaddress
from pathlib import Path

from vivace.core.errors import UsageError
from vivace.serve.protocol.limits import Limits

SHORTEST_TOKEN = 16


@dataclasses.dataclass(frozen=True)
class Settings:
    """One server. Seconds are of waiting for an answer (`timeout`), of accepting on after SIGTERM (`grace`), of
    finishing what was accepted (`drain`), and of holding a batch open for others (`window`).

    `token` None lets everybody in, which only a loopback address may. `max_batch` None takes what was measured.
    """

    artifact: Path
    host: str = "127.0.0.1"
    port: int = 8000
    name: str = ""
    workers: int = 1
    token: str | None = None
    trust: bool = False
    max_batch: int | None = None
    most_waiting: int = 1024
    timeout_seconds: float = 30.0
    grace_seconds: float = 0.0
    drain_seconds: float = 30.0
    window_seconds: float = 0.0
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and self.token is None:
            raise UsageError(
                f"--host is {self.host}, which others can reach; allowed without a token are loopback addresses such "
                "as 127.0.0.1: give --token-file, whose token every request must then carry"
            )
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not self.token.isascii()):
            raise UsageError(
                f"the token has {len(self.token)} characters; give {SHORTEST_TOKEN} or more of ASCII, such as "
                "`openssl rand -hex 32` makes"
            )
        for name, least in (("workers", 1), ("most_waiting", 1), ("max_batch", 1), ("port", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; allowed is {least} or more")
        if self.timeout_seconds <= 0:
            raise UsageError(f"--timeout is {self.timeout_seconds:g} s; give a positive time such as 30s")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
