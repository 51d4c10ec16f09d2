"""The application that uvicorn calls: routes, bodies within limits, and every error as one short JSON message."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson

from vivace.measure.clock import Clock
from vivace.serve.front import metrics as prometheus
from vivace.serve.front.access import check_token
from vivace.serve.front.connection import CONNECTION
from vivace.serve.front.page import page
from vivace.serve.front.site import Site
from vivace.serve.front.stand import Stand
from vivace.serve.protocol.bodies import decompress, split
from vivace.serve.protocol.limits import Limits
from vivace.serve.protocol.model import VERSION
from vivace.serve.protocol.refusal import Refusal, too_large

log = logging.getLogger("vivace.serve")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
JSON: Headers = [(b"content-type", b"application/json")]
_MODEL = re.compile(r"^/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer|)$")
_HEALTH = ("/v2/health/live", "/v2/health/ready")
_LARGE = 1 << 18
"""Bytes from which on unpacking a body is worth a thread."""
_LINGER_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Headers


class ClientGone(Exception):
    """The client has hung up; nobody is to be answered."""


class App:
    """The ASGI application of a site."""

    def __init__(self, site: Site, clock: Clock) -> None:
        self._site = site
        self._clock = clock
        self._limits = site.settings.limits
        self._pages: dict[str, Callable[[], Reply]] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/v2": self._server,
            "/v2/health/live": lambda: _health("live", site.is_live),
            "/v2/health/ready": lambda: _health("ready", site.is_ready),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = self._clock.now()
        try:
            reply = await self._reply(scope, receive)
        except ClientGone:
            return
        except Refusal as refusal:
            self._site.metrics.rejected(refusal.reason)
            if refusal.closes:
                await _linger(receive, self._limits.body_bytes)
            reply = _refused(refusal)
        except Exception:  # noqa: BLE001  whatever it was, the client gets a generic message and the log the rest
            reply = _refused(Refusal(500, "", "defect"), with_trace=True)
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await send({"type": "http.response.body", "body": reply.body})
        self._site.metrics.answered(reply.status, self._clock.now() - started)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self._limits.header_bytes:
            raise Refusal(
                431, f"the headers are longer than {self._limits.header_bytes} bytes", "too large", closes=True
            )
        path, method = scope["path"], scope["method"]
        if path not in _HEALTH:
            check_token(self._site.settings.token, headers)
        make = self._pages.get(path if path == "/" else path.rstrip("/"))
        if make is not None:
            _allow(method, "GET")
            return make()
        return await self._of_model(path, method, scope, headers, receive)

    async def _of_model(
        self, path: str, method: str, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive
    ) -> Reply:
        found = _MODEL.match(path)
        if found is None:
            raise Refusal(404, f"there is nothing at {path[:100]!r}; GET / says what there is", "not found")
        name, version, what = found.groups()
        stand = self._site.stand
        if stand is None:
            raise Refusal(503, "the model is being loaded; come again in a moment", "not ready", 1)
        if name != stand.model.name or version not in (None, VERSION):
            raise Refusal(
                404, f"there is no model {name[:60]!r} of version {(version or VERSION)[:20]}; there is "
                f"{stand.model.name} of version {VERSION}", "not found",
            )  # fmt: skip
        if what == "/infer":
            _allow(method, "POST")
            connection = scope.get("extensions", {}).get(CONNECTION)
            is_gone = connection.is_gone if connection is not None else _never
            return await self._infer(stand, headers, receive, is_gone)
        _allow(method, "GET")
        if what == "/ready":
            return _health("ready", self._site.is_ready, name)
        return _json(200, stand.model.metadata())

    async def _infer(
        self, stand: Stand, headers: Mapping[bytes, bytes], receive: Receive, is_gone: Callable[[], bool]
    ) -> Reply:
        data = await _body(receive, headers.get(b"content-length"), self._limits)
        encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        if len(data) > _LARGE and encoding:
            data = await asyncio.to_thread(decompress, data, encoding, self._limits)
        elif encoding:
            data = decompress(data, encoding, self._limits)
        asked = stand.reader.read(split(data, headers.get(b"inference-header-content-length")))
        inferred = await stand.infer(asked, is_gone)
        if inferred is None:
            raise ClientGone
        answer = stand.writer.write(asked.layout, inferred.shapes, inferred.outputs)
        length = (b"content-length", str(len(answer.body)).encode())
        if answer.json_bytes is None:
            return Reply(200, answer.body, [*JSON, length])
        return Reply(
            200, answer.body,
            [
                (b"content-type", b"application/octet-stream"), length,
                (b"inference-header-content-length", str(answer.json_bytes).encode()),
            ],
        )  # fmt: skip

    def _server(self) -> Reply:
        from importlib.metadata import version

        extensions = ["binary_tensor_data"]
        return _json(200, {"name": "vivace", "version": version("vivace"), "extensions": extensions})

    def _metrics(self) -> Reply:
        body = self._site.metrics.text()
        return _reply(200, body, prometheus.CONTENT_TYPE.encode())

    def _page(self) -> Reply:
        text = page(self._site.stand, self._site.state).encode()
        policy = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'")
        found = _reply(200, text, b"text/html; charset=utf-8")
        return dataclasses.replace(found, headers=[*found.headers, policy])


async def _body(receive: Receive, announced: bytes | None, limits: Limits) -> bytes:
    """The whole body, counted while it arrives, within the time that a client may take."""
    if announced is not None and announced.isdigit() and int(announced[:20]) > limits.body_bytes:
        raise too_large("the body", int(announced[:20]), limits.body_bytes, "send fewer samples in a request")
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    if not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        _check_size(whole, limits)
        return whole
    gathered = bytearray(message.get("body", b""))
    try:
        async with asyncio.timeout(limits.body_seconds):
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                gathered += message.get("body", b"")
                _check_size(gathered, limits)
    except TimeoutError:
        raise Refusal(
            408, f"the body did not arrive within {limits.body_seconds:g} s; send it faster", "slow body", closes=True
        ) from None
    return bytes(gathered)


def _check_size(data: bytes | bytearray, limits: Limits) -> None:
    if len(data) > limits.body_bytes:
        raise too_large("the body", len(data), limits.body_bytes, "send fewer samples in a request")


async def _linger(receive: Receive, most_bytes: int) -> None:
    """Take a little more of what a client still sends, so that it reads our answer and not a reset connection."""
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while most_bytes > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
                most_bytes -= len(message.get("body", b""))
    except TimeoutError:
        return


def _refused(refusal: Refusal, with_trace: bool = False) -> Reply:
    """A refusal as JSON. What is our own fault says nothing but an id, by which the log can be searched."""
    message = refusal.message
    if not message:
        request_id = uuid.uuid4().hex
        log.error("request %s failed: %s", request_id, refusal.reason, exc_info=with_trace)
        message = f"the request could not be computed; tell whoever runs this server its id {request_id}"
    found = _json(refusal.status, {"error": message})
    if refusal.retry_after_seconds is not None:
        found.headers.append((b"retry-after", str(refusal.retry_after_seconds).encode()))
    if refusal.closes:
        found.headers.append((b"connection", b"close"))
    if refusal.status == 401:
        found.headers.append((b"www-authenticate", b"Bearer"))
    return found


def _health(what: str, holds: bool, name: str | None = None) -> Reply:
    document: dict[str, Any] = {what: holds} if name is None else {"name": name, what: holds}
    return _json(200 if holds else 503, document)


def _json(status: int, document: Mapping[str, Any]) -> Reply:
    return _reply(status, orjson.dumps(document), b"application/json")


def _reply(status: int, body: bytes, kind: bytes) -> Reply:
    return Reply(status, body, [(b"content-type", kind), (b"content-length", str(len(body)).encode())])


def _allow(method: str, allowed: str) -> None:
    if method != allowed:
        raise Refusal(405, f"the method was {method[:20]}; allowed here is {allowed}", "method")


def _never() -> bool:
    return False
