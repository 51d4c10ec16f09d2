"""An answer as bytes: a JSON part, then the outputs that were asked for as binary data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import orjson

from vivace.serve.protocol.json_tensors import to_json
from vivace.serve.protocol.model import VERSION, Model
from vivace.serve.protocol.requests import Layout, Shapes

REMEMBERED = 512


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is sent. `json_bytes` is the length of the JSON part where binary data follow, else None."""

    body: bytes
    json_bytes: int | None


class Writer:
    """Writes the answers of one model. JSON parts of answers without JSON tensors are remembered."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._heads: dict[tuple[Layout, Shapes], bytes] = {}

    def write(self, layout: Layout, shapes: Shapes, outputs: Sequence[bytes]) -> Answer:
        """The answer to a request: `shapes` and `outputs` are those of all outputs, in the model's order.

        Raises Refusal where an output was asked for as JSON that JSON cannot carry.
        """
        if all(wanted.is_binary for wanted in layout.wanted):
            key = (layout, shapes)
            head = self._heads.get(key)
            if head is None:
                head = self._head(layout, shapes, outputs)
                if layout.request_id is None:
                    self._remember(key, head)
            body = b"".join([head, *(outputs[wanted.number] for wanted in layout.wanted)])
            return Answer(body, len(head))
        head = self._head(layout, shapes, outputs)
        binary = [outputs[wanted.number] for wanted in layout.wanted if wanted.is_binary]
        return Answer(b"".join([head, *binary]), len(head) if binary else None)

    def _remember(self, key: tuple[Layout, Shapes], head: bytes) -> None:
        if len(self._heads) >= REMEMBERED:
            self._heads.clear()
        self._heads[key] = head

    def _head(self, layout: Layout, shapes: Shapes, outputs: Sequence[bytes]) -> bytes:
        document: dict[str, Any] = {"model_name": self._model.name, "model_version": VERSION}
        if layout.request_id is not None:
            document["id"] = layout.request_id
        document["outputs"] = [
            self._output(wanted.number, wanted.is_binary, shapes[wanted.number], outputs[wanted.number])
            for wanted in layout.wanted
        ]
        return orjson.dumps(document)

    def _output(self, number: int, is_binary: bool, shape: Sequence[int], data: bytes) -> dict[str, Any]:
        port = self._model.outputs[number]
        entry: dict[str, Any] = {"name": port.name, "datatype": port.datatype.name, "shape": list(shape)}
        if is_binary:
            return entry | {"parameters": {"binary_data_size": len(data)}}
        return entry | {"data": to_json(port, data)}
