"""The catalogue of devices: what each can do, by whom it is told and when that was read; unknown numbers are absent."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.core.errors import UsageError

FILE = Path(__file__).with_name("catalog.toml")
KINDS = ("gpu", "tpu", "asic", "cpu", "laptop", "edge", "fpga")
NEAR, MOST_NEAR, MOST_SHOWN = 0.6, 4, 6
"""How alike a name must be that is suggested (1 is equal), how many are, and how many of a kind where none is alike."""
PRECISIONS = {
    "f32": "f32_tflops",
    "tf32": "tf32_tflops",
    "f16": "f16_tflops",
    "bf16": "bf16_tflops",
    "fp8": "fp8_tflops",
    "int8": "int8_tops",
    "fp4": "fp4_tflops",
}
"""The precisions of products, and how the catalogue names their rates, in 10^12 operations a second."""
UNITS = frozenset(
    {f"{kind}_{rate}" for kind in ("dense", "sparse") for rate in PRECISIONS.values()}
    | {"memory_gigabytes", "memory_gigabytes_per_second", "power_watts", "link_gigabytes_per_second"}
    | {
        "reached_bf16_tflops",
        "network_gigabytes_per_second",
        "domain_devices",
        "torus_dimensions",
        "cores",
        "base_gigahertz",
        "unspecified_tops",
    }
    | {"logic_cells", "multipliers", "block_ram_kilobits"}
)
"""Every number that a device may have; the unit is in the name. Links and networks are of one direction."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a number comes from: a title, an address, and the day on which it was read."""

    key: str
    title: str
    url: str
    read: str


@dataclasses.dataclass(frozen=True)
class Number:
    """One number about a device, in the unit of its name, with its source."""

    value: float
    source: Source


@dataclasses.dataclass(frozen=True)
class Device:
    """One device of the catalogue. `numbers` holds those that a source gives; what is not there is not known.

    >>> h100 = device("h100-sxm")
    >>> h100.dense_flops("bf16"), h100.sparse_flops("bf16"), h100.numbers["dense_bf16_tflops"].source.key
    (989000000000000.0, 1979000000000000.0, 'accelerators')
    """

    key: str
    name: str
    vendor: str
    kind: str
    numbers: Mapping[str, Number]
    note: str = ""

    def value(self, name: str) -> float | None:
        """A number by its name in the catalogue, in that unit; None where no source gives it."""
        number = self.numbers.get(name)
        return None if number is None else number.value

    def dense_flops(self, precision: str) -> float | None:
        """The most operations a second of dense products in this precision."""
        return _scaled(self.value(f"dense_{PRECISIONS[precision]}"), 1e12)

    def sparse_flops(self, precision: str) -> float | None:
        """The same where weights are sparse as the vendor wants them, counted as if they were dense."""
        return _scaled(self.value(f"sparse_{PRECISIONS[precision]}"), 1e12)

    @property
    def memory_bytes(self) -> float | None:
        """What its memory holds."""
        return _scaled(self.value("memory_gigabytes"), 1e9)

    @property
    def memory_bytes_per_second(self) -> float | None:
        """The rate of its memory."""
        return _scaled(self.value("memory_gigabytes_per_second"), 1e9)

    @property
    def link_bytes_per_second(self) -> float | None:
        """The rate of all its links to devices of the same domain, in one direction."""
        return _scaled(self.value("link_gigabytes_per_second"), 1e9)

    @property
    def network_bytes_per_second(self) -> float | None:
        """Its share of the network between domains, in one direction."""
        return _scaled(self.value("network_gigabytes_per_second"), 1e9)

    @property
    def domain_devices(self) -> int | None:
        """How many devices its links join."""
        value = self.value("domain_devices")
        return None if value is None else int(value)

    @property
    def torus_dimensions(self) -> int:
        """Along how many dimensions its links join them: 1, a ring, where no source tells of a torus."""
        return int(self.value("torus_dimensions") or 1)


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit


@functools.cache
def devices() -> Mapping[str, Device]:
    """Every device by its key, in the order of the catalogue."""
    return read(FILE.read_text(encoding="utf-8"))


