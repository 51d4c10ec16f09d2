"""The front without a network: bodies within limits, refusals as JSON, the watchdog, and clients that take too long."""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace

import pytest
import uvicorn
from uvicorn.server import ServerState

from vivace.core.errors import UsageError
from vivace.core.signature import Signature, TensorSpec
from vivace.core.structure import Structure
from vivace.measure.clock import FakeClock
from vivace.serve.front.app import App
from vivace.serve.front.connection import connection_kind
from vivace.serve.front.site import SILENCE_SECONDS, Site
from vivace.serve.protocol.answers import Writer
from vivace.serve.protocol.limits import Limits
from vivace.serve.protocol.model import Model
from vivace.serve.protocol.requests import Reader
from vivace.serve.settings import Settings
from vivace.serve.workers.crew import Inferred

SPEC = TensorSpec("x", "uint8", (None, 2), 0)
TENSOR = Structure("tensor")
MODEL = Model.of("m", Signature(Structure("dict", (TENSOR,), ("x",)), 1, (SPEC,), TENSOR, (SPEC,)))
LIMITS = Limits(body_bytes=2000, body_seconds=0.05, header_seconds=5.0, write_seconds=7.0, header_bytes=300)
BODY = b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[1,2],"data":[3,4]}]}'
INFER = "/v2/models/m/infer"


class Echo:
    """Stands in for a stand: answers with the input."""

    def __init__(self, error=None):
        self.model, self.reader, self.writer = MODEL, Reader(MODEL, LIMITS), Writer(MODEL)
        self.crew, self.queue = (
            SimpleNamespace(ready=1, tick=self.tick),
            SimpleNamespace(oldest_seconds=lambda now: 0.0),
        )
        self.error, self.ticks = error, 0

    async def infer(self, asked, is_gone):
        if self.error:
            raise self.error
        return Inferred(asked.layout.shapes, tuple(map(bytes, asked.parts)))

    def tick(self, seconds):
        self.ticks += 1
        raise RuntimeError("a defect in a tick")


def site_of(tmp_path, stand, clock=None, **settings):
    site = Site(Settings(tmp_path, limits=LIMITS, **settings), tmp_path, clock or FakeClock())
    site.stand = stand
    return site


def ask(tmp_path, *parts, path=INFER, method="POST", headers=(), stand=None, hangs=False, **settings):
    """Status, headers and JSON of the answer to a request whose body comes in these parts."""
    site = site_of(tmp_path, stand or Echo(), **settings)
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if waiting and not hangs:
        waiting[-1]["more_body"] = False
    sent = []

    async def receive():
        if waiting:
            return waiting.pop(0)
        return await asyncio.Future()

    async def send(found):
        sent.append(found)

    scope = {"type": "http", "path": path, "method": method, "headers": list(headers)}
    asyncio.run(App(site, FakeClock())(scope, receive, send))
    start, body = sent
    return start["status"], dict(start["headers"]), json.loads(body["body"])


def test_a_body_in_parts_is_put_together(tmp_path):
    status, _, found = ask(tmp_path, BODY[:10], BODY[10:50], BODY[50:])
    assert (status, found["outputs"][0]["data"]) == (200, [3, 4])


def test_a_body_that_does_not_come_is_refused_after_its_time_and_the_connection_closed(tmp_path):
    status, headers, found = ask(tmp_path, BODY[:10], hangs=True)
    assert (status, headers[b"connection"]) == (408, b"close")
    assert "did not arrive within 0.05 s" in found["error"]


def test_a_body_that_never_ends_is_refused_at_its_limit(tmp_path):
    status, headers, found = ask(tmp_path, *[b"a" * 500] * 5)
    assert (status, headers[b"connection"]) == (413, b"close")
    assert "allowed are 2000" in found["error"]


def test_headers_beyond_the_limit_are_refused(tmp_path):
    assert ask(tmp_path, BODY, headers=[(b"x", b"a" * 300)])[0] == 431


def test_a_defect_is_told_with_an_id_and_nothing_else_and_the_log_has_both(tmp_path, caplog):
    with caplog.at_level(logging.ERROR):
        status, _, found = ask(tmp_path, BODY, stand=Echo(RuntimeError("secret path")))
    assert status == 500
    assert "secret" not in json.dumps(found)
    identity = found["error"].split()[-1]
    assert identity in caplog.text
    assert "secret path" in caplog.text


