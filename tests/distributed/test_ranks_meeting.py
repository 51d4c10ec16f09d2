"""Ranks find each other anew whenever they start: nothing of an earlier meeting is read again."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from together import ranks

from vivace.distributed.launch import Launcher, why_silent
from vivace.distributed.rank import choose_interface, interface_of
from vivace.distributed.team import Team


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ranks_that_start_again_meet_under_another_name() -> None:
    launcher = Launcher(Team(processes=2), "together:open_named", {}, b"")
    first, total = launcher.ask("met_at", {})["result"], launcher.ask("sum_of_ranks", {})["result"]
    os.kill(ranks()[-1].pid, signal.SIGKILL)

    told = launcher.ask("sum_of_ranks", {})
    second = launcher.ask("met_at", {})["result"]

    assert "was killed by SIGKILL" in told["restarted"]
    assert first != second
    assert launcher.ask("sum_of_ranks", {})["result"] == total == 1.0
    launcher.close()


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "a..b:80"])
def test_an_address_that_cannot_be_is_told_as_one_where_nobody_answers(address: str) -> None:
    assert why_silent(address)


def test_the_interface_of_an_address_is_the_one_that_has_it() -> None:
    (loopback,) = (
        name for name, found in psutil.net_if_addrs().items() if "127.0.0.1" in [one.address for one in found]
    )

    assert interface_of(Team().own_address()) == loopback
    assert interface_of("203.0.113.7") == ""


@pytest.mark.parametrize(("nodes", "nccl"), [(1, None), (2, "={loopback}")])
def test_gloo_and_nccl_use_the_interface_by_which_a_machine_is_reached(
    nodes: int, nccl: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    loopback = interface_of("127.0.0.1")

    choose_interface(Team(nodes=nodes, least_nodes=nodes))

    assert os.environ["GLOO_SOCKET_IFNAME"] == loopback
    assert os.environ.get("NCCL_SOCKET_IFNAME") == (nccl and nccl.format(loopback=loopback))
