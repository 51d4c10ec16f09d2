"""A request for an inference: read, and checked against the model, so that nothing ill-formed waits among others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from vivace.core.signature import show_shape
from vivace.serve.protocol.bodies import Body
from vivace.serve.protocol.json_tensors import from_json
from vivace.serve.protocol.limits import Limits, check_json
from vivace.serve.protocol.model import Model, Port
from vivace.serve.protocol.refusal import Refusal, too_large

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
Part = bytes | memoryview
REMEMBERED_BYTES = 2048
REMEMBERED = 512


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One output that was asked for: its number in the model, and whether it is to come as binary data."""

    number: int
    is_binary: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """All of a request but its values: what equal JSON parts have in common. One is equal to itself alone.

    `shapes` are the inputs' in the model's order, `binary_sizes` the bytes that each takes from the binary part, in the
    order `binary_order` (numbers of inputs). `samples` is how many it holds, 1 where the model has no batch axis.
    `timeout_seconds` is the client's own, None for the server's.
    """

    request_id: str | None
    shapes: Shapes
    samples: int
    wanted: tuple[Wanted, ...]
    binary_order: tuple[int, ...]
    binary_sizes: tuple[int, ...]
    timeout_seconds: float | None


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that fits the model: its layout, and the bytes of each input in the model's order."""

    layout: Layout
    parts: tuple[Part, ...]


