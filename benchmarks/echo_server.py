"""The least that a server can be: one process that works a fixed time for each request and answers the same bytes.

python benchmarks/echo_server.py SECONDS BYTES      # prints its port

No second process, no queue of its own, no batches: what clients see of it under load is what the machine and they add.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import uvloop

from vivace.serve.slices import shortest_slice


class Echo(asyncio.Protocol):
    """One connection, whose requests come whole."""

    def __init__(self, seconds: float, answer: bytes) -> None:
        self._seconds = seconds
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        end = time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            pass
        self._transport.write(self._answer)


async def serve(seconds: float, byte_count: int) -> None:
    answer = f"HTTP/1.1 200 OK\r\ncontent-length: {byte_count}\r\n\r\n".encode() + bytes(byte_count)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(seconds, answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with shortest_slice(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(float(sys.argv[1]), int(sys.argv[2])))
