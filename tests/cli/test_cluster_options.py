"""Options of a search over a cluster that cannot be, told before any Ray is looked for."""

from __future__ import annotations

import pytest

from vivace.cli.app import main


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--price", "c7i=0.36"], "--price was given without --cluster"),
        (["--cluster", "auto", "--price", "c7i"], "--price has 'c7i'; allowed is NODE=PRICE"),
        (["--cluster", "auto", "--price", "=2"], "--price has '=2'; allowed is NODE=PRICE"),
        (["--cluster", "auto", "--resume"], "--resume was given with --cluster"),
    ],
)
def test_options_without_an_effect_or_a_meaning_are_refused(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimize", "work.py:job", *options]) == 2
    assert told in capsys.readouterr().err
