"""Honest artifacts, made once; each test spoils a copy. The canary is a file that must never appear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from artifact.conftest import make
from attacks import forging


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An honest artifact of each form that loads without a compiler."""
    made = {}
    for form, model in (
        ("torch", forging.torch_model),
        ("onnx", forging.onnx_model),
        ("openvino", forging.openvino_model),
    ):
        folder = tmp_path_factory.mktemp(form)
        made[form] = forging.artifact_of(model(folder), folder / "fast", folder / "work")
    return made


@pytest.fixture
def artifact(honest: dict[str, Path], tmp_path: Path) -> Path:
    """An artifact of an exported graph, to be spoilt."""
    return forging.copy(honest["torch"], tmp_path / "fast")


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A path that code of an attacker would write to; it is seen not to exist when the test is over."""
    path = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(path))
    yield path
    assert not path.exists(), "code that came with a file has run"


@pytest.fixture(scope="session")
def other_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest artifact of another network, to swap files with."""
    folder = tmp_path_factory.mktemp("other")
    return make(folder / "fast", folder / "work")
