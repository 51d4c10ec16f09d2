"""Runs a command on each of two hosts: network namespaces that a pair of virtual interfaces joins, and nothing else.

python two_hosts.py COMMAND... runs it in both; {host} in a word becomes 0 and 1. It prints what went over the link as
one JSON object. It must itself be started in a network namespace of its own, by `apart()`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ADDRESSES = ("10.231.7.1", "10.231.7.2")
LINKS = ("vivace0", "vivace1")
WAYS = (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"])
SECONDS, PATIENCE = 240, 20


def apart() -> list[str] | None:
    """The words that start a command in a network namespace of its own, in which it may make links; None where this
    machine allows no user to."""
    for way in WAYS:
        made = f"ip link add {LINKS[0]} type veth peer name {LINKS[1]}"
        try:
            if subprocess.run([*way, "sh", "-c", made], capture_output=True, timeout=20).returncode == 0:
                return way
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None


def main(command: list[str]) -> int:
    """Join two namespaces, and run the command in both."""
    waiting = ["unshare", "--net", "sh", "-c", "echo; exec cat"]  # a namespace lives as long as somebody is in it
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        other.stdout.readline()
        there = ["nsenter", f"--net=/proc/{other.pid}/ns/net"]
        _run(["ip", "link", "add", LINKS[0], "type", "veth", "peer", "name", LINKS[1]])
        _run(["ip", "link", "set", LINKS[1], "netns", str(other.pid)])
        for host, prefix in enumerate(([], there)):
            _run([*prefix, "ip", "link", "set", "lo", "up"])
            _run([*prefix, "ip", "address", "add", f"{ADDRESSES[host]}/24", "dev", LINKS[host]])
            _run([*prefix, "ip", "link", "set", LINKS[host], "up"])
        words = [[word.replace("{host}", host) for word in command] for host in "01"]
        hosts = [subprocess.Popen([*prefix, *mine], stdout=sys.stderr)
                 for prefix, mine in zip(([], there), words, strict=True)]  # fmt: skip
        codes = [hosts[0].wait(timeout=SECONDS), _ended(hosts[1])]
        sys.stdout.write(json.dumps({"codes": codes, **_carried()}))
        other.stdin.close()
    return 0


def _ended(host: subprocess.Popen[bytes]) -> int:
    """The exit code of the second host's command, which a cut link may leave waiting for the first one."""
    try:
        return host.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        host.kill()
        return host.wait()


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, timeout=20)


def _carried() -> dict[str, int]:
    """Bytes over the link, from host 0 and to it, and over host 0's loopback."""
    rows = (line.split() for line in Path("/proc/self/net/dev").read_text().splitlines()[2:])
    found = {row[0].rstrip(":"): (int(row[9]), int(row[1])) for row in rows}
    return {"sent": found[LINKS[0]][0], "received": found[LINKS[0]][1], "at_home": found["lo"][0]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