class Reader:
    """Reads the requests of one model. Layouts of small JSON parts are remembered: clients send the same ones."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self._layouts: dict[bytes, Layout] = {}

    def read(self, body: Body) -> Asked:
        """The request in a body. Raises Refusal for whatever does not fit."""
        if body.json is None:
            return self._raw(body.binary)
        layout = self._layouts.get(body.json)
        if layout is not None:
            return Asked(layout, _cut(layout, body.binary, {}))
        check_json(body.json, self.limits)
        layout, values = self._parse(body.json)
        if not values and len(body.json) <= REMEMBERED_BYTES:
            if len(self._layouts) >= REMEMBERED:
                self._layouts.clear()
            self._layouts[body.json] = layout
        return Asked(layout, _cut(layout, body.binary, values))

    def _parse(self, text: bytes) -> tuple[Layout, dict[int, bytes]]:
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Refusal(
                400, f"the request is not JSON ({error}); where tensors follow as binary data, "
                "Inference-Header-Content-Length gives the bytes of the JSON part"
            ) from None  # fmt: skip
        request = _mapping(document, "the request")
        given = [_mapping(entry, "an input") for entry in _list(request.get("inputs"), "inputs")]
        numbers = self._numbers(given)
        shapes: list[Shape] = [()] * len(numbers)
        values: dict[int, bytes] = {}
        order: list[int] = []
        sizes: list[int] = []
        for number, entry in zip(numbers, given, strict=True):
            port = self.model.inputs[number]
            shapes[number] = self._shape(port, entry)
            size = _mapping(entry.get("parameters", {}), f"parameters of {port.name}").get("binary_data_size")
            if size is None:
                values[number] = from_json(port, shapes[number], entry.get("data"))
            else:
                order.append(number)
                sizes.append(_binary_size(port, shapes[number], size))
        parameters = _mapping(request.get("parameters", {}), "parameters")
        layout = Layout(
            request_id=_request_id(request.get("id")),
            shapes=tuple(shapes),
            samples=samples_of(self.model, shapes),
            wanted=self._wanted(request.get("outputs"), parameters),
            binary_order=tuple(order),
            binary_sizes=tuple(sizes),
            timeout_seconds=_timeout(parameters.get("timeout")),
        )
        return layout, values

    def _numbers(self, given: Sequence[Mapping[str, Any]]) -> list[int]:
        """Which input of the model each given one is; all of them, each once."""
        names = [entry.get("name") for entry in given]
        known = [port.name for port in self.model.inputs]
        if (
            len(names) != len(known)
            or any(name not in known for name in names)
            or len({*map(str, names)}) != len(names)
        ):
            told = ", ".join(str(name)[:60] for name in names[:8]) or "none"
            raise Refusal(400, f"received the inputs {told}; give each of these once: {self.model.describe_inputs()}")
        return [known.index(str(name)) for name in names]

    def _shape(self, port: Port, entry: Mapping[str, Any]) -> Shape:
        if entry.get("datatype") != port.datatype.name:
            raise Refusal(
                400, f"{port.name} has datatype {str(entry.get('datatype'))[:20]!r}; allowed is {port.datatype.name}"
            )
        shape = entry.get("shape")
        if not isinstance(shape, list) or len(shape) > self.limits.rank or any(type(n) is not int for n in shape):
            raise Refusal(
                400, f"the shape of {port.name} must be a list of at most {self.limits.rank} whole numbers; the model "
                f"takes {show_shape(port.spec.shape)}"
            )  # fmt: skip
        if any(n < 0 for n in shape) or port.spec.problem_with(port.spec.dtype, shape):
            raise Refusal(400, f"{port.name} has shape {str(shape)[:100]}; allowed is {show_shape(port.spec.shape)}")
        if port.byte_count(shape) > self.limits.body_bytes:
            raise too_large(
                port.name, port.byte_count(shape), self.limits.body_bytes, "send fewer samples in a request"
            )
        return tuple(shape)

    def _wanted(self, outputs: Any, parameters: Mapping[str, Any]) -> tuple[Wanted, ...]:
        by_default = parameters.get("binary_data_output") is True
        if outputs is None or outputs == []:
            return tuple(Wanted(number, by_default) for number in range(len(self.model.outputs)))
        known = [port.name for port in self.model.outputs]
        found = []
        for entry in _list(outputs, "outputs"):
            asked = _mapping(entry, "an output")
            if asked.get("name") not in known:
                raise Refusal(400, f"there is no output {str(asked.get('name'))[:60]!r}; there are {', '.join(known)}")
            settings = _mapping(asked.get("parameters", {}), "parameters of an output")
            if settings.get("classification"):
                raise Refusal(400, "the classification extension is not served; ask for the output itself")
            found.append(Wanted(known.index(asked["name"]), bool(settings.get("binary_data", by_default))))
        if len({wanted.number for wanted in found}) != len(found):
            raise Refusal(400, "an output is asked for twice; name each once")
        return tuple(found)

    def _raw(self, binary: memoryview) -> Asked:
        """A body without a JSON part: one sample of a model with one input whose other dimensions are fixed."""
        port = self.model.inputs[0]
        shape = [1 if n is None and axis == port.spec.batch_axis else n for axis, n in enumerate(port.spec.shape)]
        if len(self.model.inputs) != 1 or None in shape:
            raise Refusal(
                400, "a body without a JSON part is taken only where the model has one input of a fixed shape; this "
                f"one has {self.model.describe_inputs()}"
            )  # fmt: skip
        fixed = tuple(n for n in shape if n is not None)
        wanted = tuple(Wanted(number, True) for number in range(len(self.model.outputs)))
        layout = Layout(None, (fixed,), samples_of(self.model, [fixed]), wanted, (0,), (port.byte_count(fixed),), None)
        return Asked(layout, _cut(layout, binary, {}))


def samples_of(model: Model, shapes: Sequence[Shape]) -> int:
    """How many samples a request holds. Raises Refusal where inputs disagree, or there is none."""
    sizes = {
        port.name: shape[port.spec.batch_axis or 0]
        for port, shape in zip(model.inputs, shapes, strict=True)
        if port.is_batched
    }
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise Refusal(400, f"the inputs disagree on the number of samples: {told}; give the same number in each")
    if 0 in sizes.values():
        raise Refusal(400, f"{next(iter(sizes))} holds no samples; give at least one")
    return next(iter(sizes.values()), 1)


def _cut(layout: Layout, binary: memoryview, values: Mapping[int, bytes]) -> tuple[Part, ...]:
    """The bytes of each input, in the model's order."""
    needed = sum(layout.binary_sizes)
    if needed != len(binary):
        raise Refusal(
            400, f"{len(binary)} bytes follow the JSON part; the inputs' binary_data_size add up to {needed}: send "
            "exactly these"
        )  # fmt: skip
    parts: dict[int, Part] = dict(values)
    start = 0
    for number, size in zip(layout.binary_order, layout.binary_sizes, strict=True):
        parts[number] = binary[start : start + size]
        start += size
    return tuple(parts[number] for number in range(len(layout.shapes)))


def _binary_size(port: Port, shape: Shape, size: Any) -> int:
    needed = port.byte_count(shape)
    if type(size) is not int or size != needed:
        raise Refusal(
            400, f"binary_data_size of {port.name} is {str(size)[:20]}; {math.prod(shape)} elements of "
            f"{port.datatype.name} take {needed}"
        )  # fmt: skip
    return needed


def _request_id(given: Any) -> str | None:
    if given is None or (isinstance(given, str) and len(given) <= 256):
        return given
    raise Refusal(400, "id must be a text of at most 256 characters")


def _timeout(given: Any) -> float | None:
    """Seconds of the request parameter `timeout`, which Triton defines in microseconds; 0 is none."""
    if given is None or given == 0:
        return None
    if type(given) is not int or given < 0:
        raise Refusal(400, "the parameter timeout must be a whole number of microseconds")
    return given * 1e-6


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(400, f"{what} must be a JSON object; received {type(value).__name__}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > 1024:
        raise Refusal(400, f"{what} must be a list of at most 1024 JSON objects")
    return value
