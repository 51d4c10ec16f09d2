"""Kept ceilings come back on the same machine only, a damaged file is as none, and the last cache is found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vivace.core.machine import Ceiling, Machine
from vivace.devices import ceiling_store
from vivace.devices.caches import last_level_bytes

CEILINGS = (Ceiling(1, {"f32": 100.0, "bf16": 200.0}, 10.0),)
MACHINE = Machine("p", "x86_64", (), 2, 2, 1 << 30, "Linux", ceilings=CEILINGS)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_what_is_kept_comes_back_without_measuring() -> None:
    assert ceiling_store.keep(MACHINE)

    assert ceiling_store.kept(dataclasses.replace(MACHINE, ceilings=())) == CEILINGS


def test_a_busy_measurement_takes_nothing_from_a_quiet_one() -> None:
    ceiling_store.keep(MACHINE)

    ceiling_store.keep(dataclasses.replace(MACHINE, ceilings=(Ceiling(1, {"f32": 60.0, "int8": 300.0}, 12.0),)))

    assert ceiling_store.kept(MACHINE) == (Ceiling(1, {"f32": 100.0, "bf16": 200.0, "int8": 300.0}, 12.0),)


def test_another_machine_has_none() -> None:
    ceiling_store.keep(MACHINE)

    assert ceiling_store.kept(dataclasses.replace(MACHINE, cores_allowed=1)) == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1, "ceilings": [{"threads": 1}]}', "null"])
def test_a_damaged_file_is_as_none(text: str) -> None:
    ceiling_store.keep(MACHINE)
    (path,) = ceiling_store.cache_folder().iterdir()

    path.write_text(text)

    assert ceiling_store.kept(MACHINE) == ()


def test_a_ceiling_of_zero_is_not_believed() -> None:
    ceiling_store.keep(dataclasses.replace(MACHINE, ceilings=(Ceiling(1, {"f32": 0.0}, 1.0),)))

    assert ceiling_store.kept(MACHINE) == ()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert not ceiling_store.keep(MACHINE)


def test_without_a_home_folder_nothing_is_kept_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)

    assert not ceiling_store.keep(MACHINE)
    assert ceiling_store.kept(MACHINE) == ()


def test_the_last_level_cache_is_the_largest(tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "1024K", "32M")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")

    assert last_level_bytes(tmp_path) == 32 << 20
    assert last_level_bytes(tmp_path / "elsewhere") is None


def test_ceilings_of_a_card_and_of_one_thread_are_kept_apart() -> None:
    card = Ceiling(1, {"f32": 5e4, "tf32": 4e5}, 3000.0, "cuda")
    ceiling_store.keep(dataclasses.replace(MACHINE, ceilings=(*CEILINGS, card)))

    assert ceiling_store.kept(MACHINE) == (*CEILINGS, card)


def test_a_ceiling_of_a_device_that_is_none_is_not_believed() -> None:
    ceiling_store.keep(dataclasses.replace(MACHINE, ceilings=(Ceiling(1, {"f32": 1.0}, 1.0, "abacus"),)))

    assert ceiling_store.kept(MACHINE) == ()
