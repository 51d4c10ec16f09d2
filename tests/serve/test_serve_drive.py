"""Load clients against a server that only pretends: what is counted, and when Poisson requests are due."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time

import pytest

from vivace.core.errors import EnvironmentFault
from vivace.serve.load.compare import Tail, alternate, joined, tail
from vivace.serve.load.drive import Bounds, Slice, closed_loop, open_loop
from vivace.serve.load.requests import Target

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
MESSAGE = b"POST / HTTP/1.1\r\n\r\n"


class FalseServer(asyncio.Protocol):
    """Answers every message; each third one with 503 where `is_busy`."""

    answered = 0
    is_busy = False
    hangs_up_idle = hangs_up_asked = False

    def connection_made(self, transport):
        self.transport = transport
        self.was_asked = False
        if FalseServer.hangs_up_idle:
            asyncio.get_running_loop().call_later(0.2, lambda: self.was_asked or transport.abort())

    def data_received(self, data):
        self.was_asked = True
        if FalseServer.hangs_up_asked:
            self.transport.abort()
            return
        for _ in range(data.count(MESSAGE)):
            FalseServer.answered += 1
            busy = FalseServer.is_busy and FalseServer.answered % 3 == 0
            self.transport.write(BUSY if busy else OK)


@pytest.fixture
def target():
    """Where the false server listens."""
    loop = asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    server = loop.run_until_complete(loop.create_server(FalseServer, sock=listener))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    FalseServer.answered, FalseServer.is_busy = 0, False
    FalseServer.hangs_up_idle = FalseServer.hangs_up_asked = False
    yield Target("false", "127.0.0.1", listener.getsockname()[1], (MESSAGE,))
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_closed_loop_ends_at_its_count_and_every_answer_is_counted(target):
    FalseServer.is_busy = True
    started = time.monotonic()
    found = closed_loop(target, 4, Bounds(300, 20.0))
    assert time.monotonic() - started < 15.0
    assert found.codes == {200: 200, 503: 100}
    assert (len(found.latencies), found.failed, FalseServer.answered) == (200, 100, 300)


def test_a_closed_loop_ends_at_its_time(target):
    found = closed_loop(target, 2, Bounds(10**9, 0.3))
    assert 0.2 < found.seconds < 2.0
    assert found.lost == 0


def test_an_open_loop_sends_as_many_as_are_due_whatever_the_event_loop_rounds(target):
    found = open_loop(target, 500.0, Bounds(10**9, 2.0))
    assert abs(len(found.latencies) - 1000) < 5 * math.sqrt(1000)
    assert found.failed == 0


def test_idle_connections_that_the_server_closes_cost_no_request(target):
    FalseServer.hangs_up_idle = True
    found = open_loop(target, 50.0, Bounds(10**9, 1.0))
    assert len(found.latencies) > 20
    assert found.failed == 0


def test_a_connection_that_ends_before_its_answer_is_a_lost_request(target):
    FalseServer.hangs_up_asked = True
    assert closed_loop(target, 3, Bounds(100, 2.0)).lost == 3


def test_a_server_that_is_not_there_is_told(target):
    with pytest.raises(EnvironmentFault, match=r"no server answers at 127\.0\.0\.1 port 9"):
        closed_loop(Target("x", "127.0.0.1", 9, (MESSAGE,)), 1, Bounds(1, 1.0))


def slices(rate):
    return lambda: Slice(1.0, (0.001,) * rate, {200: rate})


def test_the_served_speed_up_is_the_ratio_of_good_answers_a_second():
    found = alternate(slices(100), slices(250), 6)
    assert found.speedup.value == pytest.approx(2.5)
    assert found.speedup.low == pytest.approx(2.5)
    assert joined(found.other).per_second == 250
    assert len(found.original) == 12


def test_the_tail_is_the_p99_under_load_over_the_p50_and_the_p99_of_a_lone_client():
    lone = Slice(1.0, (0.001,) * 900 + (0.002,) * 100, {})
    loaded = Slice(1.0, (0.001,) * 900 + (0.006,) * 100, {})
    assert tail(lone, loaded) == Tail(pytest.approx(6.0), pytest.approx(3.0))


@pytest.mark.parametrize("too_few", [(), (0.001,) * 100])
def test_a_tail_of_too_few_answers_is_not_told(too_few):
    enough = Slice(1.0, (0.001,) * 1000, {})
    assert tail(enough, Slice(1.0, too_few, {})) is None
    assert tail(Slice(1.0, too_few, {}), enough) is None


def test_a_server_without_good_answers_has_no_speed_up():
    with pytest.raises(ValueError, match=r"the other gave no good answer in a whole block: \{503: 8\}"):
        alternate(slices(100), lambda: Slice(1.0, (), {503: 4}), 2)
