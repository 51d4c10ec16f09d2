"""The fork server: an interpreter that imports once what every worker needs, and from which workers are forked.

Started by `client` as `python -m vivace.measure.forking.server SOCKET PARENT MODULES READER OTHERS`; modules have
commas between them. It has one thread, opens no device and runs nobody's model, so that a fork of it is a worker that
has just finished its imports. It reaps its children only when asked, so that their numbers stay theirs; it ends when
its parent does, and its children with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from vivace.measure import worker

LARGEST_MESSAGE = 1 << 20
DESCRIPTORS = 3
LOOK_FOR_PARENT_SECONDS = 5.0


def main(arguments: list[str]) -> None:
    """Import, then fork and reap as asked until the parent is gone."""
    channel, parent = socket.socket(fileno=int(arguments[0])), int(arguments[1])
    channel.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    spared, reader, _ = (_import(modules.split(",")) for modules in arguments[2:5])
    told, shared = {"spared": spared, "reader": reader}, dict[str, float]()
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise copy every page of what is shared
    while request := _next(channel, parent):
        message, descriptors = request
        try:
            if message["do"] == "fork":
                own = sum(shared.get(module, 0.0) for module in message["preload"])
                answer = _fork(channel, message, descriptors) | told | {"shared": own}
            elif message["do"] == "import":
                answer = _share(message, shared)
            else:
                answer = _reap(message)
        except OSError as error:
            answer = {"error": str(error)}
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(json.dumps(answer).encode())
    os._exit(0)


def _import(modules: list[str]) -> float:
    """Import these; the seconds of a core that it took, whatever else the machine did meanwhile."""
    started = time.process_time()
    for module in modules:
        with contextlib.suppress(Exception):  # what fails here fails again, and is told, in the worker
            importlib.import_module(module)
    return time.process_time() - started


def _share(message: dict[str, Any], shared: dict[str, float]) -> dict[str, Any]:
    """Import more; how many threads there are then: from a process with several no worker can be forked.

    Libraries that expect forks, such as OpenBLAS, end their threads before one: the first is forked for that alone.
    """
    for module in message["modules"]:
        shared[module] = shared.get(module, 0.0) + _import([module])
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return {"threads": len(os.listdir("/proc/self/task"))}  # noqa: PTH208


def _next(channel: socket.socket, parent: int) -> tuple[dict[str, Any], list[int]] | None:
    """The next request with its descriptors; None when the parent has ended, whoever else holds its end open."""
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    while os.getppid() == parent:
        if not poller.poll(1000 * LOOK_FOR_PARENT_SECONDS):
            continue
        text, descriptors, _, _ = socket.recv_fds(channel, LARGEST_MESSAGE, DESCRIPTORS)
        return (json.loads(text), descriptors) if text else None
    return None


def _fork(channel: socket.socket, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    """Fork, and answer when the child leads a session of its own, so that signals to its group reach it."""
    server = os.getpid()
    led, leads = os.pipe()
    pid = os.fork()
    if pid:
        os.close(leads)
        os.read(led, 1)  # its end, when the child closed its side
        os.close(led)
        return {"pid": pid}
    code = 1
    try:
        os.setsid()
        os.close(leads)
        os.close(led)
        channel.close()
        commands, answers, prints = descriptors
        _become(message, prints)
        worker.main([str(commands), str(answers), str(server), *message["preload"]])
    except BaseException:  # noqa: BLE001  as an interpreter of its own would: told on its log, and exit code 1
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _become(message: dict[str, Any], prints: int) -> None:
    """Take on what a new interpreter would have had from the parent as it is now."""
    for stream in (1, 2):
        os.dup2(prints, stream)
    os.close(prints)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(message["environment"])
    sys.path[:] = message["environment"]["PYTHONPATH"].split(os.pathsep)
    importlib.invalidate_caches()
    os.chdir(message["folder"])
    if message["cores"]:
        os.sched_setaffinity(0, message["cores"])
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python's own generator does so by itself


def _reap(message: dict[str, Any]) -> dict[str, Any]:
    _, status = os.waitpid(message["pid"], 0)
    return {"code": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    main(sys.argv[1:])