def device(key: str) -> Device:
    """One device by its key, in any case. Raises UsageError with the nearest keys for one that does not exist.

    >>> device("H100-SXM").name
    'H100 SXM 80 GB'
    """
    known = devices()
    found = known.get(key.lower())
    if found is not None:
        return found
    raise UsageError(f"unknown device {key!r}; {_hint(key.lower())}`vivace predict --list` shows all {len(known)}")


def _hint(name: str) -> str:
    """What may have been meant: keys that are near, of the kind or the vendor that a word of the name says, if one
    does; where none is near, some of that kind.

    >>> _hint("h100"), _hint("xyzzy")
    ("did you mean 'h100-pcie' or 'h100-sxm'? ", 'no name is near that; ')
    """
    words = [word for word in re.split("[^a-z0-9]+", name) if word]
    said = next((word for word in words if word in KINDS or word in _vendors()), "")
    among = [key for key, one in devices().items() if said in ("", one.kind, one.vendor.lower())]
    near = [] if name == said else _near(name, [word for word in words if word != said], among)
    if near:
        return f"did you mean {' or '.join(repr(one) for one in near)}? "
    if not said:
        return "no name is near that; "
    shown = among[:: -(-len(among) // MOST_SHOWN)]
    more = f" and {len(among) - len(shown)} more" if len(among) > len(shown) else ""
    return f"devices of {said} are {', '.join(shown)}{more}; "


def _near(name: str, words: Sequence[str], among: Sequence[str]) -> list[str]:
    """At most MOST_NEAR keys: those that have the name in them or a word of it at their beginning; where there are
    none, those that are spelt nearly so."""
    within = [key for key in among if name in key or any(len(word) > 1 and key.startswith(word) for word in words)]
    return within[:MOST_NEAR] or difflib.get_close_matches(name, among, n=MOST_NEAR, cutoff=NEAR)


@functools.cache
def _vendors() -> frozenset[str]:
    return frozenset(one.vendor.lower() for one in devices().values())


def read(text: str) -> dict[str, Device]:
    """The devices of a catalogue's text.

    Raises ValueError for a number of unknown name, one that is not positive, one whose source is not listed, one that
    two sources give, a kind that is none of KINDS, and a dense rate above the sparse one of the same precision or below
    what was reached.
    """
    node = tomllib.loads(text)
    sources = {key: Source(key, **entry) for key, entry in node["sources"].items()}
    return {key: _device(key, entry, sources) for key, entry in node["devices"].items()}


def _device(key: str, entry: Mapping[str, Any], sources: Mapping[str, Source]) -> Device:
    numbers: dict[str, Number] = {}
    for source, group in entry["from"].items():
        for name, value in group.items():
            _check_number(key, name, value, source, sources, numbers)
            numbers[name] = Number(float(value), sources[source])
    if entry["kind"] not in KINDS:
        raise ValueError(f"{key} is of kind {entry['kind']!r}; allowed are {', '.join(KINDS)}")
    dense, reached = numbers.get("dense_bf16_tflops"), numbers.get("reached_bf16_tflops")
    if dense and reached and reached.value > dense.value:
        raise ValueError(f"{key} has reached_bf16_tflops={reached.value} above dense_bf16_tflops={dense.value}")
    for rate in PRECISIONS.values():
        dense, sparse = numbers.get(f"dense_{rate}"), numbers.get(f"sparse_{rate}")
        if dense and sparse and dense.value > sparse.value:
            raise ValueError(f"{key} has dense_{rate}={dense.value} above sparse_{rate}={sparse.value}")
    return Device(key, entry["name"], entry["vendor"], entry["kind"], numbers, entry.get("note", ""))


def _check_number(
    key: str, name: str, value: object, source: str, sources: Mapping[str, Source], before: Mapping[str, Number]
) -> None:
    if name not in UNITS:
        raise ValueError(f"{key} has {name!r}, which is no known number; allowed are {', '.join(sorted(UNITS))}")
    if source not in sources:
        raise ValueError(f"{key} takes {name} from {source!r}, which is not among the sources")
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{key} has {name}={value!r}; allowed is a number above 0, and absence where it is not known")
    if name in before:
        raise ValueError(f"{key} has {name} from two sources, {before[name].source.key} and {source}; keep one")
