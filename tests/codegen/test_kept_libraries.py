"""Libraries of generated source, and those that a search keeps for its workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivace.codegen import build
from vivace.codegen.build import LIBRARIES, library
from vivace.core.errors import NotApplicable
from vivace.devices import machine

CXX = machine.detect().cxx_compiler
pytestmark = pytest.mark.skipif(not CXX, reason="generated code needs a C++ compiler: install g++")
COUNTER = 'static int n; extern "C" int next() { return ++n; }'


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    compile_it = build._compile

    def counted(source: str, compiler: str, flags: list[str], to: Path) -> None:
        found.append(source)
        compile_it(source, compiler, flags, to)

    monkeypatch.setattr(build, "_compile", counted)
    return found


def test_nothing_is_kept_where_nobody_asks(compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIBRARIES, raising=False)
    for _ in range(2):
        assert library(COUNTER, str(CXX), []).next() == 1
    assert len(compilations) == 2


def test_what_is_kept_is_compiled_once_and_has_memory_of_its_own(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(LIBRARIES, str(tmp_path / "libraries"))
    one, other = (library(COUNTER, str(CXX), []) for _ in range(2))

    assert len(compilations) == 1
    assert [one.next(), one.next(), other.next()] == [1, 2, 1]
    library(COUNTER, str(CXX), ["-O1"])
    library(COUNTER + " ", str(CXX), [])
    assert len(compilations) == 3
    assert len(list((tmp_path / "libraries").iterdir())) == 3  # and nothing half-written beside them


def test_what_cannot_be_kept_is_compiled_all_the_same(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(LIBRARIES, str(tmp_path / "file" / "libraries"))
    assert library(COUNTER, str(CXX), []).next() == 1
    assert len(compilations) == 1


def test_a_compiler_that_fails_in_silence_is_told_so() -> None:
    with pytest.raises(NotApplicable, match="false fails: it ends with 1 and says nothing"):
        library(COUNTER, "false", [])


def test_what_is_no_library_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(LIBRARIES, str(tmp_path))
    library(COUNTER, str(CXX), [])
    next(tmp_path.iterdir()).write_bytes(b"no library")
    with pytest.raises(NotApplicable, match="cannot be loaded"):
        library(COUNTER, str(CXX), [])
