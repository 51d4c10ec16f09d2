"""Which packages can be imported here: each is tried in a process of its own, which may end as it likes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

TOGETHER = 4
"""Processes at a time; each reads one package and what it needs."""
SECONDS = 60.0
"""After which an import that has not ended is called broken."""
_LONGEST = 160
AS_OPENED = {"KERAS_BACKEND": "torch"}
"""What runtimes set before they import a package, unless the user did: a settings file may name a back end that is not
there (`runtimes.source`)."""


def broken_packages(packages: Iterable[str]) -> dict[str, str]:
    """Those of these packages whose import fails, with the reason. Takes some seconds for large ones.

    >>> broken_packages(["json"])
    {}
    """
    names = list(dict.fromkeys(packages))
    with ThreadPoolExecutor(TOGETHER) as team:
        return {name: reason for name, reason in zip(names, team.map(_failure, names), strict=True) if reason}


def _failure(package: str) -> str:
    """Why a package cannot be imported; empty when it can."""
    variables = {**AS_OPENED, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", f"import {package}"],  # -P: not a file of that name that lies here
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=variables,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its import did not end in {SECONDS:.0f} s"
    if child.returncode == 0:
        return ""
    said = [line for line in child.stderr.decode(errors="replace").splitlines() if line.strip()]
    if child.returncode < 0 or not said:
        return f"its import ends the process ({child.returncode})"
    return said[-1].strip()[:_LONGEST]
