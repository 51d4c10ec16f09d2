"""What an arm's interpreter imports ahead: where an installed package defines layers, and nothing of the user's."""

from __future__ import annotations

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
