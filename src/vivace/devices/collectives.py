"""How long collectives take by the alpha-beta law: a message costs a latency, and its bytes over a rate."""

from __future__ import annotations

import dataclasses
import math

from vivace.core.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Wire:
    """What joins devices: seconds of latency for a message (alpha), and bytes a second of one device in one direction
    (1/beta).

    >>> Wire(1e-5, 1e9).message(1e6)
    0.00101
    """

    latency_seconds: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        if self.latency_seconds < 0 or not self.bytes_per_second > 0:
            raise UsageError(f"{self} has a latency under 0 or a rate that is not above 0")

    def message(self, message_bytes: float) -> float:
        """Seconds of one message between two devices: alpha + S beta."""
        return self.latency_seconds + message_bytes / self.bytes_per_second


def all_reduce(message_bytes: float, devices: int, wire: Wire) -> float:
    """Seconds to sum S bytes over n devices in a ring: 2 (n - 1) alpha + 2 (n - 1)/n S beta.

    Source: Thakur, Rabenseifner and Gropp, Int. Journal of High Performance Computing Applications 19(1), 2005.

    >>> all_reduce(1e9, 1, Wire(1e-6, 1e9)), all_reduce(1e9, 2, Wire(0, 1e9))
    (0.0, 1.0)
    """
    return 2 * all_gather(message_bytes, devices, wire)


def all_gather(message_bytes: float, devices: int, wire: Wire) -> float:
    """Seconds until n devices have S bytes of which each had a part, in a ring: (n - 1) alpha + (n - 1)/n S beta.

    A reduce-scatter takes the same. Source: as of `all_reduce`.
    """
    steps = _count(devices) - 1
    return steps * wire.latency_seconds + steps / devices * message_bytes / wire.bytes_per_second


def tree_all_reduce(message_bytes: float, devices: int, wire: Wire) -> float:
    """Seconds to sum S bytes by recursive halving and doubling: 2 log2(n) alpha + 2 (n - 1)/n S beta (Rabenseifner)."""
    rounds = math.ceil(math.log2(_count(devices)))
    return 2 * rounds * wire.latency_seconds + 2 * (devices - 1) / devices * message_bytes / wire.bytes_per_second


def hierarchical_all_reduce(message_bytes: float, devices: int, domain: int, inside: Wire, outside: Wire) -> float:
    """Seconds to sum S bytes over k domains of g devices: scattered inside each, summed between them, gathered inside.

    Each device of a domain exchanges its part, S/g, with other domains. The last domain may have fewer devices, r: the
    same bytes leave it by r wires, so each of them carries S/r, and the others wait for these. That is
    2 ((g - 1) alpha + (g - 1)/g S beta) inside and 2 (k - 1) alpha + 2 (k - 1)/k (S/r) beta outside.

    >>> hierarchical_all_reduce(1e9, 4, 8, Wire(0, 1e10), Wire(0, 1e9)) == all_reduce(1e9, 4, Wire(0, 1e10))
    True
    """
    if _count(devices) <= domain:
        return all_reduce(message_bytes, devices, inside)
    fewest = devices % domain or domain
    between = all_reduce(message_bytes / fewest, math.ceil(devices / domain), outside)
    return 2 * all_gather(message_bytes, domain, inside) + between


def _count(devices: int) -> int:
    if devices < 1:
        raise UsageError(f"devices is {devices}; allowed is 1 or more")
    return devices
