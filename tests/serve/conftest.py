"""One artifact and one server for all tests that do not change them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Server, letters_artifact, running


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier's artifact."""
    folder = tmp_path_factory.mktemp("letters")
    return letters_artifact(folder / "fast", folder / "work")


@pytest.fixture(scope="session")
def server(letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of it."""
    with running(letters, tmp_path_factory.mktemp("server") / "log.txt") as started:
        yield started