def test_while_the_model_loads_a_client_is_told_to_come_again(tmp_path):
    site = site_of(tmp_path, None)
    assert (site.is_live, site.is_ready, site.state) == (True, False, "loading")
    sent = []

    async def send(found):
        sent.append(found)

    asyncio.run(App(site, FakeClock())({"type": "http", "path": INFER, "method": "POST", "headers": []}, None, send))
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"1")


def test_a_token_is_compared_and_health_needs_none(tmp_path):
    token = "0123456789abcdef"
    assert ask(tmp_path, BODY, token=token)[0] == 401
    assert ask(tmp_path, BODY, token=token, headers=[(b"authorization", b"Bearer 0123456789abcdeX")])[0] == 401
    assert ask(tmp_path, BODY, token=token, headers=[(b"authorization", b"bearer " + token.encode())])[0] == 200
    assert ask(tmp_path, path="/v2/health/live", method="GET", token=token)[0] == 200


def test_ticks_go_on_whatever_fails_in_them_and_their_silence_turns_liveness_off(tmp_path):
    clock, stand = FakeClock(), Echo()
    site = site_of(tmp_path, stand, clock)

    async def story():
        task = asyncio.create_task(site.run(lambda now: None))
        await asyncio.sleep(0.25)
        assert not task.done()
        task.cancel()

    asyncio.run(story())
    assert stand.ticks >= 2
    assert site.is_live
    clock.advance(SILENCE_SECONDS + 0.1)
    assert (site.is_live, site.is_ready) == (False, False)


def test_a_request_that_waits_twice_its_time_turns_liveness_off(tmp_path):
    stand = Echo()
    stand.queue.oldest_seconds = lambda now: 60.1
    assert not site_of(tmp_path, stand, timeout_seconds=30.0).is_live
    assert site_of(tmp_path, stand, timeout_seconds=31.0).is_live


class FalseTransport:
    def __init__(self):
        self.written, self.unsent, self.aborted, self.closed = b"", 0, False, False

    def get_extra_info(self, name, default=None):
        return default

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return self.unsent

    def abort(self):
        self.aborted = True

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed


@pytest.fixture
def line():
    """A connection with a transport that goes nowhere."""
    loop = asyncio.new_event_loop()
    config = uvicorn.Config(lambda *given: None, ws="none", lifespan="off", log_config=None, interface="asgi3")
    protocol = connection_kind(LIMITS)(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    protocol.connection_made(FalseTransport())
    yield protocol
    loop.close()


def test_a_client_that_sends_no_headers_is_hung_up_on(line):
    line.sweep(100.0)
    line.sweep(105.0)
    assert not line.transport.aborted
    line.sweep(105.1)
    assert line.transport.aborted


def test_a_client_that_sends_headers_without_end_is_told_so(line):
    line.data_received(b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 200)
    assert line.transport.written == b""
    line.data_received(b"a" * 200)
    assert line.transport.written.startswith(b"HTTP/1.1 431 ")
    head, _, body = line.transport.written.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert line.transport.closed


def test_a_client_that_does_not_read_its_answer_is_hung_up_on(line):
    line._waits_for_headers = False
    line.transport.unsent = 10
    line.sweep(100.0)
    line.transport.unsent = 5  # it reads a little
    line.sweep(107.5)
    line.sweep(114.0)
    assert not line.transport.aborted
    line.sweep(115.0)
    assert line.transport.aborted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0"}, "--host is 0.0.0.0, which others can reach"),
        ({"host": "example.org"}, "give --token-file"),
        ({"token": "short"}, "give 16 or more"),
        ({"workers": 0}, "--workers is 0; allowed is 1 or more"),
        ({"max_batch": 0}, "--max-batch is 0"),
    ],
)
def test_a_server_that_should_not_be_is_not_set_up(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        Settings(tmp_path, **changes)
    assert Settings(tmp_path, host="0.0.0.0", token="0123456789abcdef").token


def test_without_the_extra_the_line_that_installs_it_is_told(monkeypatch):
    import importlib.util

    from vivace.cli.serve import require_serving
    from vivace.core.errors import MissingExtra

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'vivace\[serve\]'"):
        require_serving("serving")
