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
    """Seconds to sum S bytes over n devices along two binary trees, each of which sums and spreads half of the message
    in blocks of the best size: 2 (2 h alpha + S beta + sqrt(8 h alpha S beta)) with h = log2(n), rounded up.

    Every device is a leaf of one tree, so that all wires are busy in both directions. Source: Sanders, Speck and Traff,
    Two-tree algorithms for full bandwidth broadcast, reduction and scan, Parallel Computing 35(12), 2009.

    >>> round(tree_all_reduce(0, 1024, Wire(1e-6, 1e9)), 9), tree_all_reduce(1e9, 1024, Wire(0, 1e9))
    (4e-05, 2.0)
    """
    if _count(devices) == 1:
        return 0.0
    depth, bare = math.ceil(math.log2(devices)), message_bytes / wire.bytes_per_second
    waiting = depth * wire.latency_seconds
    return 2 * (2 * waiting + bare + math.sqrt(8 * waiting * bare))


def quickest_all_reduce(message_bytes: float, devices: int, wire: Wire) -> float:
    """Seconds of the ring or of the trees, whichever sums sooner: a ring for large messages, trees for small ones on
    many devices.

    NCCL chooses so between nodes, by a law of the same form. Source: NVIDIA, nccl, src/graph/tuning.cc.

    >>> wire = Wire(1e-5, 5e10)
    >>> [quickest_all_reduce(size, 1000, wire) == all_reduce(size, 1000, wire) for size in (1e6, 1e12)]
    [False, True]
    """
    return min(all_reduce(message_bytes, devices, wire), tree_all_reduce(message_bytes, devices, wire))


def torus_all_reduce(message_bytes: float, devices: int, dimensions: int, wire: Wire) -> float:
    """Seconds to sum S bytes over a torus of d dimensions, in rings along one dimension after the other: 2 d (m - 1)
    alpha + 2 (n - 1)/n S beta, with m = n^(1/d), rounded up, devices along each.

    `wire` has the rate of all links of a device, which are all busy as each d-th of the message begins along another
    dimension. Source: Jain and Sabharwal, Optimal bucket algorithms for large MPI collectives on torus interconnects,
    International Conference on Supercomputing, 2010.

    >>> wire = Wire(1e-6, 1e9)
    >>> torus_all_reduce(1e6, 64, 1, wire) == all_reduce(1e6, 64, wire), round(torus_all_reduce(0, 64, 3, wire), 9)
    (True, 1.8e-05)
    """
    along = _along(_count(devices), dimensions)
    moved = 2 * (devices - 1) / devices * message_bytes / wire.bytes_per_second
    return 2 * dimensions * (along - 1) * wire.latency_seconds + moved


def hierarchical_all_reduce(
    message_bytes: float, devices: int, domain: int, inside: Wire, outside: Wire, dimensions: int = 1
) -> float:
    """Seconds to sum S bytes over k domains of g devices: scattered inside each, summed between them, gathered inside.

    Inside, devices stand in a ring, or in a torus of more `dimensions`. Each device of a domain exchanges its part,
    S/g, with other domains. The last domain may have fewer devices, r: the same bytes leave it by r wires, so each of
    them carries S/r, and the others wait for these. That is 2 ((g - 1) alpha + (g - 1)/g S beta) inside a ring, and
    between domains what S/r take over k devices, in a ring or along trees.

    >>> hierarchical_all_reduce(1e9, 4, 8, Wire(0, 1e10), Wire(0, 1e9)) == all_reduce(1e9, 4, Wire(0, 1e10))
    True
    """
    within = torus_all_reduce(message_bytes, min(_count(devices), domain), dimensions, inside)
    if devices <= domain:
        return within
    fewest = devices % domain or domain
    return within + quickest_all_reduce(message_bytes / fewest, math.ceil(devices / domain), outside)


def _along(devices: int, dimensions: int) -> int:
    """Devices along each dimension, as few as hold all."""
    return math.ceil(math.pow(devices, 1 / dimensions) - 1e-9)


def _count(devices: int) -> int:
    if devices < 1:
        raise UsageError(f"devices is {devices}; allowed is 1 or more")
    return devices
