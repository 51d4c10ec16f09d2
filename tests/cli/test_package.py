"""`import vivace as vv`: light, lazy, and complete."""

from __future__ import annotations

import subprocess
import sys

import pytest
from false_api import FalseApi

import vivace as vv
from vivace.core import errors, quality, workload


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_import_is_light() -> None:
    assert (
        run(
            "import sys, vivace; print([m for m in ('torch', 'numpy', 'rich', 'pydantic', 'typer', 'vivace.api') "
            "if m in sys.modules])"
        )
        == "[]\n"
    )


def test_loading_imports_none_of_the_verbs_that_make_what_is_loaded() -> None:
    assert run("import sys, vivace; vivace.load; print('vivace.api' in sys.modules)") == "False\n"


def test_the_package_runs_as_a_module() -> None:
    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "vivace", *words], check=False, capture_output=True, text=True)

    assert ran("--version").stdout == f"vivace {vv.__version__}\n"
    assert ran("optimise").returncode == 2


def test_the_nouns_come_from_the_core() -> None:
    assert (vv.Budget, vv.Workload, vv.errors) == (quality.Budget, workload.Workload, errors)
    assert vv.__version__ == "0.1.0"


def test_the_verbs_come_from_the_api(api: FalseApi) -> None:
    vv.optimize("a workload")
    vv.measure("a", "b")
    assert [name for name, _, _ in api.calls] == ["optimize", "measure"]


def test_measure_stays_the_verb_when_the_room_of_that_name_is_imported(api: FalseApi) -> None:
    from vivace.measure import clock

    assert clock.SystemClock
    assert callable(vv.measure)
    assert vv.measure.__module__ != "vivace.measure"


def test_every_public_name_is_listed() -> None:
    assert set(vv.__all__) <= set(dir(vv))


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match="it has Budget, Training, Transformer, Workload"):
        vv.optimise  # noqa: B018
