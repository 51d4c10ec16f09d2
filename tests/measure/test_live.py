"""What an arm's interpreter imports ahead: where an installed package defines layers, and nothing of the user's."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import rich.text  # noqa: F401  an installed package that is imported here
import torch
from torch import nn

from vivace.measure.live import installed_modules


def made_in(module: str) -> type[nn.Module]:
    """A layer that says that it was defined in a module."""
    return type("Layer", (nn.Identity,), {"__module__": module})


def test_layers_of_an_installed_package_are_imported_ahead_once() -> None:
    layers = nn.Sequential(made_in("rich.text")(), nn.Sequential(made_in("rich.text")()), nn.Linear(2, 2))

    assert installed_modules(layers) == ("rich.text",)


def test_nothing_of_the_users_is_imported_ahead() -> None:
    assert installed_modules(nn.Sequential(made_in(__name__)(), made_in("__main__")(), made_in("gone")())) == ()
    assert installed_modules(torch.nn.functional.relu) == ()
    assert installed_modules(None) == ()


def test_packages_of_another_environment_on_the_path_are_installed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("site-packages", "projects"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"found_in_{folder[:4]}.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path / folder)
    for name in ("found_in_site", "found_in_proj"):
        importlib.import_module(name)

    layers = nn.Sequential(made_in("found_in_site")(), made_in("found_in_proj")())

    assert installed_modules(layers) == ("found_in_site",)
