"""The life of a server: bound, opened, ready; reloaded by SIGHUP, drained by SIGTERM, ended."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import signal
import socket
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import uvicorn
import uvloop

from vivace.core.errors import Cancelled, EnvironmentFault, UsageError
from vivace.measure.clock import SystemClock
from vivace.serve.front.app import App
from vivace.serve.front.connection import Connection, connection_kind
from vivace.serve.front.site import Site
from vivace.serve.front.stand import Stand
from vivace.serve.settings import Settings
from vivace.serve.slices import shortest_slice

log = logging.getLogger("vivace.serve")
KEEP_ALIVE_SECONDS = 75
Announce = Callable[[str, Stand], None]
"""Called once, when requests are answered: the server's address, and what it serves."""


def run(settings: Settings, announce: Announce) -> None:
    """Serve until told to end. Returns after a drain (SIGTERM, or the first Ctrl-C).

    Raises what opening the artifact raises; EnvironmentFault where the port is taken; Cancelled at a second Ctrl-C.
    """
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    loop_of = uvloop.new_event_loop
    with (
        bound(settings) as listener, _folder() as folder, shortest_slice() as why_not,
        asyncio.Runner(loop_factory=loop_of) as runner,
    ):  # fmt: skip
        if why_not:
            log.info("requests may wait longer on a busy machine: %s", why_not)
        runner.run(_serve(settings, listener, Path(folder), announce))


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where workers log and listen; only this user can look inside."""
    return tempfile.TemporaryDirectory(prefix="vivace-serve-", ignore_cleanup_errors=True)


def bound(settings: Settings) -> socket.socket:
    """A listening socket. Raises EnvironmentFault where the address cannot be had."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EnvironmentFault(
                f"port {settings.port} of {settings.host} is taken by another program; give another --port, "
                "or 0 for any"
            ) from None
        raise UsageError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}") from None
    listener.set_inheritable(False)
    return listener


class _Uvicorn(uvicorn.Server):
    """uvicorn, which leaves the signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def sweep(self, now: float) -> None:
        """Let every connection see whether its client takes too long."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.sweep(now)


class _Life:
    """One run: what signals do to it."""

    def __init__(self, site: Site, server: _Uvicorn) -> None:
        self.site = site
        self.server = server
        self.opening: asyncio.Task[Stand] | None = None
        self.was_forced = False
        self._tasks: set[asyncio.Task[object]] = set()

    def listen(self) -> None:
        """Take the signals over."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.drain, self.site.settings.grace_seconds)
        loop.add_signal_handler(signal.SIGINT, self.drain, 0.0)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def drain(self, grace_seconds: float) -> None:
        """Turn readiness off, go on for the grace time, then finish what was accepted. The second time: end at once."""
        if self.site.is_draining:
            self.was_forced = self.server.force_exit = self.server.should_exit = True
            return
        self.site.is_draining = True
        log.info("draining: new requests should go elsewhere")
        if self.opening is not None and not self.opening.done():
            self.opening.cancel()
        asyncio.get_running_loop().call_later(grace_seconds, self._stop_accepting)

    def _stop_accepting(self) -> None:
        self.server.should_exit = True

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self.site.reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _serve(settings: Settings, listener: socket.socket, folder: Path, announce: Announce) -> None:
    clock = SystemClock()
    site = Site(settings, folder, clock)
    server = _Uvicorn(_configuration(App(site, clock), settings))
    life = _Life(site, server)
    life.listen()
    loop = asyncio.get_running_loop()
    ticking = loop.create_task(site.run(server.sweep))
    answering = loop.create_task(server.serve(sockets=[listener]))
    try:
        life.opening = loop.create_task(site.open())
        with contextlib.suppress(asyncio.CancelledError):
            stand = await life.opening
            gc.collect()
            gc.freeze()
            host, port = listener.getsockname()[:2]
            announce(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", stand)
        await answering
    finally:
        server.should_exit = True
        await asyncio.wait([answering])
        ticking.cancel()
        await site.close()
    if life.was_forced:
        raise Cancelled("cancelled before all requests were answered")


def _configuration(app: App, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=connection_kind(settings.limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=settings.limits.connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.drain_seconds) or 1,
    )
