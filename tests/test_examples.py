"""Every example runs as a reader would run it, with less time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if "def main(" in path.read_text())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_runs_and_prints_its_result(name: str, workbench: Path) -> None:
    script = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import {name}; {name}.main('25s')"

    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_digits_example_is_a_workload() -> None:
    assert "def workload(" in (EXAMPLES / "digits.py").read_text()
