"""A program compiled for TPUs by Google's own compiler, on a machine that has none."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vivace.core.errors import NotApplicable
from vivace.core.program import Model
from vivace.runtimes.xla import stablehlo
from vivace.runtimes.xla.collectives import Collective, collectives_of
from vivace.runtimes.xla.layout import ALONE, Layout
from vivace.runtimes.xla.mesh import lowered

VARIABLES = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""For a process that compiles: it computes on the CPU, asks no metadata server what TPU it runs on, and takes no TPU
for itself, so that it leaves the lock on that alone."""
HOST_DEVICES = "--xla_force_host_platform_device_count"
"""In XLA_FLAGS: how many devices XLA's CPU back end pretends to have."""
_LACKS_MEMORY = ("RESOURCE_EXHAUSTED", "Ran out of memory")


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What the compiler says of one call on one device; bytes, operations and seconds. `devices` are of one chip.

    `seconds` leaves out `unpriced` operations, for which the compiler has no time. It, operations and bytes count one
    turn of each of the `loops`.
    """

    devices: int
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    code_bytes: int
    flops: float
    accessed_bytes: float
    seconds: float
    unpriced: int = 0
    loops: int = 0
    collectives: tuple[Collective, ...] = ()


class TooLarge(NotApplicable):
    """The compiler found no room for the program in the device's memory."""


def analyse(
    model: Model, size: int, topology: str, chips: int, layout: Layout = ALONE, config: str | None = None
) -> Analysis:
    """Compile a model of form XLA for devices of a topology of so many chips, a call of `size` samples: for the first
    one, or over one of each chip as `layout` says. `config` is how chips are used, where the compiler knows several.

    The process must have `VARIABLES` in its environment from its start. Raises NotApplicable where the compiler
    refuses, TooLarge where it is for want of memory.
    """
    jax = stablehlo.import_jax()
    from jax.experimental import topologies

    try:
        further = {} if config is None else {"chip_config_name": config}
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **further).devices
    except Exception as error:  # libtpu and its loader have errors of their own
        raise NotApplicable(f"the TPU compiler does not start: {_short(error)}") from error
    each = len(devices) // chips
    with stablehlo.wide(jax):
        try:
            chosen = devices[: each * layout.devices : each]
            compiled = lowered(jax, model, size, chosen, layout)[0].compile()
        except Exception as error:  # so has the compiler
            kind = TooLarge if any(phrase in str(error) for phrase in _LACKS_MEMORY) else NotApplicable
            raise kind(f"the TPU compiler refuses the program: {_short(error)}") from error
    return _analysis(compiled, each, layout)


def _analysis(compiled: Any, devices: int, layout: Layout) -> Analysis:
    memory, cost = compiled.memory_analysis(), _costs(compiled.cost_analysis())
    text = compiled.as_text()
    seconds, unpriced = priced(float(cost.get("optimal_seconds", math.nan)))
    return Analysis(
        devices=devices,
        argument_bytes=int(memory.argument_size_in_bytes),
        output_bytes=int(memory.output_size_in_bytes),
        temporary_bytes=int(memory.temp_size_in_bytes),
        code_bytes=int(memory.generated_code_size_in_bytes),
        flops=float(cost.get("flops", math.nan)),
        accessed_bytes=float(cost.get("bytes accessed", math.nan)),
        seconds=seconds,
        unpriced=unpriced,
        loops=loops_in(text),
        collectives=collectives_of(text) if layout.devices > 1 else (),
    )


def loops_in(text: str) -> int:
    """Loops of a compiled program (recurrent layers), whose turns the compiler's counts do not multiply.

    >>> loops_in("  %while.1 = (s32[], f32[2]) while(%tuple), condition=%c, body=%b")
    1
    """
    return len(re.findall(r"\bwhile\(", text))


def priced(told: float) -> tuple[float, int]:
    """The compiler's time without the operations that it has none for, and how many those are: it adds -1 s for each
    (custom calls ConcatBitcast, in libtpu 0.0.42), so that the sum of a call of microseconds is negative.

    >>> priced(-1.5)
    (0.5, 2)
    """
    unpriced = 0 if math.isnan(told) or told >= 0 else math.ceil(-told)
    return told + unpriced, unpriced


def _costs(found: Any) -> Mapping[str, float]:
    """Some versions of JAX give a list with one entry."""
    costs: Mapping[str, float] = found[0] if isinstance(found, Sequence) else found
    return costs


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
