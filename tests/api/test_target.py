"""What a target's file may do when it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivace.api.target import resolve
from vivace.core.errors import UsageError


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("x = 1\nraise SystemExit('no model here')", r"SystemExit: no model here \(line 2\)"),
        ("import sys\n\nsys.exit(3)", r"SystemExit: 3 \(line 3\)"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(line 1\)"),
        ("def f(:", r"SyntaxError: .*\(line 1\)"),
    ],
)
def test_a_file_that_fails_or_leaves_when_it_is_read_is_told_with_the_line(
    tmp_path: Path, code: str, reason: str
) -> None:
    (tmp_path / "leaving.py").write_text(code)
    with pytest.raises(UsageError, match=rf"leaving\.py cannot be imported: {reason}"):
        resolve(f"{tmp_path / 'leaving.py'}:work")


def test_a_function_that_leaves_when_it_is_called_is_told_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "called.py").write_text("def work():\n    raise SystemExit(2)")
    with pytest.raises(UsageError, match=r"called\.py:work\(\) failed: SystemExit: 2 \(line 2\)"):
        resolve(f"{tmp_path / 'called.py'}:work")
