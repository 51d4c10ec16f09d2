"""What a prediction says in a terminal."""

from __future__ import annotations

import io

from rich.console import Console

import vivace as vv
from vivace.core.prediction.answer import Prediction
from vivace.core.prediction.work import Transformer
from vivace.report.prediction import prediction_block


def told(prediction: Prediction) -> str:
    to = io.StringIO()
    Console(file=to, width=100).print(prediction_block(prediction))
    return to.getvalue()


def test_reasons_that_are_left_out_are_counted() -> None:
    large = Transformer(layers=80, width=8192, heads=64, sequence=2048)

    shown = told(vv.predict(large, on=["rtx-4090", "h100-sxm"], count=[1, 8], batch=64))

    assert shown.count("refused: ") == 3
    assert "refused for other reasons: 1 more; --json has each line's own" in shown
