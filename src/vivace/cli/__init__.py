"""The command line. `main` is the door; each verb has a file of its own and imports heavy rooms only when it runs."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and answer its exit code (see `app.main`)."""
    from vivace.cli import app

    return app.main(arguments)
